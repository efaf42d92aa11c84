"""Command line of the zoo: `python -m zoo list|classify|explain`."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from zoo.batch import Result, classify_files, find_files
from zoo.catalogue import get_entry, list_entries
from zoo.entry import Entry, EntryError, summary
from zoo.explain import DEFAULT, METHODS, MODEL_FREE, ExplanationError
from zoo.files import atomic_path
from zoo.images import ImageError, decode
from zoo.loaded import PRECISIONS, device_name
from zoo.overlay import overlay
from zoo.runtime import BATCH_SIZE, BusyError, Runtime

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 some inputs failed (each named), 2 wrong usage."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except EntryError as error:
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
    classify.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    classify.add_argument("--csv", type=Path, metavar="FILE", help="also write a table")
    classify.add_argument(
        "--batch-size", type=_positive, default=BATCH_SIZE, metavar="N", help="(default: %(default)s)"
    )
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


def _line(entry: Entry) -> str:
    if entry.config is None:
        return f"{entry.id:28} BROKEN  {entry.reason}"
    size = f"{entry.weights.parameters / 1e6:.2f} M parameters" if entry.weights else "no weights here"
    tests = [b for b in entry.evaluation.benchmarks.values() if b.role == "test" and "accuracy" in b.metrics]
    figures = [f"{100 * b.metrics['accuracy'].value:.1f} % on {b.title}" for b in tests]
    return f"{entry.id:28} {entry.config.zoo.task:28} {size:22} {', '.join(figures)}"


def _classify(options: argparse.Namespace) -> int:
    entry = get_entry(options.model)
    files = find_files(options.paths)
    if not files:
        return _say("There is no picture in the folders named.", FAILED)
    with (
        Runtime(options.device, options.precision, options.batch_size) as runtime,
        _table(options.csv, entry.labels) as rows,
        tqdm(total=len(files), unit="image", file=sys.stderr) as progress,
    ):
        progress.set_description(f"{entry.id} on {device_name(runtime.device)}")
        failed = 0
        for result in classify_files(runtime, entry, ((str(path), path) for path in files)):
            failed += result.error is not None
            progress.update()
            _print_result(result, options.json)
            if rows is not None:
                rows.writerow(_row(result, entry.labels))
    if failed:
        _say(f"{failed} of {len(files)} files could not be classified.", FAILED)
    return FAILED if failed else OK


def _print_result(result: Result, as_json: bool) -> None:
    if as_json:
        tqdm.write(json.dumps(_record(result), ensure_ascii=False), file=sys.stdout)
    elif result.prediction is None:
        tqdm.write(f"{result.file}: {result.error}", file=sys.stderr)
    else:
        text = f"{result.file}\t{result.prediction.label}\t{result.prediction.confidence:.4f}"
        tqdm.write(text, file=sys.stdout)


def _record(result: Result) -> dict[str, Any]:
    if result.prediction is None:
        return {"file": result.file, "error": result.error}
    found = result.prediction
    return {
        "file": result.file,
        "label": found.label,
        "confidence": found.confidence,
        "probabilities": found.probabilities,
        "distance": found.distance,
        "unfamiliar": found.unfamiliar,
    }


def _row(result: Result, labels: Sequence[str]) -> list[Any]:
    if result.prediction is None:
        return [result.file, "", "", *("" for _ in labels), result.error]
    found = result.prediction
    shares = [f"{found.probabilities[label]:.6f}" for label in labels]
    return [result.file, found.label, f"{found.confidence:.6f}", *shares, ""]


@contextlib.contextmanager
def _table(path: Path | None, labels: Sequence[str]) -> Iterator[Any]:
    """A csv writer into `path`, whose file appears when the block is done; None if no path is given."""
    if path is None:
        yield None
        return
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "confidence", *labels, "error"])
        yield writer


def _explain(options: argparse.Namespace) -> int:
    entry = get_entry(options.model)
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
