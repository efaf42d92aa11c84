"""How are a hundred thousand files classified? At constant memory, whole or gone on with, here or over a cluster.

Records go into FILE.part, line by line, and FILE appears when all are there: a run that was cut off goes on behind its
last whole line. Who computes them does not matter; `classify_part` is the same for one machine and for many.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from zoo.entry import WEIGHTS, Entry, EntryError
from zoo.files import atomic_path
from zoo.serving.batch import FileResult, classify_files
from zoo.serving.runtime import Runtime

SUFFIXES = (".jsonl", ".csv")
FLUSH = 256  # records after which what was written is handed to the system
CLUSTER_BATCH = 512  # files of a task of the cluster


class BulkError(ValueError):
    """A file of results that cannot be written or gone on with; the message is a sentence for the user."""


@dataclass(frozen=True)
class ResumeState:
    """What an earlier run left: names that are done, and how many of them failed."""

    done: frozenset[str]
    failed: int


def as_record(result: FileResult) -> dict[str, Any]:
    """A result as one JSON object: file, and label, confidence, probabilities and what else is known; or error."""
    if result.prediction is None:
        return {"file": result.file, "error": result.error}
    found = result.prediction
    return {
        "file": result.file,
        "label": found.label,
        "confidence": found.confidence,
        "confidence_elsewhere": found.unseen_confidence,
        "probabilities": found.probabilities,
        "distance": found.distance,
        "familiarity": found.familiarity,
    }


def classify_paths(runtime: Runtime, entry: Entry, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Records of the files called `names`, in order."""
    for result in classify_files(runtime, entry, ((name, Path(name)) for name in names)):
        yield as_record(result)


def csv_header(row: Sequence[str]) -> list[str]:
    """Columns of a table of results with these labels."""
    return ["file", "label", "confidence", "confidence_elsewhere", *row, "familiarity", "error"]


def csv_row(found: dict[str, Any], labels: Sequence[str]) -> list[Any]:
    """A record as a row of that table."""
    if "error" in found:
        return [found["file"], "", "", "", *("" for _ in labels), "", found["error"]]
    shares = [f"{found['probabilities'][label]:.6f}" for label in labels]
    sure = found.get("confidence_elsewhere")  # what an older version wrote has none
    elsewhere = "" if sure is None else f"{sure:.6f}"
    first = [found["file"], found["label"], f"{found['confidence']:.6f}", elsewhere]
    return [*first, *shares, found["familiarity"] or "", ""]


def partial_path(out: Path) -> Path:
    """Where records are kept until all are there."""
    return out.with_name(out.name + ".part")


def prepare_output(out: Path, entry: Entry, resume: bool) -> ResumeState:
    """Make ready to write `out`, cutting off a line that an earlier run did not finish.

    Raises BulkError if `out` cannot be written, is there already, or an earlier run used another model.
    """
    part = partial_path(out)
    if out.suffix not in SUFFIXES:
        raise BulkError(f"{out.name} should end in {' or '.join(SUFFIXES)}.")
    if out.exists():
        raise BulkError(f"{out} is already there. Choose another --out, or remove it.")
    if not resume:
        if part.exists():
            raise BulkError(f"{part} is of a run that was cut off. Go on with --resume, or remove it.")
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(_stamp(entry)) + "\n", encoding="utf-8")
        return ResumeState(frozenset(), 0)
    if not part.exists():
        raise BulkError(f"There is nothing to go on with: {part} is not there. Leave out --resume.")
    done, failed, whole = set(), 0, 0
    with part.open("rb") as file:
        stamp = file.readline()
        if not stamp.endswith(b"\n") or json.loads(stamp) != _stamp(entry):
            raise BulkError(f"{part} was begun with another model, or another version of it. Remove it to begin anew.")
        whole = file.tell()
        for line in file:
            if not line.endswith(b"\n"):
                break  # the run was cut off in the middle of it
            found = json.loads(line)
            done.add(found["file"])
            failed += "error" in found
            whole += len(line)
    os.truncate(part, whole)
    return ResumeState(frozenset(done), failed)


@contextlib.contextmanager
def open_partial(out: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that adds a record to the part of `out`; what was added stays, whatever happens."""
    with partial_path(out).open("a", encoding="utf-8") as file:
        count = 0

        def add(found: dict[str, Any]) -> None:
            nonlocal count
            file.write(json.dumps(found, ensure_ascii=False) + "\n")
            count += 1
            if count % FLUSH == 0:
                file.flush()

        yield add


def finish_output(out: Path, labels: Sequence[str]) -> None:
    """Make `out` of its part, whole or not at all, a record at a time."""
    part = partial_path(out)
    with part.open(encoding="utf-8") as file, atomic_path(out) as temporary:
        file.readline()
        with temporary.open("w", newline="", encoding="utf-8") as made:
            _convert(file, made, out.suffix, labels)
    part.unlink()


def _convert(lines: IO[str], made: IO[str], suffix: str, labels: Sequence[str]) -> None:
    if suffix == ".jsonl":
        for line in lines:
            made.write(line)
        return
    writer = csv.writer(made)
    writer.writerow(csv_header(labels))
    for line in lines:
        writer.writerow(csv_row(json.loads(line), labels))


def _stamp(entry: Entry) -> dict[str, Any]:
    """What tells one version of a model from another."""
    try:
        sizes = [(member.id, (member.folder / WEIGHTS).stat().st_mtime_ns) for member in entry.members or (entry,)]
    except OSError as error:
        raise EntryError(f"{entry.id} cannot be used: {error.strerror}.") from error
    views = [member.views for member in entry.members or (entry,)]
    return {"model": entry.id, "weights": [list(pair) for pair in sizes], "views": views}


def classify_on_cluster(
    entry: Entry, names: Sequence[str], workers: int, address: str | None, precision: str
) -> Iterator[dict[str, Any]]:
    """Records of files, computed by `workers` processes of a Ray cluster (a new one here where no address is given).

    Every machine of the cluster must see the files and the zoo under the same paths. They come in any order. Raises
    BulkError if Ray is not installed.
    """
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise BulkError(
            "Ray is not installed: pip install 'hemazoo[ray]', or -r requirements-ray.txt in a checkout"
        ) from error

    ray.init(address=address, num_cpus=None if address else workers, include_dashboard=False, log_to_driver=False)
    try:
        asked = ray.data.from_items(
            [{"file": name} for name in names], override_num_blocks=-(-len(names) // CLUSTER_BATCH)
        )
        answers = asked.map_batches(
            _Classifier,
            batch_size=CLUSTER_BATCH,
            compute=ray.data.ActorPoolStrategy(size=workers),
            fn_constructor_args=(entry, precision),
            num_cpus=1,
        )
        for row in answers.iter_rows():
            yield json.loads(row["record"])
    finally:
        ray.shutdown()


class _Classifier:
    """A process of the cluster with its own model."""

    def __init__(self, entry: Entry, precision: str) -> None:
        self.entry, self.runtime = entry, Runtime("auto", precision)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Names → records, as JSON: their columns differ where a file fails."""
        found = classify_paths(self.runtime, self.entry, map(str, batch["file"]))
        return {"record": [json.dumps(one, ensure_ascii=False) for one in found]}
