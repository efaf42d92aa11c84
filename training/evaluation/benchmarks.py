"""How good is an entry on a benchmark it was not trained for? Classified once, piece by piece, then kept in the entry.

What was classified is kept in the cache after each piece, so that an evaluation cut short goes on where it was. Any
number of entries share the decoding (and corrupting) of the pictures.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from training.prepare.dataset import TrainingDataError
from training.publish.card import renew_card
from training.publish.ensemble import mixed
from training.publish.export import record
from zoo.benchmarks import BenchmarkSet, Definition, published, scoring
from zoo.benchmarks.eligibility import refusal
from zoo.cache import cache_folder
from zoo.data import DataError, Source, read_dataset
from zoo.data.registry import DataSetInfo, laboratory_of
from zoo.entry import (
    CONFIG,
    HEAD,
    WEIGHTS,
    Entry,
    EntryError,
    as_stored,
    load_entry,
    read_predictions,
)
from zoo.entry.write import ScoredBenchmark, update_benchmark, update_metrics, update_section
from zoo.files import atomic_path
from zoo.imaging.decode import ImageError
from zoo.imaging.localise import CROP_VERSION
from zoo.scores import metrics
from zoo.scores.calibration import scaling_of
from zoo.serving.batch import READER_THREADS, classify_files
from zoo.serving.devices import device_name
from zoo.serving.runtime import Runtime

SPEED_IMAGES = 128
PIECE = 256  # pictures decoded and kept in memory at a time

Say = Callable[[object], None]
Picture = tuple[str, str, str, Source]


@dataclass(frozen=True)
class Held:
    """A decoded picture in memory, for several models to look at."""

    picture: Image.Image

    def content(self) -> bytes:
        """Its samples."""
        return self.picture.tobytes()

    def image(self) -> Image.Image:
        """The picture."""
        return self.picture


def own_benchmark(folder: Path, name: str, entries: Sequence[Entry]) -> tuple[BenchmarkSet, list[Picture]]:
    """A folder of class folders (or any known layout) as a benchmark, and its pictures.

    The entries must know its labels; those that differ in case only are taken for the same. Raises DataError.
    """
    data = read_dataset(folder)
    known = {label.lower(): label for entry in entries for label in entry.labels}
    items = [item for item in data.items if item.label is not None]
    strange = sorted({item.label for item in items if item.label.lower() not in known})
    if not items:
        raise TrainingDataError(f"{folder} has no labelled pictures: make one folder a class.")
    if strange:
        raise TrainingDataError(
            f"{folder} has classes that the models do not know: {', '.join(strange)}. "
            f"Known are {', '.join(known.values())}."
        )
    rows = pd.DataFrame(
        [(item.file, item.cell or item.file, known[item.label.lower()]) for item in items],
        columns=["file", "cell", "label"],
    )
    labels = sorted(set(rows["label"]))
    if len(labels) < 2:
        raise TrainingDataError(f"{folder} has pictures of {labels[0]} only; two classes are needed at least.")
    described = DataSetInfo(
        name="own",
        title=data.name[:80],
        laboratory=laboratory_of(data.name),
        place=".",
        licence="",
        citation=data.name,
        role="test",
    )
    benchmark = BenchmarkSet(
        name, Definition(version=1, title=data.name[:120], data=described.name, labels=labels), rows, described
    )
    pictures = [(*row, item.source) for row, item in zip(rows.itertuples(index=False), items, strict=True)]
    return benchmark, pictures


def evaluate(
    entries: Sequence[Entry], benchmark: BenchmarkSet, pictures: Sequence[Picture], runtime: Runtime, say: Say
) -> dict[str, str]:
    """Score entries on a benchmark and write the scores into them; returns id → why an entry could not be scored.

    Ensembles are computed from what their members answered. Raises DataError if a picture cannot be read: a benchmark
    of other pictures would be another benchmark.
    """
    failed = {entry.id: reason for entry in entries if (reason := refusal(entry, benchmark))}
    wanted = [entry for entry in entries if entry.id not in failed]
    single = {e.id: e for entry in wanted for e in entry.networks}
    answers = classify(list(single.values()), benchmark, pictures, runtime, failed)
    for entry in wanted:
        parts = [answers.get(member.id) for member in entry.networks]
        if any(part is None for part in parts):
            failed.setdefault(entry.id, f"{entry.id} could not be scored, for a member of it was not.")
            continue
        table = _together(entry, parts) if entry.members else parts[0]
        try:
            renewed_card = add(entry, benchmark, benchmark.answers(table, entry.labels), device_name(runtime.device))
        except OSError as error:
            failed[entry.id] = f"{entry.folder} cannot be written to: {error.strerror}."
            continue
        if not renewed_card:
            say(f"{entry.id}: its card still has the old figures, for its recipe is of another version.")
        say(f"{entry.id}: {headline(load_entry(entry.folder), benchmark.name)}")
    return failed


def _together(entry: Entry, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """An ensemble's table of those of its members that count."""
    own = []
    for (member, _), part in zip(entry.weighted_members, parts, strict=True):
        shares = entry.map_probabilities(part[member.labels].to_numpy(np.float64), member.labels)
        own.append(part[["file", "cell", "label"]].assign(**dict(zip(entry.labels, shares.T, strict=True))))
    return mixed(own, entry.labels, np.array([share for _, share in entry.weighted_members]))


