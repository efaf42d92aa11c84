"""Evaluation of entries on benchmarks.

Every picture is classified once; the predictions and their scores are stored in the entry. Unfinished predictions are
cached after each chunk of pictures, so that an interrupted evaluation can be resumed. Several entries share the
decoding (and corruption) of the pictures.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from training.prepare.dataset import TrainingDataError
from training.publish.card import renew_card
from training.publish.ensemble import average_tables
from training.publish.records import benchmark_record
from zoo.benchmarks import BenchmarkSet, Definition, get_benchmark, published, scoring
from zoo.benchmarks.asking import Answers, ask, scores_by_sample
from zoo.benchmarks.eligibility import refusal
from zoo.cache import cache_folder
from zoo.data import AS_FOUND, DataError, ReadOptions, Source, read_dataset
from zoo.data.kinds import kind_of, name_labels, rename
from zoo.data.registry import DataSetInfo, laboratory_of
from zoo.entry import (
    CONFIG,
    HEAD,
    WEIGHTS,
    Entry,
    EntryError,
    as_stored,
    load_entry,
    read_network_predictions,
    read_predictions,
)
from zoo.entry.write import ScoredBenchmark, update_benchmark, update_metrics, update_section
from zoo.files import atomic_path
from zoo.imaging.decode import PictureError
from zoo.imaging.localise import CROP_VERSION
from zoo.progress import progress_bar
from zoo.scores import metrics
from zoo.scores.calibration import scaling_of, scaling_on
from zoo.scores.sample.samples import Sample
from zoo.serving.batch import READER_THREADS, classify_files
from zoo.serving.devices import device_name
from zoo.serving.runtime import Runtime
from zoo.systems import stored_one_hot_scores

SPEED_IMAGES = 128
SPEED_PASSES = 3
CHUNK_SIZE = 256  # pictures decoded and kept in memory at a time
MAX_TITLE, MAX_BENCHMARK_TITLE = 80, 120  # characters

Log = Callable[[str], None]
Picture = tuple[str, str, str, Source]  # file, cell, label, where it is read


@dataclass(frozen=True)
class DecodedPicture:
    """A decoded picture in memory, in the form of a source."""

    picture: Image.Image

    def content(self) -> bytes:
        """Raw pixels, which identify the picture in caches."""
        return self.picture.tobytes()

    def image(self) -> Image.Image:
        """The picture."""
        return self.picture


def own_benchmark(
    folder: Path,
    name: str,
    entries: Sequence[Entry],
    sample: Sample | None = None,
    reading: ReadOptions = AS_FOUND,
) -> tuple[BenchmarkSet, list[Picture]]:
    """Read a folder of labelled pictures as a benchmark.

    Args:
        folder: One folder a class, or any other layout that we can read.
        name: Name of the benchmark.
        entries: The models to score. They must know the folder's labels, or other names of the same kinds.
        sample: What the pictures are a sample of; None asks among the folder's classes only.
        reading: How the folder is read.

    Returns:
        The benchmark and its pictures.

    Raises:
        DataError: There are no labelled pictures, unknown labels, or fewer than two labels.
    """
    given = read_dataset(folder, reading)
    data = rename(given, name_labels(given.labels, reading.labels))
    names = [name for entry in entries for name in entry.labels]
    known = {label: name for name in names for label in (name.lower(), kind_of(name)) if label}
    labelled = [(item, item.label) for item in data.items if item.label is not None]
    unknown = Counter(label for _, label in labelled if label.lower() not in known)
    if not labelled:
        raise TrainingDataError(f"{folder} has no labelled pictures: make one folder a class.")
    if unknown:
        raise TrainingDataError(
            f"{folder} has classes that the models do not know: {_counted(unknown)}. They know "
            f"{', '.join(dict.fromkeys(known.values()))}. Rename classes, or leave them out, with --labels."
        )
    rows = pd.DataFrame(
        [(item.file, item.group or item.cell or item.file, known[label.lower()]) for item, label in labelled],
        columns=["file", "cell", "label"],
    )
    labels = sorted(set(rows["label"]))
    if len(labels) < 2:
        raise TrainingDataError(f"{folder} has pictures of {labels[0]} only: at least two classes are needed.")
    data_set = DataSetInfo(
        name="own",
        title=data.name[:MAX_TITLE],
        laboratory=laboratory_of(data.name),
        place=".",
        licence="",
        citation=data.name,
        role="test",
    )
    definition = Definition(version=1, title=data.name[:MAX_BENCHMARK_TITLE], data=data_set.name, labels=labels)
    columns = zip(rows["file"], rows["cell"], rows["label"], labelled, strict=True)
    pictures = [(file, cell, label, item.source) for file, cell, label, (item, _) in columns]
    return BenchmarkSet(name, definition, rows, data_set, sample), pictures


def _counted(labels: Counter[str]) -> str:
    return ", ".join(f"{label} ({count:,})" for label, count in sorted(labels.items()))


def evaluate(
    entries: Sequence[Entry],
    benchmark: BenchmarkSet,
    pictures: Sequence[Picture],
    runtime: Runtime,
    log: Log,
    chunk_size: int = CHUNK_SIZE,
) -> dict[str, str]:
    """Score entries on a benchmark and write predictions and scores into them.

    Ensembles are computed from the predictions of their members.

    Args:
        entries: The models to score.
        benchmark: The benchmark.
        pictures: Its pictures.
        runtime: Runs the models.
        log: Called with a line for each entry.
        chunk_size: Number of pictures after which unfinished predictions are cached.

    Returns:
        Entry id → reason, for the entries that could not be scored.

    Raises:
        DataError: A picture cannot be read. All are needed, because scores on fewer pictures are not comparable.
    """
    failed = {entry.id: reason for entry in entries if (reason := refusal(entry, benchmark))}
    scored = [entry for entry in entries if entry.id not in failed]
    networks = {network.id: network for entry in scored for network in entry.networks}
    tables = classify(list(networks.values()), benchmark, pictures, runtime, failed, chunk_size)
    for entry in scored:
        if any(member.id not in tables for member in entry.networks):
            failed.setdefault(entry.id, f"{entry.id} could not be scored because one of its members was not.")
            continue
        parts = [tables[member.id] for member in entry.networks]
        table = _ensemble_table(entry, parts) if entry.members else parts[0]
        try:
            card_renewed = add_to_entry(entry, benchmark, table, device_name(runtime.device_name))
        except OSError as error:
            failed[entry.id] = f"{entry.folder} cannot be written to: {error.strerror}."
            continue
        if not card_renewed:
            log(f"{entry.id}: the card keeps its old figures because its recipe has another version.")
        log(f"{entry.id}: {headline(load_entry(entry.folder), benchmark.name)}")
    return failed


def _ensemble_table(entry: Entry, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """An ensemble's predictions from those of its members with a weight, in the same order."""
    mapped = []
    for (member, _), part in zip(entry.weighted_members, parts, strict=True):
        probabilities = entry.map_probabilities(part[member.labels].to_numpy(np.float64), member.labels)
        columns = dict(zip(entry.labels, probabilities.T, strict=True))
        mapped.append(part[["file", "cell", "label"]].assign(**columns))
    weights = np.array([weight for _, weight in entry.weighted_members])
    return average_tables(mapped, entry.labels, weights, entry.config.zoo.member_mean)


