"""Classify the white cells of pictures, and of folders of pictures.

Prints one line per white cell of a field, and one for a picture of a single cell: file, class and probability, why the
answer is for review where it is not accepted, and what was assumed to read it. A picture without a recognisable cell
has a warning instead of a class. With --out, writes a file of any size instead and can be resumed after an
interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from zoo.adaptation import MAX_PICTURES
from zoo.cli._model import add_detector_argument, add_model_arguments, selected_detector, selected_model
from zoo.cli._records import print_record
from zoo.cli.common import FAILED, OK, USAGE, fail, print_message
from zoo.entry import Entry, EntryError
from zoo.files import atomic_path, only_writer, printable
from zoo.imaging.decode import PictureError, decode
from zoo.progress import progress_bar
from zoo.scores.counts import KindCount, count_kinds
from zoo.serving import bulk
from zoo.serving.batch import ALL_PAGES, find_files, find_pages
from zoo.serving.devices import device_name
from zoo.serving.requests import BATCH_SIZE
from zoo.sources.catalogue import NO_DETECTOR, usual_detector
from zoo.threads import usable_processors

if TYPE_CHECKING:
    from zoo.detection.detector import Detector

MAX_COUNT = 4096  # largest batch, and largest number of processes
LOCAL = "here"  # --ray without an address


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="pictures, or folders to search for them")
    add_model_arguments(parser)
    fields = parser.add_mutually_exclusive_group()
    fields.add_argument("--single", action="store_true", help="answer once a picture, without looking for cells in it")
    add_detector_argument(fields)
    parser.add_argument(
        "--statistics",
        action="store_true",
        help="first adapt the model's batch norm to these pictures, which should be from one laboratory and of all "
        "kinds of cells",
    )
    parser.add_argument(
        "--page",
        type=_page,
        metavar="N",
        help=f"of files with several pictures, read page or slice N, or {ALL_PAGES} (default: every page, but of a "
        "stack its sharpest slice)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line on stdout")
    parser.add_argument(
        "--counts",
        action="store_true",
        help="after the answers, print the share of each kind with its limits (with --json one more object)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a table")
    parser.add_argument("--batch-size", type=_count, default=BATCH_SIZE, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write a .jsonl or .csv file of any size; see also --resume"
    )
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run into --out")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="distribute the work over a Ray cluster (extra `ray`); without ADDRESS, over local processes",
    )
    parser.add_argument("--workers", type=_count, metavar="N", help="processes for --ray (default: one per core)")


def run(options: argparse.Namespace) -> int:
    """Classify the pictures; the status is 1 if any of them failed."""
    entry = selected_model(options)
    detector = _detector(options)
    if (options.resume or options.ray is not None) and options.out is None:
        return fail("--resume and --ray need --out: a file to write to.", USAGE)
    if options.counts and options.out:
        return fail("--counts cannot be combined with --out.", USAGE)
    files = list(find_pages(map(str, find_files(options.paths)), options.page))
    if not files:
        return fail("There is no picture in these folders.")
    if options.out and options.statistics:
        return fail(
            "--statistics cannot be combined with --out. Make an adapted entry first, with `python -m training adapt`, "
            "and classify with it.",
            USAGE,
        )
    if options.out:
        with only_writer(options.out):
            return _classify_into_file(options, entry, detector, files)
    with contextlib.ExitStack() as stack:
        if options.statistics:
            entry = _adapt_statistics(entry, files, Path(stack.enter_context(TemporaryDirectory())))
        return _classify_to_stdout(options, entry, detector, files)


def _detector(options: argparse.Namespace) -> Entry | None:
    """The detector that is asked for; none with --single, or where the usual one is not installed."""
    if options.single or options.detector == NO_DETECTOR:
        return None
    try:
        return selected_detector(options)
    except EntryError:
        if options.detector != usual_detector():
            raise
        print_message("There is no detector of cells here: each picture is classified as a whole.")
        return None


def _finder(detector: Entry | None, backend: str | None) -> Detector | None:
    """The detector, loaded."""
    if detector is None:
        return None
    from zoo.detection.detector import Detector

    return Detector(detector, backend)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MAX_COUNT}")
    return int(text)


def _page(text: str) -> int | str:
    if text == ALL_PAGES:
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a page number from 1 nor {ALL_PAGES}")
    return int(text)


def _adapt_statistics(entry: Entry, files: Sequence[str], folder: Path) -> Entry:
    """The entry with batch-norm statistics of the readable ones of these pictures; it is written into `folder`."""
    from zoo.adaptation import adapt

    images = []
    for name in files[:: max(1, len(files) // MAX_PICTURES)][:MAX_PICTURES]:
        with contextlib.suppress(PictureError):
            images.append(decode(Path(name)))
    with progress_bar(None, "statistics", total=100, unit="%", leave=False) as bar:

        def show_progress(share: float, _: str) -> None:
            bar.update(round(100 * share) - bar.n)

        unlabelled = [None] * len(images)
        target = folder / entry.id
        return adapt(entry, images, unlabelled, target, "here", progress=show_progress, only_statistics=True).entry


def _classify_to_stdout(options: argparse.Namespace, entry: Entry, detector: Entry | None, files: Sequence[str]) -> int:
    from zoo.serving.runtime import Runtime

    finder = _finder(detector, options.backend)
    with (
        Runtime(options.device, options.precision, options.batch_size, backend=options.backend) as runtime,
        _csv_writer(options.csv, entry.labels) as table,
        progress_bar(None, entry.id, total=len(files), unit="image") as progress,
    ):
        progress.set_description(f"{entry.id} on {device_name(runtime.device_name)}")
        failed, answers = 0, []
        for record in bulk.classify_paths(runtime, entry, files, options.sample, finder):
            failed += "error" in record
            progress.update(bulk.is_last(record))
            print_record(record, options.json, _line)
            if table is not None:
                table.writerow(bulk.csv_row(record, entry.labels))
            if not (record.get("error") or record["warning"]):
                answers.append(record["label"])
    if options.counts:
        _print_counts(answers, entry, options.json)
    return _report_failures(failed, len(files))


def _classify_into_file(options: argparse.Namespace, entry: Entry, detector: Entry | None, files: list[str]) -> int:
    """Classify into a partial file beside `--out`, which is renamed when complete and can be resumed until then."""
    from zoo.serving.runtime import Runtime

    kept = bulk.prepare_output(options.out, entry, options.resume, options.sample, detector)
    if kept.damaged:
        print_message(
            f"{bulk.partial_path(options.out)} was damaged: going on after its {len(kept.done):,} sound records."
        )
    remaining = [name for name in files if printable(name) not in kept.done]
    failed, done = kept.failed, len(files) - len(remaining)
    with (
        contextlib.ExitStack() as stack,
        bulk.open_partial(options.out) as add,
        progress_bar(None, entry.id, total=len(files), initial=done, unit="image") as progress,
    ):
        if options.ray is not None:
            workers = options.workers or usable_processors()
            address = None if options.ray == LOCAL else options.ray
            records = (
                bulk.classify_on_cluster(
                    entry, remaining, workers, address, options.precision, options.sample, options.backend, detector
                )
                if remaining
                else iter(())
            )
        else:
            runtime = stack.enter_context(
                Runtime(options.device, options.precision, options.batch_size, backend=options.backend)
            )
            records = bulk.classify_paths(runtime, entry, remaining, options.sample, _finder(detector, options.backend))
        for record in records:
            add(record)
            failed += "error" in record
            progress.update(bulk.is_last(record))
    bulk.finish_output(options.out, entry.labels)
    print_message(f"{options.out}: {len(files):,} files.")
    return _report_failures(failed, len(files))


def _report_failures(failed: int, count: int) -> int:
    return fail(f"{failed} of {count} files could not be classified.", FAILED) if failed else OK


def _line(record: dict[str, Any]) -> str:
    """An answer for people."""
    notes = f"\t({'; '.join(record['notes'])})" if record["notes"] else ""
    answer = record["warning"] or f"{record['label']}\t{record['confidence']:.4f}{_review(record)}"
    number = f"\tcell {record['cell']}" if record["cells"] > 1 else ""
    return f"{bulk.name_of(record)}{number}\t{answer}{notes}"


def _review(record: dict[str, Any]) -> str:
    return f"\t{record['decision']}: {'; '.join(record['reasons'])}" if record["reasons"] else ""


def _print_counts(answers: Sequence[str], entry: Entry, as_json: bool) -> None:
    """Print the share of each kind among the answers."""
    found = count_kinds(answers, entry.labels, entry.count_error)
    if as_json:
        print(json.dumps({"cells": len(answers), "counts": [asdict(one) for one in found] if answers else []}))
        return
    print(f"{len(answers):,} cells counted; 95 % limits for chance and the model's errors, then for chance alone")
    for one in found if answers else ():
        wide, chance = (f"{100 * low:.1f} to {100 * high:.1f} %" for low, high in _ends(one))
        print(f"{one.kind}\t{one.count}\t{100 * one.share:.1f} %\t{wide}\t{chance}")


def _ends(count: KindCount) -> list[tuple[float, float]]:
    return [(count.low, count.high), (count.chance_low, count.chance_high)]


@contextlib.contextmanager
def _csv_writer(path: Path | None, labels: Sequence[str]) -> Iterator[Any]:
    """A csv writer into `path`, which appears when the block has succeeded; None if no path is given."""
    if path is None:
        yield None
        return
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(bulk.csv_header(labels))
        yield writer