def classify(
    entries: Sequence[Entry],
    benchmark: BenchmarkSet,
    pictures: Sequence[Picture],
    runtime: Runtime,
    failed: dict[str, str],
) -> dict[str, pd.DataFrame]:
    """Prediction tables of single models on a benchmark, in their own labels, by id; `failed` takes what went wrong."""
    places = {entry.id: _place(entry, benchmark) for entry in entries}
    done = {entry.id: _read(places[entry.id], pictures) for entry in entries}
    left = {entry.id: entry for entry in entries if len(done[entry.id]) < len(pictures)}
    first = min((len(done[name]) for name in left), default=len(pictures))
    total = sum(len(pictures) - len(done[name]) for name in left)
    with ThreadPoolExecutor(READER_THREADS) as pool, tqdm(total=total, desc=benchmark.name, unit="image") as bar:
        for start in range(first - first % PIECE, len(pictures), PIECE):
            piece = pictures[start : start + PIECE]
            images = list(pool.map(_decoded, piece))
            for name, entry in list(left.items()):
                fresh = [n for n in range(len(piece)) if start + n >= len(done[name])]
                if not fresh:
                    continue
                try:
                    done[name] = _answer(entry, runtime, [(piece[n], images[n]) for n in fresh], done[name])
                except EntryError as error:
                    failed[name] = str(error)
                    del left[name]
                    continue
                _keep(places[name], done[name])
                bar.update(len(fresh))
    return {name: table for name, table in done.items() if len(table) == len(pictures)}


def add(entry: Entry, benchmark: BenchmarkSet, table: pd.DataFrame, device: str) -> bool:
    """Write predictions and their scores into an entry; the record last, so that there is never one without the other.

    Returns False where the card could not be renewed. Raises OSError where the entry's folder cannot be written.
    """
    definition = benchmark.definition
    told = {
        "title": definition.title,
        "role": "test",
        "data": benchmark.credit,
        "split_hash": benchmark.hash,
        "version": definition.version,
        "leaky": False,
        "leak_share": 0.0,
        "notes": [definition.note] if definition.note else [],
        "seed": 0,
        "device": device,
    }
    mapped = {label: name for label, name in benchmark.mapping(entry.labels).items() if label != name}
    left_out = sorted(set(entry.labels) - set(benchmark.mapping(entry.labels)))
    if mapped:
        told["notes"].append("; ".join(f"{label} counts as {name}" for label, name in mapped.items()) + ".")
    if left_out:
        told["notes"].append(f"Asked among this benchmark's classes only; left out: {', '.join(left_out)}.")
    stored = as_stored(table, benchmark.labels)
    update_benchmark(entry.folder, benchmark.name, ScoredBenchmark(record(stored, scaling_of(entry), told), table))
    return renew_card(entry.folder)