def classify(
    entries: Sequence[Entry],
    benchmark: BenchmarkSet,
    pictures: Sequence[Picture],
    runtime: Runtime,
    failed: dict[str, str],
    chunk_size: int = CHUNK_SIZE,
) -> dict[str, pd.DataFrame]:
    """Classify a benchmark's pictures by single networks, resuming from cached predictions.

    Args:
        entries: Entries that are no ensembles.
        benchmark: The benchmark.
        pictures: Its pictures.
        runtime: Runs the networks.
        failed: Receives entry id → reason for the networks that failed.
        chunk_size: Number of pictures after which unfinished predictions are cached.

    Returns:
        Entry id → prediction table in the entry's own labels, for the networks that classified all pictures.

    Raises:
        DataError: A picture cannot be read.
    """
    caches = {entry.id: _cache_path(entry, benchmark) for entry in entries}
    tables = {entry.id: _read_cached(caches[entry.id], pictures) for entry in entries}
    unfinished = {entry.id: entry for entry in entries if len(tables[entry.id]) < len(pictures)}
    first = min((len(tables[name]) for name in unfinished), default=len(pictures))
    total = sum(len(pictures) - len(tables[name]) for name in unfinished)
    with (
        ThreadPoolExecutor(READER_THREADS) as pool,
        progress_bar(None, benchmark.name, total=total, unit="image") as bar,
    ):
        for start in range(first - first % chunk_size, len(pictures), chunk_size):
            chunk = pictures[start : start + chunk_size]
            images = list(pool.map(_decode, chunk))
            for name, entry in list(unfinished.items()):
                new = list(zip(chunk, images, strict=True))[max(0, len(tables[name]) - start) :]
                if not new:
                    continue
                try:
                    tables[name] = _extend(tables[name], entry, runtime, new)
                except EntryError as error:
                    failed[name] = str(error)
                    del unfinished[name]
                    continue
                _write_cache(caches[name], tables[name])
                bar.update(len(new))
    return {name: table for name, table in tables.items() if len(table) == len(pictures)}


