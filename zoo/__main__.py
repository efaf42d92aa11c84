"""Command line of the zoo: `python -m zoo list|classify|explain`."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from zoo.adaptation import MOST, adapt
from zoo.attribution import DEFAULT, METHODS, MODEL_FREE, ExplanationError
from zoo.attribution.overlay import overlay
from zoo.entry import Entry, EntryError, summary
from zoo.files import atomic_path
from zoo.imaging.decode import ImageError, decode
from zoo.serving import bulk
from zoo.serving.batch import find_files
from zoo.serving.loaded import PRECISIONS, device_name
from zoo.serving.runtime import BATCH_SIZE, BusyError, Runtime
from zoo.sources.catalogue import get_entry, list_entries

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 some inputs failed (each named), 2 wrong usage."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except (EntryError, bulk.BulkError) as error:
        return _say(error, USAGE)
    except (ImageError, ExplanationError, BusyError) as error:
        return _say(error, FAILED)
    except BrokenPipeError:
        # the reader of our output left; that is its own affair
        sys.stderr.close()
        return FAILED
    except OSError as error:
        return _say(f"{error.filename or 'A file'} cannot be written: {error.strerror}.", FAILED)
    except KeyboardInterrupt:
        return _say("Stopped.", INTERRUPTED)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser("python -m zoo", description="Models of blood cells: list, classify, explain.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="list the models of the zoo", description="List the models of the zoo.")
    listing.add_argument("--json", action="store_true", help="print a JSON list on stdout")
    listing.set_defaults(run=_list)
    classify = commands.add_parser(
        "classify", help="classify pictures and folders of pictures", description="Classify pictures of blood cells."
    )
    classify.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="pictures, or folders searched for them")
    _common(classify)
    classify.add_argument(
        "--statistics",
        action="store_true",
        help="let the model's batch norm expect pictures like these first: of one laboratory, of all kinds of cells",
    )
    classify.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    classify.add_argument("--csv", type=Path, metavar="FILE", help="also write a table")
    classify.add_argument(
        "--batch-size", type=_positive, default=BATCH_SIZE, metavar="N", help="(default: %(default)s)"
    )
    classify.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write a .jsonl or .csv of any size; what was cut off is gone on with by --resume",
    )
    classify.add_argument("--resume", action="store_true", help="go on with a run into --out that was cut off")
    classify.add_argument(
        "--ray",
        nargs="?",
        const="here",
        metavar="ADDRESS",
        help="spread the work over a Ray cluster (requirements-ray.txt), or over processes here without ADDRESS",
    )
    classify.add_argument("--workers", type=_positive, metavar="N", help="processes for --ray (default: one a core)")
    classify.set_defaults(run=_classify)
    explain = commands.add_parser(
        "explain",
        help="show where in a picture the evidence for a class is",
        description="Write where the evidence is: FILE.CLASS.overlay.png and the raw map FILE.CLASS.npy.",
        epilog="Methods: " + "; ".join(f"{name} ({method.about})" for name, method in METHODS.items()),
    )
    explain.add_argument("path", type=Path, metavar="PATH", help="a picture")
    _common(explain)
    explain.add_argument("--class", dest="label", metavar="LABEL", help="class to explain (default: the predicted one)")
    explain.add_argument(
        "--method", choices=METHODS, help=f"(default: {DEFAULT}, or {MODEL_FREE} where that cannot be)", metavar="M"
    )
    explain.add_argument("--against", metavar="LABEL", help="show what sets the class off from this one")
    explain.add_argument("--layer", metavar="PATH", help="layer to look at (default: the entry's)")
    explain.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="folder to write to (default: here)")
    explain.add_argument("--opacity", type=_fraction, default=0.5, metavar="0..1", help="(default: %(default)s)")
    explain.add_argument("--json", action="store_true", help="print a JSON object on stdout")
    explain.set_defaults(run=_explain)
    return top


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, metavar="ID", help="a model's id, see `python -m zoo list`")
    command.add_argument(
        "--views",
        type=int,
        choices=(1, 2, 4, 8),
        help="turned and mirrored views of each picture, averaged: slower and a little better (default: the model's)",
    )
    command.add_argument("--device", default="auto", metavar="D", help="auto, cpu or cuda (default: %(default)s)")
    command.add_argument("--precision", choices=PRECISIONS, default="auto", help="(default: bf16 where it is faster)")


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 4096")
    return int(text)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return value


def _list(options: argparse.Namespace) -> int:
    entries = list_entries()
    if options.json:
        print(json.dumps([summary(entry) for entry in entries], indent=2, ensure_ascii=False))
        return OK
    for entry in entries:
        print(_line(entry))
    if not entries:
        _say("The zoo is empty. Name folders with entries in HEMAZOO_ZOO.", OK)
    return OK


def _entry(options: argparse.Namespace) -> Entry:
    """The model that is asked for, looking at as many views as is asked for."""
    entry = get_entry(options.model)
    return entry.with_views(options.views) if options.views else entry


def _line(entry: Entry) -> str:
    if entry.config is None:
        return f"{entry.id:28} BROKEN  {entry.reason}"
    size = "no weights here"
    if entry.weights:
        count = entry.weights.parameters
        size = f"{count / 1e6:.2f} M parameters" if count else f"{entry.weights.bytes / 1e6:.1f} MB"
    tests = [b for b in entry.evaluation.benchmarks.values() if b.role == "test" and "accuracy" in b.metrics]
    figures = [f"{100 * b.metrics['accuracy'].value:.1f} % on {b.title}" for b in tests]
    return f"{entry.id:28} {entry.config.zoo.task:28} {size:22} {', '.join(figures)}"


def _classify(options: argparse.Namespace) -> int:
    entry = _entry(options)
    if (options.resume or options.ray is not None) and options.out is None:
        return _say("--resume and --ray need --out: a file to write to.", USAGE)
    names = [str(path) for path in find_files(options.paths)]
    if not names:
        return _say("There is no picture in the folders named.", FAILED)
    if options.out and options.statistics:
        return _say(
            "--statistics and --out: make an entry first, `python -m training adapt`, and classify by it.", USAGE
        )
    if options.out:
        return _classify_into(options, entry, names)
    with contextlib.ExitStack() as stack:
        if options.statistics:
            entry = _with_statistics(entry, names, Path(stack.enter_context(TemporaryDirectory())))
        return _classify_here(options, entry, names)


def _with_statistics(entry: Entry, names: Sequence[str], folder: Path) -> Entry:
    """The entry, its batch norm expecting pictures like the readable ones of these; it lies in `folder`."""
    images = []
    for name in names[:: max(1, len(names) // MOST)][:MOST]:
        with contextlib.suppress(ImageError):
            images.append(decode(Path(name)))
    with tqdm(total=100, unit="%", desc="statistics", file=sys.stderr, leave=False) as bar:
        told = partial(_advance, bar)
        return adapt(
            entry, images, [None] * len(images), folder / entry.id, "here", say=told, only_statistics=True
        ).entry


def _advance(bar: tqdm, share: float, _: str) -> None:
    bar.update(round(100 * share) - bar.n)


def _classify_here(options: argparse.Namespace, entry: Entry, names: Sequence[str]) -> int:
    """To stdout, and as a table where one is asked for."""
    with (
        Runtime(options.device, options.precision, options.batch_size) as runtime,
        _table(options.csv, entry.labels) as rows,
        tqdm(total=len(names), unit="image", file=sys.stderr) as progress,
    ):
        progress.set_description(f"{entry.id} on {device_name(runtime.device)}")
        failed = 0
        for found in bulk.classify_paths(runtime, entry, names):
            failed += "error" in found
            progress.update()
            _print_record(found, options.json)
            if rows is not None:
                rows.writerow(bulk.csv_row(found, entry.labels))
    return _told(failed, len(names))


def _classify_into(options: argparse.Namespace, entry: Entry, names: list[str]) -> int:
    """Into a file that grows beside its place and can be gone on with."""
    kept = bulk.prepare_output(options.out, entry, options.resume)
    left = [name for name in names if name not in kept.done]
    failed = kept.failed
    with (
        contextlib.ExitStack() as stack,
        bulk.open_partial(options.out) as add,
        tqdm(
            total=len(names), initial=len(names) - len(left), unit="image", desc=entry.id, file=sys.stderr
        ) as progress,
    ):
        if options.ray is not None:
            workers, address = options.workers or os.cpu_count() or 1, None if options.ray == "here" else options.ray
            answers = bulk.classify_on_cluster(entry, left, workers, address, options.precision) if left else iter(())
        else:
            runtime = stack.enter_context(Runtime(options.device, options.precision, options.batch_size))
            answers = bulk.classify_paths(runtime, entry, left)
        for found in answers:
            add(found)
            failed += "error" in found
            progress.update()
    bulk.finish_output(options.out, entry.labels)
    _say(f"{options.out}: {len(names):,} files.", OK)
    return _told(failed, len(names))


def _told(failed: int, count: int) -> int:
    if failed:
        _say(f"{failed} of {count} files could not be classified.", FAILED)
    return FAILED if failed else OK


def _print_record(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        tqdm.write(json.dumps(found, ensure_ascii=False), file=sys.stdout)
    elif "error" in found:
        tqdm.write(f"{found['file']}: {found['error']}", file=sys.stderr)
    else:
        tqdm.write(f"{found['file']}\t{found['label']}\t{found['confidence']:.4f}", file=sys.stdout)


@contextlib.contextmanager
def _table(path: Path | None, labels: Sequence[str]) -> Iterator[Any]:
    """A csv writer into `path`, whose file appears when the block is done; None if no path is given."""
    if path is None:
        yield None
        return
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(bulk.csv_header(labels))
        yield writer


def _explain(options: argparse.Namespace) -> int:
    entry = _entry(options)
    try:
        image = decode(options.path)
    except ImageError as error:
        if options.json:
            print(json.dumps({"file": str(options.path), "error": str(error)}, ensure_ascii=False))
        return _say(f"{options.path}: {error}", FAILED)
    with (
        Runtime(options.device, options.precision) as runtime,
        tqdm(total=100, unit="%", desc=entry.id, file=sys.stderr, leave=False, delay=1) as bar,
    ):
        found = runtime.explain(
            entry,
            image,
            options.label,
            options.method,
            options.against,
            options.layer,
            watch=lambda ticket: bar.update(round(100 * ticket.progress) - bar.n),
        )
    stem = f"{options.path.stem}.{_safe(found.label)}"
    drawn, raw = options.out / f"{stem}.overlay.png", options.out / f"{stem}.npy"
    with atomic_path(drawn) as temporary:
        overlay(image, found.values, options.opacity).save(temporary, "PNG")
    with atomic_path(raw) as temporary, temporary.open("wb") as file:
        _save_array(file, found.values)
    if options.json:
        record = {
            "file": str(options.path),
            "label": found.label,
            "map": str(raw),
            "overlay": str(drawn),
            "method": found.method,
        }
        print(json.dumps(record, ensure_ascii=False))
    else:
        print(f"{found.label}\t{found.prediction.probabilities[found.label]:.4f}\t{drawn}\t{raw}")
    return OK


def _save_array(file: IO[bytes], values: np.ndarray) -> None:
    np.save(file, values, allow_pickle=False)


def _safe(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in label)


def _say(message: object, status: int) -> int:
    print(message, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
