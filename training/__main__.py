"""Command line of the training module: `python -m training audit|split|fetch|train|recipes`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training import fetch
from training.audit.report import Findings, look_for_copies, write
from training.audit.report import run as run_audit
from training.checkpoint import CheckpointError
from training.cleaning import Suspects, clean, resample, row_weights
from training.data import Prepared, TrainingDataError, item_names, prepare, read_labelled
from training.engine import Arrays, DivergedError, TrainingStopped, fit
from training.export import write_entry
from training.recipe import Recipe, RecipeError, load_recipe, recipe_ids
from training.splits import (
    SCHEMES,
    Split,
    Table,
    conflicting,
    make_manifest,
    parts_of,
    read_manifest,
    split_by,
    split_of_manifest,
    table_of,
    write_manifest,
)
from zoo.cache import cache_folder
from zoo.catalogue import get_entry
from zoo.data import DataError, layouts, read_dataset
from zoo.entry import ID, EntryError, summary
from zoo.reports import headlines
from zoo.runtime import resolve_device

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
EMBEDDER = "pbc8-efficientnet-lite0"  # the zoo's model whose features an audit compares


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except RecipeError as error:
        return _say(error, USAGE)
    except (DataError, CheckpointError, DivergedError, EntryError, fetch.FetchError) as error:
        return _say(error, FAILED)
    except TrainingStopped as error:
        return _say(error, INTERRUPTED)
    except KeyboardInterrupt:
        return _say(f"Stopped. What is finished is kept; {options.again}.", INTERRUPTED)
    except OSError as error:
        return _say(f"{error.filename or 'A file'} cannot be read or written: {error.strerror}.", FAILED)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser("python -m training", description="Make models of blood cells for the zoo.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_audit(commands)
    _add_split(commands)
    _add_fetch(commands)
    recipes = commands.add_parser("recipes", help="list the recipes")
    recipes.add_argument("--json", action="store_true", help="print a JSON list on stdout")
    recipes.set_defaults(run=_recipes, again="give the command again")
    return top


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser(
        "train",
        help="fit a recipe and write a zoo entry",
        description="Fit a recipe, score its test split once and write a whole zoo entry, or none.",
        epilog=f"Recipes: {', '.join(recipe_ids())}, or the path of a .toml file.",
    )
    train.add_argument("recipe", help="a recipe's id, or a .toml file")
    train.add_argument("--data", type=Path, required=True, metavar="DATA", help="the data set's folder or file")
    train.add_argument("--out", type=Path, required=True, metavar="ENTRY", help="folder of the entry to write")
    train.add_argument("--split", type=Path, metavar="MANIFEST", help="a split made by `split`, not the recipe's")
    train.add_argument(
        "--originals",
        type=Path,
        metavar="DIR",
        help="original frames of an augmented data set (default: ../bccd/JPEGImages beside --data)",
    )
    train.add_argument("--work", type=Path, metavar="DIR", help="folder of the running state (default: runs/NAME)")
    train.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    train.add_argument("--resume", action="store_true", help="go on with an unfinished run")
    train.add_argument("--restart", action="store_true", help="forget an unfinished run, replace an entry in --out")
    train.add_argument("--json", action="store_true", help="print the entry's summary as JSON on stdout")
    train.set_defaults(run=_train, again="give the same command with --resume")


def _add_audit(commands: argparse._SubParsersAction) -> None:
    audit = commands.add_parser(
        "audit",
        help="find out whether a data set can be trusted",
        description="Look for unreadable pictures, copies, source cells, outliers, shortcuts and label errors. What "
        "was measured is kept, so that an interrupted audit goes on where it stopped.",
        epilog=_layouts(),
    )
    _add_data(audit)
    audit.add_argument("--out", type=Path, required=True, metavar="REPORT", help="folder of the report to write")
    audit.add_argument("--no-thumbnails", action="store_true", help="keep pictures out of the report, to pass it on")
    audit.add_argument("--restart", action="store_true", help="replace a report in --out")
    audit.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
    audit.set_defaults(run=_audit, again="give the command again to go on")


def _add_split(commands: argparse._SubParsersAction) -> None:
    split = commands.add_parser(
        "split",
        help="divide a data set without leaks and write a manifest",
        description="Divide a data set into train, val and test. All copies of one source cell stay on one side, in "
        "every scheme but random, which is leaky and exists to reproduce published figures.",
        epilog=_layouts(),
    )
    _add_data(split)
    split.add_argument("--scheme", choices=SCHEMES, required=True, help="grouped is the one to choose where in doubt")
    split.add_argument(
        "--fractions",
        type=_fractions,
        default=(0.7, 0.15, 0.15),
        metavar="TRAIN,VAL,TEST",
        help="shares that add up to 1 (default: 0.7,0.15,0.15); official and kfold use the second alone",
    )
    split.add_argument("--folds", type=int, default=5, help="folds of kfold: one manifest each (default: %(default)s)")
    split.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    split.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help=".json file; kfold adds -1, -2, …")
    split.add_argument("--restart", action="store_true", help="replace a manifest in --out")
    split.add_argument("--json", action="store_true", help="print a summary as JSON on stdout")
    split.set_defaults(run=_split, again="give the command again to go on")


def _add_fetch(commands: argparse._SubParsersAction) -> None:
    get = commands.add_parser(
        "fetch",
        help="download a data set",
        description="Download a data set into a folder that every other command reads.",
        epilog=fetch.NAMES,
    )
    get.add_argument("name", help="bloodmnist[_64|_128|_224], kaggle:OWNER/NAME, blood-cells, or hf:OWNER/NAME")
    get.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to put it in; must not exist")
    get.add_argument("--json", action="store_true", help="print what was fetched as JSON on stdout")
    get.set_defaults(run=_fetch, again="give the command again")


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", type=Path, metavar="DATA", help="the data set's folder or file")
    command.add_argument(
        "--originals", type=Path, metavar="DIR", help="folder of the frames that an augmented data set was made from"
    )
    command.add_argument(
        "--embedder",
        default=EMBEDDER,
        metavar="ENTRY",
        help="the zoo's model that pictures are compared by (default: %(default)s)",
    )


def _layouts() -> str:
    return f"DATA may be: {'; '.join(layout.NAME for layout in layouts())}."


def _fractions(text: str) -> tuple[float, float, float]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers, as in 0.7,0.15,0.15") from error
    if len(shares) != 3 or abs(sum(shares) - 1) > 1e-6 or not all(0 < share < 1 for share in shares):
        raise argparse.ArgumentTypeError("give three shares above 0 that add up to 1, as in 0.7,0.15,0.15")
    return shares


def _audit(options: argparse.Namespace) -> int:
    out = options.out.resolve()
    if out.exists() and not options.restart:
        return _say(f"{out} is already there. Choose another --out, or --restart to replace it.", USAGE)
    embedder = get_entry(options.embedder)
    data = read_dataset(options.data)
    _say(f"{len(data):,} pictures, {len(data.labels)} classes, read as {data.layout}.", OK)
    found = run_audit(data, embedder, cache_folder(), options.originals)
    audit = write(out, found, embedder, thumbnails=not options.no_thumbnails)
    for alarming, line in headlines(audit.report):
        _say(f"{'!' if alarming else '·'} {line}", OK)
    for name, reason in audit.report.unreadable_reasons.items():
        _say(f"cannot be read: {name}: {reason}", OK)
    _say(f"Report: {out / 'index.html'}", OK)
    if options.json:
        print(audit.report.model_dump_json())
    return FAILED if audit.report.unreadable else OK


def _split(options: argparse.Namespace) -> int:
    many = options.scheme == "kfold"
    paths = [_numbered(options.out, n) for n in range(1, options.folds + 1)] if many else [options.out]
    there = next((path for path in paths if path.exists()), None)
    if there and not options.restart:
        return _say(f"{there} is already there. Choose another --out, or --restart to replace it.", USAGE)
    if many and options.folds < 2:
        return _say("kfold needs at least 2 folds.", USAGE)
    whole = read_dataset(options.data)
    data = whole.where(lambda item: item.label is not None)
    if len(data.labels) < 2:
        return _say(f"{options.data} has pictures of fewer than two classes; there is nothing to split by.", FAILED)
    measured, _, cells = look_for_copies(data, get_entry(options.embedder), cache_folder(), options.originals)
    table = table_of(data, measured, cells)
    _warn(len(whole) - len(table.files), "pictures without a label or that cannot be read")
    told = []
    for number, path in enumerate(paths):
        split = split_by(options.scheme, table, options.fractions, options.seed, options.folds, number)
        fold = {"fold": number, "folds": options.folds} if many else {}
        manifest = make_manifest(data, table, split, options.scheme, options.seed, options.fractions, **fold)
        write_manifest(path, manifest)
        _report(split)
        told.append(
            {
                "manifest": str(path),
                "hash": manifest.hash,
                "images": {name: len(rows) for name, rows in split.rows.items()},
                "cells": {name: len({split.cells[i] for i in rows}) for name, rows in split.rows.items()},
                "left_out": dict(split.left_out),
                "leaky": split.leaky,
                "leak_share": split.leak_share,
            }
        )
        _say(f"{path}: {manifest.hash}", OK)
    if options.json:
        print(json.dumps(told if many else told[0]))
    return OK


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _fetch(options: argparse.Namespace) -> int:
    out = options.out.resolve()
    if out.exists():
        return _say(f"{out} is already there. Choose another --out.", USAGE)
    try:
        source = fetch.parse(options.name)
    except fetch.FetchError as error:
        return _say(error, USAGE)
    fetch.fetch(source, out)
    augmented = source.name == fetch.BLOOD_CELLS
    place = options.out / "dataset2" if augmented else options.out
    data = read_dataset(place)
    more = f" --originals {options.out / 'bccd' / 'JPEGImages'}" if augmented else ""
    _say(f"{place}: {len(data):,} pictures, {len(data.labels)} classes.", OK)
    _say(f"Next: python -m training audit {place}{more} --out reports/{place.name}", OK)
    if options.json:
        print(json.dumps({"data": str(place), "images": len(data), "classes": list(data.labels)}))
    return OK


def _train(options: argparse.Namespace) -> int:
    recipe, out = load_recipe(options.recipe), options.out.resolve()
    work = options.work or Path("runs") / out.name
    started = (work / "checkpoint.safetensors").exists()
    if not ID.match(out.name):
        return _say(f"{out.name!r} is no entry name: use letters, digits, dots, dashes and underscores.", USAGE)
    if started and not (options.resume or options.restart):
        return _say(f"There is an unfinished run in {work}. Add --resume to go on, or --restart to begin anew.", USAGE)
    if out.exists() and not (options.restart or options.resume):
        return _say(f"{out} is already there. Choose another --out, or --restart to replace it.", USAGE)
    device = resolve_device(options.device)
    prepared = prepare(read_labelled(options.data, recipe.data.labels), recipe.data.packed)
    for name, reason in prepared.unreadable.items():
        _say(f"left out {name}: {reason}", OK)
    names = list(dict.fromkeys(recipe.data.labels.values()))
    labels = np.array([names.index(item.label) for item in prepared.data.items])
    split = resample(make_split(recipe, prepared, options), recipe.balance.resample, labels, recipe.seed)
    _report(split)
    if options.restart:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    weights = row_weights(recipe.balance, split, labels, split.cells)
    arrays = Arrays(prepared.pictures, labels, weights)
    fitted = fit(recipe, arrays, split, work, device, options.resume and started)
    entry = write_entry(out, recipe, fitted, prepared.data.items, split, options.device)
    shutil.rmtree(work, ignore_errors=True)  # all it held is in the entry
    test = next(b for b in entry.evaluation.benchmarks.values() if b.role == "test")
    accuracy = test.metrics["accuracy"]
    _say(f"{out}: test accuracy {accuracy.value:.4f} ({accuracy.low:.4f} to {accuracy.high:.4f}).", OK)
    if options.json:
        print(json.dumps(summary(entry)))
    return OK


def make_split(recipe: Recipe, prepared: Prepared, options: argparse.Namespace) -> Split:
    """The recipe's split, or that of the manifest named with --split, cleaned as the recipe says.

    Raises TrainingDataError if the original frames that the recipe needs are not there, or the manifest does not fit.
    """
    wanted, data = recipe.data, prepared.data
    found: Findings | None = None
    # a manifest brings its cells along; a stratified split knows identical pixels, unless a rule asks for more
    known = options.split is not None or (wanted.split == "stratified" and not recipe.needs_cells)
    if known and not recipe.clean.needs_audit:
        labels = [item.label for item in data.items]
        table = Table.plain(item_names(data.items), labels, prepared.pixels, parts_of(data))
    else:
        found = run_audit(data, get_entry(EMBEDDER), cache_folder(), _originals(recipe, options))
        table = table_of(data, found.measured, found.cells)
    if options.split is not None:
        manifest = read_manifest(options.split, read_dataset(options.data))
        split = split_of_manifest(manifest, table.files, set(wanted.labels))
    else:
        shares = (1 - wanted.val_fraction - wanted.test_fraction, wanted.val_fraction, wanted.test_fraction)
        split = split_by(wanted.split, table, shares, recipe.seed)
    return clean(split, recipe.clean, split.cells, table.pixels, found and _suspects(found, table))


def _originals(recipe: Recipe, options: argparse.Namespace) -> Path | None:
    if not recipe.data.originals:
        return options.originals
    originals = options.originals or options.data.parent / "bccd" / "JPEGImages"
    if not originals.is_dir():
        raise TrainingDataError(
            f"{recipe.data.name} holds augmented copies, and {originals} with the original frames is not there. Fetch "
            "BCCD_Dataset and name its JPEGImages folder with --originals: without it validation would leak."
        )
    return originals


def _suspects(found: Findings, table: Table) -> Suspects:
    """The audit's findings as rows of the table."""
    place = {file: row for row, file in enumerate(table.files)}
    files = [item.file for item in found.data.items]
    bad = conflicting(table.labels, table.cells)
    return Suspects(
        frozenset(place[files[row]] for row in found.outliers.rows),
        frozenset(place[files[row]] for row in found.label_errors.rows),
        frozenset(row for row, cell in enumerate(table.cells) if cell in bad),
    )


def _report(split: Split) -> None:
    for side, rows in split.rows.items():
        _say(f"{side}: {len(rows):,} images of {len({split.cells[i] for i in rows}):,} cells", OK)
    for reason, count in split.left_out.items():
        _warn(count, f"images: {reason}")
    if split.leaky:
        _say(f"LEAKY: {100 * split.leak_share:.1f} % of test images have a copy in training.", OK)


def _warn(count: int, what: str) -> None:
    if count:
        _say(f"left out {count:,} {what}", OK)


def _recipes(options: argparse.Namespace) -> int:
    recipes = [load_recipe(name) for name in recipe_ids()]
    if options.json:
        print(json.dumps([recipe.model_dump(mode="json") for recipe in recipes]))
    else:
        for recipe in recipes:
            print(f"{recipe.id:28} {recipe.task:28} {recipe.model.architecture:24} {recipe.title}")
    return OK


def _say(message: object, status: int) -> int:
    print(message, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
