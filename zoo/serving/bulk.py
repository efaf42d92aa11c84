"""Classification of hundreds of thousands of files, at constant memory and resumable, here or on a cluster.

Records are written to FILE.part line by line, and FILE appears when all are there: an interrupted run is resumed after
its last complete line. `classify_paths` computes the records on one machine as on many.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from zoo.entry import WEIGHTS, Entry, EntryError
from zoo.files import atomic_path
from zoo.imaging.decode import page_name, split_page
from zoo.scores.sample.samples import Sample
from zoo.serving.batch import FileResult, classify_files
from zoo.serving.results import Explanation
from zoo.tables import guarded

if TYPE_CHECKING:
    from zoo.detection.detector import Detector
    from zoo.serving.runtime import Runtime

SUFFIXES = (".jsonl", ".csv")
SIDES = ("left", "top", "right", "bottom")  # of a cell's box
MORE = ("warning", "notes", "page", "cell", *SIDES, "decision", "reasons")  # last columns of a table
ANSWER = (
    "label",
    "confidence",
    "confidence_elsewhere",
    "probabilities",
    "network",
    "distance",
    "familiarity",
    "decision",
)
FLUSH_RECORDS = 256  # after which the file is flushed
CLUSTER_BATCH = 512  # files of one task on a cluster


class BulkError(ValueError):
    """A file of results that cannot be written or resumed; the message is a sentence for the user."""


@dataclass(frozen=True)
class ResumeState:
    """State of an interrupted run: the names that are done, how many of them failed, and if its end was damaged."""

    done: frozenset[str]
    failed: int
    damaged: bool = False


def as_record(result: FileResult) -> dict[str, Any]:
    """Convert a result to one JSON object: file and error, or file, label, confidence, probabilities and more."""
    file, page = split_page(result.file)
    place = {"file": file, "page": page, "cell": result.cell, "cells": result.cells, "box": result.box}
    if result.error is not None:
        return {"file": file, "page": page, "error": result.error}
    prediction = result.prediction
    if prediction is None:
        return {**place, **dict.fromkeys(ANSWER), "warning": result.nothing, "notes": list(result.notes)}
    return {
        **place,
        "label": prediction.label,
        "confidence": prediction.confidence,
        "confidence_elsewhere": prediction.unseen_confidence,
        "sample": prediction.sample,
        "probabilities": prediction.probabilities,
        "network": prediction.network,
        "distance": prediction.distance,
        "familiarity": prediction.familiarity,
        "warning": prediction.warning,
        "decision": prediction.acceptance.decision,
        "reasons": list(prediction.acceptance.reasons),
        "notes": list(result.notes),
        "backend": prediction.backend,
    }


def as_explanation_record(
    file: str, notes: Sequence[str], explanation: Explanation, overlay: str, values: str
) -> dict[str, Any]:
    """Convert an explanation to one JSON object; `overlay` and `values` are its picture and its map, or their paths."""
    answer = explanation.prediction
    return {
        "file": file,
        "label": explanation.label,
        "notes": list(notes),
        "warning": answer.warning,
        "answer": answer.label,
        "network_answer": answer.network_label,
        "sample": answer.sample,
        "backend": answer.backend,
        "map": values,
        "overlay": overlay,
        "method": explanation.method,
    }


def classify_paths(
    runtime: Runtime,
    entry: Entry,
    names: Iterable[str],
    sample: Sample | None = None,
    detector: Detector | None = None,
) -> Iterator[dict[str, Any]]:
    """Classify files, or the white cells in them, and yield the records; see `classify_files`."""
    files = ((name, Path(name)) for name in names)
    for result in classify_files(runtime, entry, files, sample=sample, detector=detector):
        yield as_record(result)


def name_of(record: dict[str, Any]) -> str:
    """The file of a record, with its page where it has several."""
    page = record.get("page")
    return page_name(record["file"], page) if page else str(record["file"])


def is_last(record: dict[str, Any]) -> bool:
    """Whether a record is the last one of its file."""
    return (record.get("cell") or 1) >= record.get("cells", 1)


def csv_header(labels: Sequence[str]) -> list[str]:
    """List the columns of a table of results with these labels."""
    return [
        "file",
        "label",
        "confidence",
        "confidence_elsewhere",
        *map(guarded, labels),
        "familiarity",
        "error",
        "sample",
        *MORE,
    ]


def csv_row(record: dict[str, Any], labels: Sequence[str]) -> list[Any]:
    """Convert a record to a row of that table, safe to open in a spreadsheet.

    A picture without a recognisable cell has a warning and no class.
    """
    empty = ["", "", "", *("" for _ in labels)]
    file, sample = guarded(record["file"]), guarded(record.get("sample") or "")
    box = record.get("box") or ("",) * len(SIDES)
    place = [guarded("; ".join(record.get("notes", ()))), record.get("page") or "", record.get("cell") or "", *box]
    # absent in records of older versions
    place += [record.get("decision") or "", guarded("; ".join(record.get("reasons", ())))]
    if "error" in record:
        return [file, *empty, "", guarded(record["error"]), "", "", *place]
    if warning := record.get("warning"):
        return [file, *empty, record["familiarity"] or "", "", sample, warning, *place]
    probabilities = [f"{record['probabilities'][label]:.6f}" for label in labels]
    confidence = record.get("confidence_elsewhere")  # absent in records of older versions
    unseen = "" if confidence is None else f"{confidence:.6f}"
    first = [file, guarded(record["label"]), f"{record['confidence']:.6f}", unseen]
    return [*first, *probabilities, record["familiarity"] or "", "", sample, "", *place]


def partial_path(out: Path) -> Path:
    """Path of the file in which records are collected until all are there."""
    return out.with_name(out.name + ".part")


def prepare_output(
    out: Path, entry: Entry, resume: bool, sample: Sample | None = None, detector: Entry | None = None
) -> ResumeState:
    """Prepare to write `out`, removing a line that an interrupted run did not complete.

    Args:
        out: file of results, .jsonl or .csv.
        entry: which model is used.
        resume: whether to continue an interrupted run.
        sample: what the pictures are of; None for the entry's usual sample.
        detector: entry of the detector that finds the cells of fields.

    Raises:
        BulkError: `out` cannot be written or exists already, there is nothing to resume, or the interrupted run used
            another model or sample.
    """
    part, expected = partial_path(out), _stamp(entry, sample or entry.default_sample, detector)
    if out.suffix not in SUFFIXES:
        raise BulkError(f"{out.name} should end in {' or '.join(SUFFIXES)}.")
    if out.exists():
        raise BulkError(f"{out} exists already. Choose another --out, or remove it.")
    if not resume:
        if part.exists():
            raise BulkError(f"{part} belongs to an interrupted run. Continue it with --resume, or remove the file.")
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(expected) + "\n", encoding="utf-8")
        return ResumeState(frozenset(), 0)
    if not part.exists():
        raise BulkError(f"There is no run to resume: {part} does not exist. Leave out --resume.")
    done, failed, damaged = set(), 0, False
    with part.open("rb") as file:
        stamp = file.readline()
        if _opened(stamp) != expected:
            raise BulkError(
                f"{part} belongs to another model, another version of it or another sample. Remove it to start again."
            )
        whole = seen = file.tell()
        for line in file:
            record = _opened(line)
            if record is None or not _is_answer(record, entry.labels):
                # a line without its end was being written when the run was interrupted; any other was changed later
                damaged = line.endswith(b"\n")
                break
            seen += len(line)
            if is_last(record):  # a file of which some cells are missing is done again
                done.add(name_of(record))
                failed += "error" in record
                whole = seen
    os.truncate(part, whole)
    return ResumeState(frozenset(done), failed, damaged)


@contextlib.contextmanager
def open_partial(out: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Open the partial file of `out`; gives a function that appends a record. What was appended is never lost."""
    with partial_path(out).open("a", encoding="utf-8") as file:
        count = 0

        def add(record: dict[str, Any]) -> None:
            nonlocal count
            text = json.dumps(record, ensure_ascii=False)
            file.write(f"{text}\t{_seal(text)}\n")
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
            made.write(line.rstrip("\n").split("\t")[0] + "\n")
        return
    writer = csv.writer(made)
    writer.writerow(csv_header(labels))
    for line in lines:
        writer.writerow(csv_row(json.loads(line.split("\t")[0]), labels))