def add_to_entry(entry: Entry, benchmark: BenchmarkSet, table: pd.DataFrame, device: str) -> bool:
    """Write predictions on a benchmark and their scores into an entry.

    Args:
        entry: The entry.
        benchmark: The benchmark.
        table: Prediction table with the network's own probabilities, one column a label of the entry.
        device: Name of the device that computed them.

    Returns:
        Whether the card could be renewed.

    Raises:
        OSError: The entry's folder cannot be written.
    """
    definition, network = benchmark.definition, as_stored(table, entry.labels)
    answers = ask(entry, benchmark, network, benchmark.sample)
    stored = as_stored(answers.table, answers.labels)
    differs = answers.labels != entry.labels or not np.array_equal(stored[answers.labels], network[entry.labels])
    description = {
        "title": definition.title,
        "role": "test",
        "data": benchmark.credit,
        "split_hash": benchmark.hash,
        "version": definition.version,
        "leaky": False,
        "leak_share": 0.0,
        "notes": _notes(entry, benchmark, answers),
        "seed": 0,
        "device": device,
        "sample": answers.sample,
        "samples": scores_by_sample(entry, benchmark, network),
        "network_labels": entry.labels if differs else None,
    }
    record = benchmark_record(stored, scaling_of(entry, benchmark.sample), description)
    scored = ScoredBenchmark(record, stored, network[entry.labels] if differs else None)
    update_benchmark(entry.folder, benchmark.name, scored)
    return renew_card(entry.folder)


def _notes(entry: Entry, benchmark: BenchmarkSet, answers: Answers) -> list[str]:
    """Notes on a benchmark's record: the benchmark's own, the sample, and which kinds are joined or left out."""
    mapping = benchmark.mapping(entry.labels)
    joined = [f"{label} counts as {name}" for label, name in mapping.items() if label != name]
    notes = [benchmark.definition.note] if benchmark.definition.note else []
    if joined:
        notes.append("; ".join(joined) + ".")
    dropped = sorted(set(entry.labels) - set(mapping))
    if benchmark.sample is not None:
        notes.append(f"Asked among all {len(answers.labels)} classes with the sample “{answers.sample}”.")
    elif dropped:
        notes.append(f"Probabilities are over this benchmark's classes only, without {', '.join(dropped)}.")
    return notes


def rescore(entry: Entry) -> bool:
    """Recompute all of an entry's scores from its stored predictions.

    Where the network's own probabilities are stored, a published benchmark's answers are made from them again, so that
    changed prior shares take effect.

    Args:
        entry: The entry; its weights are not needed.

    Returns:
        Whether the card could be renewed.

    Raises:
        EntryError: Predictions are damaged.
    """
    known = published()
    scores: dict[str, Mapping[str, Mapping[str, float]]] = {}
    one_hot: dict[str, Mapping[str, Mapping[str, float]]] = {}
    for name, benchmark in entry.evaluation.benchmarks.items():
        if benchmark.network_labels is not None and name in known and get_benchmark(name).hash == benchmark.split_hash:
            device = str((benchmark.model_extra or {}).get("device", ""))
            add_to_entry(entry, get_benchmark(name), read_network_predictions(entry, name), device)
            continue
        report = scoring.score(read_predictions(entry, name), benchmark.labels, scaling_on(entry, name))
        scores[name] = metrics.as_dict(scoring.intervals(report))
        if benchmark.one_hot:
            found = stored_one_hot_scores(entry, name)
            one_hot[name] = metrics.as_dict({key: score.interval for key, score in found.items()})
    update_metrics(entry.folder, scores, one_hot)
    return renew_card(entry.folder)


