"""Command line of the training module: `python -m training train RECIPE --data DIR --out ENTRY`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.checkpoint import CheckpointError
from training.data import Pack, TrainingDataError, find_files, pack
from training.engine import Arrays, DivergedError, TrainingStopped, fit
from training.export import write_entry
from training.matching import source_frames
from training.recipe import Recipe, RecipeError, load_recipe, recipe_ids
from training.splits import Split, official_split, stratified_split
from zoo.cache import cache_folder
from zoo.entry import ID, EntryError, summary
from zoo.runtime import resolve_device

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except RecipeError as error:
        return _say(error, USAGE)
    except (TrainingDataError, CheckpointError, DivergedError, EntryError) as error:
        return _say(error, FAILED)
    except TrainingStopped as error:
        return _say(error, INTERRUPTED)
    except KeyboardInterrupt:
        return _say("Stopped. Finished epochs are kept; give the same command with --resume.", INTERRUPTED)
    except OSError as error:
        return _say(f"{error.filename or 'A file'} cannot be read or written: {error.strerror}.", FAILED)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser("python -m training", description="Make models of blood cells for the zoo.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser(
        "train",
        help="fit a recipe and write a zoo entry",
        description="Fit a recipe, score its test split once and write a whole zoo entry, or none.",
        epilog=f"Recipes: {', '.join(recipe_ids())}, or the path of a .toml file.",
    )
    train.add_argument("recipe", help="a recipe's id, or a .toml file")
    train.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set's folder")
    train.add_argument("--out", type=Path, required=True, metavar="ENTRY", help="folder of the entry to write")
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
    train.set_defaults(run=_train)
    recipes = commands.add_parser("recipes", help="list the recipes")
    recipes.add_argument("--json", action="store_true", help="print a JSON list on stdout")
    recipes.set_defaults(run=_recipes)
    return top


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
    packed = read_data(recipe, options.data)
    split = make_split(recipe, packed, options.originals or options.data.parent / "bccd" / "JPEGImages")
    _report(packed, split)
    if options.restart:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(recipe.data.labels.values()))
    labels = np.array([names.index(sample.label) for sample in packed.samples])
    fitted = fit(recipe, Arrays(packed.pictures, labels), split, work, device, options.resume and started)
    entry = write_entry(out, recipe, fitted, packed.samples, split, options.device)
    shutil.rmtree(work, ignore_errors=True)  # all it held is in the entry
    test = next(b for b in entry.evaluation.benchmarks.values() if b.role == "test")
    accuracy = test.metrics["accuracy"]
    _say(f"{out}: test accuracy {accuracy.value:.4f} ({accuracy.low:.4f} to {accuracy.high:.4f}).", OK)
    if options.json:
        print(json.dumps(summary(entry)))
    return OK


def read_data(recipe: Recipe, folder: Path) -> Pack:
    """The recipe's pictures, decoded once. Raises TrainingDataError if the folder is not laid out as expected."""
    parts = ("TRAIN", "TEST") if recipe.data.split == "official" else (None,)
    return pack(folder, find_files(folder, recipe.data.labels, parts), recipe.data.packed)


def make_split(recipe: Recipe, packed: Pack, originals: Path) -> Split:
    """The recipe's split. Raises TrainingDataError if the original frames it needs are not there."""
    data = recipe.data
    if data.split == "stratified":
        return stratified_split(packed.samples, data.val_fraction, data.test_fraction, recipe.seed)
    if not originals.is_dir():
        raise TrainingDataError(
            f"{data.name} holds augmented copies, and {originals} with the original frames is not there. Fetch "
            "BCCD_Dataset and name its JPEGImages folder with --originals: without it validation would leak."
        )
    matches = source_frames([sample.path for sample in packed.samples], originals, cache_folder())
    return official_split(packed.samples, [match.frame for match in matches], data.val_fraction, recipe.seed)


def _report(packed: Pack, split: Split) -> None:
    for name, reason in packed.unreadable.items():
        _say(f"left out {name}: {reason}", OK)
    for side, rows in split.rows.items():
        _say(f"{side}: {len(rows):,} images of {len({split.cells[i] for i in rows}):,} cells", OK)
    for reason, count in split.left_out.items():
        _say(f"left out {count:,} images: {reason}", OK)


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