def _seal(text: str) -> str:
    """Digest that stands behind a record in the partial file, after a tab, which JSON writes as an escape."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_answer(record: dict[str, Any], labels: Sequence[str]) -> bool:
    """Whether a record has what a table needs."""
    if not isinstance(record.get("file"), str):
        return False
    if isinstance(record.get("error"), str):
        return True
    if record.get("label") is None:
        return isinstance(record.get("warning"), str)
    shares = record.get("probabilities")
    numbers = (
        [record.get("confidence"), *(shares.get(label) for label in labels)] if isinstance(shares, dict) else [None]
    )
    known = (
        isinstance(record.get("label"), str) and "familiarity" in record and isinstance(record.get("notes", []), list)
    )
    return known and all(isinstance(number, int | float) for number in numbers)


def _opened(line: bytes) -> dict[str, Any] | None:
    """The record of a line of the partial file; None if it is torn or was changed. Older versions wrote no digest."""
    try:
        text, tab, seal = line.decode().partition("\t")
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    sound = line.endswith(b"\n") and isinstance(record, dict) and (not tab or seal == f"{_seal(text)}\n")
    return record if sound else None


def _stamp(entry: Entry, sample: Sample, detector: Entry | None) -> dict[str, Any]:
    """The models, their versions and the sample, as they are written into the partial file."""
    used = [*(entry.members or (entry,)), *([detector] if detector else [])]
    try:
        sizes = [(member.id, (member.folder / WEIGHTS).stat().st_mtime_ns) for member in used]
    except OSError as error:
        raise EntryError(f"{entry.id} cannot be used: {error.strerror}.") from error
    views = [member.views for member in entry.members or (entry,)]
    prior = [sample.name, *entry.prior_of(sample).tolist()]
    return {"model": entry.id, "weights": [list(pair) for pair in sizes], "views": views, "prior": prior}


def classify_on_cluster(
    entry: Entry,
    names: Sequence[str],
    workers: int,
    address: str | None,
    precision: str | None,
    sample: Sample | None = None,
    backend: str | None = None,
    detector: Entry | None = None,
) -> Iterator[dict[str, Any]]:
    """Classify files on a Ray cluster.

    Every machine of the cluster must see the files and the zoo under the same paths.

    Args:
        entry: which model to use.
        names: paths of the files.
        workers: number of processes.
        address: of the cluster; None to start one here.
        precision: as for `Runtime`.
        sample: what the pictures are of; None for the entry's usual sample.
        backend: as for `Runtime`.
        detector: entry of the detector that finds the cells of fields.

    Yields:
        Records, those of a file one after the other.

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
            fn_constructor_args=(entry, precision, sample, backend, detector),
            num_cpus=1,
        )
        for row in answers.iter_rows():
            yield json.loads(row["record"])
    finally:
        ray.shutdown()


class _Classifier:
    """One process of the cluster, with its own model."""

    def __init__(
        self, entry: Entry, precision: str | None, sample: Sample | None, backend: str | None, detector: Entry | None
    ) -> None:
        from zoo.detection.detector import Detector  # noqa: PLC0415 (both import torch, which the records do not need)
        from zoo.serving.runtime import Runtime  # noqa: PLC0415

        self.entry, self.runtime, self.sample = entry, Runtime("auto", precision, backend=backend), sample
        self.detector = Detector(detector, backend) if detector else None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Convert names to records, as JSON because the fields of failed files differ."""
        records = classify_paths(self.runtime, self.entry, map(str, batch["file"]), self.sample, self.detector)
        return {"record": [json.dumps(record, ensure_ascii=False) for record in records]}