def headline(entry: Entry, name: str) -> str:
    """A benchmark's main score in one line."""
    scores = entry.evaluation.benchmarks[name].metrics
    definition = published().get(name)
    main = definition.main_statistic if definition and definition.main_statistic in scores else "balanced_accuracy"
    score = scores[main]
    interval = "" if score.low is None or score.high is None else f" ({100 * score.low:.1f} to {100 * score.high:.1f})"
    return f"{name}: {main.replace('_', ' ')} {100 * score.value:.1f} %{interval}"


def _extend(
    table: pd.DataFrame, entry: Entry, runtime: Runtime, new: Sequence[tuple[Picture, Image.Image]]
) -> pd.DataFrame:
    """Append an entry's predictions of further pictures, in half precision as they are stored."""
    results = classify_files(runtime, entry, ((picture[0], DecodedPicture(image)) for picture, image in new))
    added = pd.DataFrame([result.prediction.network for result in results if result.prediction])
    added = added.astype(np.float16).astype(np.float32)
    for place, column in enumerate(("file", "cell", "label")):
        added.insert(place, column, [picture[place] for picture, _ in new])
    return pd.concat([table, added], ignore_index=True) if len(table) else added


def _decode(picture: Picture) -> Image.Image:
    try:
        return picture[3].image()
    except PictureError as error:
        raise DataError(f"{picture[0]} cannot be read: {error} The benchmark needs all of its pictures.") from error


def _cache_path(entry: Entry, benchmark: BenchmarkSet) -> Path:
    """File of unfinished predictions; its name depends on weights, preprocessing and benchmark."""
    files = [entry.folder / name for name in (WEIGHTS, HEAD, CONFIG) if (entry.folder / name).exists()]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    digest.update(str(CROP_VERSION).encode())
    digest.update(benchmark.hash.encode())
    return cache_folder() / "evaluations" / f"{digest.hexdigest()[:24]}.parquet"


def _read_cached(path: Path, pictures: Sequence[Picture]) -> pd.DataFrame:
    """Unfinished predictions; empty if they belong to other pictures or cannot be read."""
    try:
        table = pq.read_table(path).to_pandas()
    except (OSError, pa.ArrowException, ValueError):
        return pd.DataFrame()
    same = table["file"].tolist() == [picture[0] for picture in pictures[: len(table)]]
    return table if same else pd.DataFrame()


def _write_cache(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary)


def measure_speed(entry: Entry, runtime: Runtime, pictures: Sequence[Picture]) -> float:
    """Measure how many images a second an entry classifies, and store it in its evaluation.

    The best of several passes over decoded pictures counts, after one pass that loads the model and warms up.

    Args:
        entry: The entry.
        runtime: Runs it.
        pictures: Pictures like those it was trained on, because images of low confidence are computed twice.

    Returns:
        Images a second.

    Raises:
        DataError: A picture cannot be read.
    """
    chosen = [pictures[n] for n in np.linspace(0, len(pictures) - 1, SPEED_IMAGES).astype(int)]
    files = [(str(n), DecodedPicture(_decode(picture))) for n, picture in enumerate(chosen)]
    seconds = []
    for _ in range(1 + SPEED_PASSES):
        start = time.perf_counter()
        list(classify_files(runtime, entry, files))
        seconds.append(time.perf_counter() - start)
    rate = SPEED_IMAGES / min(seconds[1:])
    speed = {"images_per_second": round(rate, 1), "device": device_name(runtime.device_name)}
    update_section(entry.folder, "speed", speed)
    return rate