def rescore(entry: Entry) -> bool:
    """Compute all of an entry's figures again from its stored predictions; False where its card could not be renewed.

    Raises EntryError if predictions are damaged.
    """
    scaling = scaling_of(entry)
    figures = {}
    for name, benchmark in entry.evaluation.benchmarks.items():
        table = read_predictions(entry, name)
        report = scoring.score(table, benchmark.labels, scaling)
        figures[name] = metrics.as_dict(scoring.intervals(report))
    update_metrics(entry.folder, figures)
    return renew_card(entry.folder)


def headline(entry: Entry, name: str) -> str:
    """A benchmark's result in a line."""
    found = entry.evaluation.benchmarks[name].metrics
    known = published().get(name)
    statistic = known.main_statistic if known and known.main_statistic in found else "balanced_accuracy"
    shown = found[statistic]
    title = statistic.replace("_", " ")
    return f"{name}: {title} {100 * shown.value:.1f} % ({100 * shown.low:.1f} to {100 * shown.high:.1f})"


def _answer(
    entry: Entry, runtime: Runtime, pieces: Sequence[tuple[Picture, Image.Image]], before: pd.DataFrame
) -> pd.DataFrame:
    """`before` and the entry's answers to further pictures, in half precision as they are stored."""
    results = classify_files(runtime, entry, ((row[0], Held(image)) for row, image in pieces))
    found = pd.DataFrame([result.prediction.probabilities for result in results if result.prediction])
    found = found.astype(np.float16).astype(np.float32)
    for place, column in enumerate(("file", "cell", "label")):
        found.insert(place, column, [row[place] for row, _ in pieces])
    return pd.concat([before, found], ignore_index=True) if len(before) else found


def _decoded(picture: Picture) -> Image.Image:
    try:
        return picture[3].image()
    except ImageError as error:
        raise DataError(f"{picture[0]} cannot be read: {error} The benchmark needs all of its pictures.") from error


def _place(entry: Entry, benchmark: BenchmarkSet) -> Path:
    """Where unfinished answers are kept: other weights, another way of looking or another benchmark are elsewhere."""
    files = [entry.folder / name for name in (WEIGHTS, HEAD, CONFIG) if (entry.folder / name).exists()]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    digest.update(str(CROP_VERSION).encode())
    digest.update(benchmark.hash.encode())
    return cache_folder() / "evaluations" / f"{digest.hexdigest()[:24]}.parquet"


def _read(place: Path, pictures: Sequence[Picture]) -> pd.DataFrame:
    """What was answered before; nothing where it belongs to other pictures or cannot be read."""
    try:
        table = pq.read_table(place).to_pandas()
    except (OSError, pa.ArrowException, ValueError):
        return pd.DataFrame()
    return table if table["file"].tolist() == [row[0] for row in pictures[: len(table)]] else pd.DataFrame()


def _keep(place: Path, table: pd.DataFrame) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(place) as temporary:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary)


def put_speed(entry: Entry, runtime: Runtime, pictures: Sequence[Picture]) -> float:
    """Measure how many images a second an entry classifies, keep it in its evaluation, and return it.

    The best of three passes over a few batches of decoded pictures, after one pass that loads and warms up. The
    pictures should be such as it knows: unclear answers are computed twice. Raises DataError if one cannot be read.
    """
    chosen = [pictures[n] for n in np.linspace(0, len(pictures) - 1, SPEED_IMAGES).astype(int)]
    files = [(str(n), Held(_decoded(picture))) for n, picture in enumerate(chosen)]
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        list(classify_files(runtime, entry, files))
        seconds.append(time.perf_counter() - start)
    rate = SPEED_IMAGES / min(seconds[1:])
    speed = {"images_per_second": round(rate, 1), "device": device_name(runtime.device)}
    update_section(entry.folder, "speed", speed)
    return rate
