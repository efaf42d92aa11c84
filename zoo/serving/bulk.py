"""Classification of hundreds of thousands of files, at constant memory and resumable, here or on a cluster.

Records are written to FILE.part line by line, and FILE appears when all are there: an interrupted run is resumed after
its last complete line. `classify_paths` computes the records on one machine as on many.
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
FLUSH_RECORDS = 256  # after which the file is flushed
CLUSTER_BATCH = 512  # files of one task on a cluster


class BulkError(ValueError):
    """A file of results that cannot be written or resumed; the message is a sentence for the user."""


@dataclass(frozen=True)
class ResumeState:
    """State of an interrupted run: the names that are done, and how many of them failed."""

    done: frozenset[str]
    failed: int


def as_record(result: FileResult) -> dict[str, Any]:
    """Convert a result to one JSON object: file and error, or file, label, confidence, probabilities and more."""
    if result.prediction is None:
        return {"file": result.file, "error": result.error}
    prediction = result.prediction
    return {
        "file": result.file,
        "label": prediction.label,
        "confidence": prediction.confidence,
        "confidence_elsewhere": prediction.unseen_confidence,
        "probabilities": prediction.probabilities,
        "distance": prediction.distance,
        "familiarity": prediction.familiarity,
    }


def classify_paths(runtime: Runtime, entry: Entry, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Classify the files called `names`; yields their records, in order."""
    for result in classify_files(runtime, entry, ((name, Path(name)) for name in names)):
        yield as_record(result)


def csv_header(labels: Sequence[str]) -> list[str]:
    """List the columns of a table of results with these labels."""
    return ["file", "label", "confidence", "confidence_elsewhere", *labels, "familiarity", "error"]


def csv_row(record: dict[str, Any], labels: Sequence[str]) -> list[Any]:
    """Convert a record to a row of that table."""
    if "error" in record:
        return [record["file"], "", "", "", *("" for _ in labels), "", record["error"]]
    probabilities = [f"{record['probabilities'][label]:.6f}" for label in labels]
    confidence = record.get("confidence_elsewhere")  # absent in records of older versions
    unseen = "" if confidence is None else f"{confidence:.6f}"
    first = [record["file"], record["label"], f"{record['confidence']:.6f}", unseen]
    return [*first, *probabilities, record["familiarity"] or "", ""]


def partial_path(out: Path) -> Path:
    """Path of the file in which records are collected until all are there."""
    return out.with_name(out.name + ".part")


def prepare_output(out: Path, entry: Entry, resume: bool) -> ResumeState:
    """Prepare to write `out`, removing a line that an interrupted run did not complete.

    Args:
        out: file of results, .jsonl or .csv.
        entry: which model is used.
        resume: whether to continue an interrupted run.

    Raises:
        BulkError: `out` cannot be written or exists already, there is nothing to resume, or the interrupted run used
            another model.
    """
    part = partial_path(out)
    if out.suffix not in SUFFIXES:
        raise BulkError(f"{out.name} should end in {' or '.join(SUFFIXES)}.")
    if out.exists():
        raise BulkError(f"{out} exists already. Choose another --out, or remove it.")
    if not resume:
        if part.exists():
            raise BulkError(f"{part} belongs to an interrupted run. Continue it with --resume, or remove the file.")
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(_stamp(entry)) + "\n", encoding="utf-8")
        return ResumeState(frozenset(), 0)
    if not part.exists():
        raise BulkError(f"There is no run to resume: {part} does not exist. Leave out --resume.")
    done, failed, whole = set(), 0, 0
    with part.open("rb") as file:
        stamp = file.readline()
        if not stamp.endswith(b"\n") or json.loads(stamp) != _stamp(entry):
            raise BulkError(f"{part} belongs to another model, or another version of it. Remove it to start again.")
        whole = file.tell()
        for line in file:
            if not line.endswith(b"\n"):
                break  # the run was interrupted while it wrote this line
            record = json.loads(line)
            done.add(record["file"])
            failed += "error" in record
            whole += len(line)
    os.truncate(part, whole)
    return ResumeState(frozenset(done), failed)


@contextlib.contextmanager
def open_partial(out: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Open the partial file of `out`; gives a function that appends a record. What was appended is never lost."""
    with partial_path(out).open("a", encoding="utf-8") as file:
        count = 0

        def add(record: dict[str, Any]) -> None:
            nonlocal count
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
            if count % FLUSH_RECORDS == 0:
                file.flush()

        yield add


def finish_output(out: Path, labels: Sequence[str]) -> None:
    """Convert the partial file to `out`, completely or not at all, one record at a time."""
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
    """The model and its version, as they are written into the partial file."""
    try:
        sizes = [(member.id, (member.folder / WEIGHTS).stat().st_mtime_ns) for member in entry.members or (entry,)]
    except OSError as error:
        raise EntryError(f"{entry.id} cannot be used: {error.strerror}.") from error
    views = [member.views for member in entry.members or (entry,)]
    return {"model": entry.id, "weights": [list(pair) for pair in sizes], "views": views}


def classify_on_cluster(
    entry: Entry, names: Sequence[str], workers: int, address: str | None, precision: str | None
) -> Iterator[dict[str, Any]]:
    """Classify files on a Ray cluster.

    Every machine of the cluster must see the files and the zoo under the same paths.

    Args:
        entry: which model to use.
        names: paths of the files.
        workers: number of processes.
        address: of the cluster; None to start one here.
        precision: as for `Runtime`.

    Yields:
        Records, in any order.

    Raises:
        BulkError: Ray is not installed.
    """
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise BulkError(
            "Ray is not installed: pip install 'hemazoo[ray]', or -r requirements-ray.txt in a checkout"
        ) from error

    ray.init(address=address, num_cpus=None if address else workers, include_dashboard=False, log_to_driver=False)
    try:
        tasks = ray.data.from_items(
            [{"file": name} for name in names], override_num_blocks=-(-len(names) // CLUSTER_BATCH)
        )
        answers = tasks.map_batches(
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
    """One process of the cluster, with its own model."""

    def __init__(self, entry: Entry, precision: str | None) -> None:
        self.entry, self.runtime = entry, Runtime("auto", precision)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Convert names to records, as JSON because the fields of failed files differ."""
        records = classify_paths(self.runtime, self.entry, map(str, batch["file"]))
        return {"record": [json.dumps(record, ensure_ascii=False) for record in records]}
