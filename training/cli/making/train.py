"""Train a recipe and write a zoo entry.

The test split is scored once, after training. The entry is written whole, or not at all.

With pictures of your own, in one folder per class:

  my-cells/basophil/1.png, my-cells/basophil/2.png, …, my-cells/monocyte/1.png, …

  python -m training train --data my-cells     audits them, trains a good default, writes my-zoo/my-cells
  make demo                                    shows it in the app

Training can be interrupted at any time; run the same command with --resume to continue. On several devices or
machines: accelerate launch -m training train … (see `accelerate config`).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from training.cli.common import (
    RUNS,
    add_device,
    add_json,
    add_reading,
    add_recipe_changes,
    add_work,
    lock_outputs,
    reading_of,
)
from training.detection.recipe import detector_recipes, load_detector_recipe
from training.errors import UsageError
from training.recipe import recipe_ids
from training.start.folder import DEFAULT_RECIPE, default_target, named_by_folder
from training.start.options import Usual, load_changed, parse_size
from zoo.cli.common import OK, USAGE, fail, print_message
from zoo.data import DataError
from zoo.entry import CONFIG, ID, Entry, summary
from zoo.files import check_target, only_writer, write_text
from zoo.serving.devices import resolve_device
from zoo.sources.catalogue import distinct_titles, is_listed

LOGS = ("tensorboard", "trackio", "wandb", "mlflow", "comet_ml", "aim", "clearml")  # trackers of accelerate
LOADERS = 1  # processes that make a detector's crops
INTERRUPTED_MESSAGE = (
    "Stopped. Finished work is kept; run the same command again, with --resume if an epoch had begun, to continue."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = (
        f"Recipes: {', '.join(recipe_ids())}, or the path of a .toml file. Of detectors, which need pictures "
        f"with boxes: {', '.join(detector_recipes())}."
    )
    parser.add_argument(
        "recipe",
        nargs="?",
        help=f"a recipe's id, or a .toml file (default: {DEFAULT_RECIPE}, after an audit of the pictures)",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DATA", help="the data set's folder or file (an ensemble needs none)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="ENTRY",
        help="folder of the entry to write (default: the name of --data, in my-zoo or the first folder of HEMAZOO_ZOO, "
        "which the app lists)",
    )
    add_reading(parser)
    _add_usual(parser)
    parser.add_argument(
        "--split", type=Path, metavar="MANIFEST", help="a split made by `split`, instead of the recipe's"
    )
    parser.add_argument(
        "--originals",
        type=Path,
        metavar="DIR",
        help="original frames of an augmented data set (default: the known ones, beside --data)",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="follow the published system's protocol, leaks included; the entry is marked everywhere",
    )
    parser.add_argument(
        "--scratch", action="store_true", help="start from random weights where the recipe's are not available"
    )
    add_work(parser, "folder of the running state (default: runs/NAME)")
    add_device(parser)
    parser.add_argument("--log", choices=LOGS, help="also report epochs to this tracker, into runs/logs/NAME")
    parser.add_argument("--resume", action="store_true", help="continue an unfinished run")
    parser.add_argument("--finish", action="store_true", help="make an entry of an unfinished run's best epoch")
    parser.add_argument("--restart", action="store_true", help="discard an unfinished run, replace an entry in --out")
    add_json(parser, "the entry's summary")


def _add_usual(parser: argparse.ArgumentParser) -> None:
    """Add the options that most training programs have, and `--set` for all others."""
    group = parser.add_argument_group("changing the recipe")
    group.add_argument("--epochs", type=int, metavar="N", help="epochs of all stages together")
    group.add_argument("--batch-size", type=int, metavar="N", help="pictures of a batch")
    group.add_argument("--lr", type=float, metavar="RATE", help="learning rate; of stages, the highest of theirs")
    group.add_argument("--seed", type=int, metavar="N", help="of the split, the start weights and the training")
    group.add_argument("--input-size", type=_size, metavar="SIZE", help="of the network: 96, or 96x128")
    group.add_argument("--model", metavar="NAME", help="the network: any of timm's, or ours")
    add_recipe_changes(group)


def run(options: argparse.Namespace) -> int:
    """Train and write the entry, or print why it cannot be done."""
    if options.recipe in detector_recipes():
        return _train_detector(options)
    entry = train_entry(options)
    if entry is not None and options.json:  # None where another process writes and reports
        print(json.dumps(summary(entry)))
    return OK


def train_entry(options: argparse.Namespace) -> Entry | None:
    """Train and write the entry, and print how good it is. Raises UsageError, or what `training.run.train` raises."""
    usual = Usual(**{name: getattr(options, name) for name in Usual.__dataclass_fields__})
    # refuses a wrong key before torch is imported
    name = options.recipe or DEFAULT_RECIPE
    recipe = load_changed(name, options.set, usual, options.published, options.scratch)
    _check_places(options)
    from training.fit.processor.devices import make_accelerator
    from training.prepare.training_data import with_labels
    from training.run import TrainingJob, train
    from training.start.checks import check_start
    from training.start.target import check_name, check_run, check_same_recipe

    check_start(recipe)
    reading = reading_of(options)
    out = (options.out or default_target(options.data, recipe)).resolve()
    if options.data is not None and recipe.model is not None:
        recipe = named_by_folder(recipe, options.data)
    recipe = with_labels(recipe, options.data, reading)
    work = options.work or RUNS / out.name
    wanted = (options.resume, options.finish, options.restart)
    check_name(recipe, out)
    check_run(out, work, options.data, *wanted)
    if options.resume or options.finish:
        check_same_recipe(work, recipe)
    accelerator = make_accelerator(resolve_device(options.device), options.log, RUNS / "logs" / out.name)
    with lock_outputs(accelerator, out, work):
        if accelerator.is_main_process:
            check_run(out, work, options.data, *wanted)  # the run that held the lock may have written them meanwhile
            if options.restart:
                shutil.rmtree(work, ignore_errors=True)
            if options.recipe is None and not (options.resume or options.finish):
                _audit_first(options, out.name)
        if options.log:
            accelerator.init_trackers(recipe.id)
        job = TrainingJob(
            recipe, options.data, out, work, options.split, options.originals, options.resume, options.finish, reading
        )
        try:
            entry = train(job, accelerator)
        finally:
            accelerator.end_training()
    if entry is not None:
        _print_result(entry, out)
    return entry


def _check_places(options: argparse.Namespace) -> None:
    """Raise UsageError or DataError if a folder or file that is named does not exist, before torch is imported."""
    if options.data is None and options.out is None:
        raise UsageError("Name the folder of your pictures, with a folder for each class in it: --data FOLDER.")
    if options.data is not None and not options.data.exists():
        raise DataError(f"There is nothing at {options.data}. Name the data set's folder or file.")
    if options.split is not None and not options.split.is_file():
        raise UsageError(
            f"There is no split {options.split}: --split takes the file that `python -m training split` makes. How a "
            "recipe splits is its key data.split."
        )


def _audit_first(options: argparse.Namespace, name: str) -> None:
    """Audit the pictures, and print what is found; what a split needs of it is kept."""
    from training.api import audit

    kinds = {key: getattr(options, key) for key in ("layout", "group", "group_pattern", "labels", "originals")}
    print_message("First, an audit: copies, unreadable pictures, outliers, labels that look wrong.")
    audit(options.data, RUNS / "audits" / name, restart=True, **{key: value or None for key, value in kinds.items()})


def _train_detector(options: argparse.Namespace) -> int:
    """Train a detector of cells; what is unfinished goes on."""
    recipe = load_detector_recipe(options.recipe, tuple(options.set))
    if options.data is None:
        return fail(
            f"Name the folder of fields with boxes: --data FOLDER. {recipe.id} was trained on {recipe.data.set}.", USAGE
        )
    if options.out is None:
        return fail(f"Name the folder of the entry to write: --out my-zoo/{recipe.id}.", USAGE)
    out = options.out.resolve()
    work = options.work or RUNS / out.name
    if not ID.match(out.name):
        return fail(f"{out.name!r} is not an entry name: use letters, digits, dots, dashes and underscores.", USAGE)
    check_target(out, options.restart or options.resume, (CONFIG,), [options.data])
    from training.detection.train import train_detector

    with only_writer(out), only_writer(work):
        if options.restart:
            shutil.rmtree(work, ignore_errors=True)
        train_detector(recipe, options.data, out, work, LOADERS, print_message)
    print_message(f"{out}: to use it, HEMAZOO_ZOO={out.parent} python -m zoo cells PATH… --detector {out.name}")
    if options.json:
        print(json.dumps({"id": out.name, "folder": str(out)}))
    return OK


def _print_result(entry: Entry, out: Path) -> None:
    """Print where the entry is and how good it is, and write its curves and scores as a page."""
    from training.evaluation.html_report import render
    from training.start.outcome import describe_outcome

    page = RUNS / "reports" / f"{out.name}.html"
    write_text(page, render([entry], distinct_titles([entry])))
    print_message(f"{out}: {entry.title}.")
    print_message(f"Curves and scores as a page: {page}")
    for line in describe_outcome(entry):
        print_message(line)
    zoo = "" if is_listed(out.parent) else f"HEMAZOO_ZOO={out.parent} "
    print_message(f"To see it in the app: {zoo}make demo")


def _size(text: str) -> tuple[int, int]:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
