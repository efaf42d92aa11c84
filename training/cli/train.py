"""Train a recipe and write a zoo entry.

The test split is scored once, after training. The entry is written whole, or not at all.

With pictures of your own, in one folder per class:

  my-cells/basophil/1.png, my-cells/basophil/2.png, …, my-cells/monocyte/1.png, …

  python -m training train starter --data my-cells --out my-zoo/my-model
  HEMAZOO_ZOO=my-zoo make demo          shows it in the app

Training can be interrupted at any time; run the same command with --resume to continue. On several devices or
machines: accelerate launch -m training train … (see `accelerate config`).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from training.cli.common import (
    RECIPE_HELP,
    RUNS,
    add_device,
    add_json,
    add_reading,
    add_recipe_changes,
    lock_outputs,
    reading_of,
)
from training.detection.recipe import detector_recipes, load_detector_recipe
from training.recipe import PUBLISHED, SCRATCH, Recipe, load_recipe, recipe_ids
from zoo.cli.common import OK, USAGE, fail, print_message
from zoo.entry import CONFIG, ID, Entry, summary
from zoo.files import ExistsError, check_target, only_writer
from zoo.serving.devices import resolve_device

LOGS = ("tensorboard", "trackio", "wandb", "mlflow", "comet_ml", "aim", "clearml")  # trackers of accelerate
LOADERS = 1  # processes that make a detector's crops
NO_NAME = "{!r} is not an entry name: use letters, digits, dots, dashes and underscores."
INTERRUPTED_MESSAGE = (
    "Stopped. Finished work is kept; run the same command again, with --resume if an epoch had begun, to continue."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = (
        f"Recipes: {', '.join(recipe_ids())}, or the path of a .toml file. Of detectors, which need pictures "
        f"with boxes: {', '.join(detector_recipes())}."
    )
    parser.add_argument("recipe", help=RECIPE_HELP)
    parser.add_argument(
        "--data", type=Path, metavar="DATA", help="the data set's folder or file (an ensemble needs none)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="ENTRY", help="folder of the entry to write")
    add_reading(parser)
    add_recipe_changes(parser)
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
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder of the running state (default: runs/NAME)")
    add_device(parser)
    parser.add_argument("--log", choices=LOGS, help="also report epochs to this tracker, into runs/logs/NAME")
    parser.add_argument("--resume", action="store_true", help="continue an unfinished run")
    parser.add_argument("--finish", action="store_true", help="make an entry of an unfinished run's best epoch")
    parser.add_argument("--restart", action="store_true", help="discard an unfinished run, replace an entry in --out")
    add_json(parser, "the entry's summary")


def run(options: argparse.Namespace) -> int:
    """Train and write the entry, or print why it cannot be done."""
    if options.recipe in detector_recipes():
        return _train_detector(options)
    # refuses a wrong key before torch is imported
    recipe = load_recipe(options.recipe, options.set, options.published, options.scratch)
    from training.fit.devices import make_accelerator
    from training.prepare.training_data import with_labels
    from training.run import TrainingJob, train

    reading, out = reading_of(options), options.out.resolve()
    recipe = with_labels(recipe, options.data, reading)
    work = options.work or RUNS / out.name
    problem = _name_problem(recipe, out) or _run_problem(options, out, work)
    if problem:
        return fail(problem, USAGE)
    accelerator = make_accelerator(resolve_device(options.device), options.log, RUNS / "logs" / out.name)
    with lock_outputs(accelerator, out, work):
        # the run that held the lock may have written them meanwhile
        if accelerator.is_main_process and (problem := _run_problem(options, out, work)):
            return fail(problem, USAGE)
        if options.restart and accelerator.is_main_process:
            shutil.rmtree(work, ignore_errors=True)
        if options.log:
            accelerator.init_trackers(recipe.id)
        job = TrainingJob(
            recipe, options.data, out, work, options.split, options.originals, options.resume, options.finish, reading
        )
        try:
            entry = train(job, accelerator)
        finally:
            accelerator.end_training()
    if entry is not None:  # None where another process writes and reports
        _print_result(entry, out, options.json)
    return OK


def _train_detector(options: argparse.Namespace) -> int:
    """Train a detector of cells; what is unfinished goes on."""
    recipe = load_detector_recipe(options.recipe, tuple(options.set))
    out = options.out.resolve()
    work = options.work or RUNS / out.name
    if options.data is None:
        return fail(
            f"Name the folder of fields with boxes: --data FOLDER. {recipe.id} was trained on {recipe.data.set}.", USAGE
        )
    if not ID.match(out.name):
        return fail(NO_NAME.format(out.name), USAGE)
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


def _name_problem(recipe: Recipe, out: Path) -> str | None:
    """Sentence saying why the entry cannot have the name of the folder `out`."""
    endings = [ending for ending in (SCRATCH + PUBLISHED, SCRATCH, PUBLISHED) if recipe.id.endswith(ending)]
    if endings and not out.name.endswith(endings[0]):
        return f"End the entry's name in {endings[0]}, so that it is not mistaken for another: --out {out}{endings[0]}"
    if not ID.match(out.name):
        return NO_NAME.format(out.name)
    return None


def _run_problem(options: argparse.Namespace, out: Path, work: Path) -> str | None:
    """Sentence saying why no run can be started, resumed or finished."""
    from training.fit.averaging import has_unfinished_run

    unfinished = has_unfinished_run(work)
    continued = options.resume or options.finish
    if unfinished and not (continued or options.restart):
        return f"There is an unfinished run in {work}. Add --resume to continue it, or --restart to start again."
    if options.finish and not unfinished:
        return f"There is no unfinished run in {work}."
    if options.resume and not unfinished:
        return f"There is nothing to resume: no unfinished run is in {work}. Leave --resume out to train."
    try:
        check_target(out, options.restart or continued, (CONFIG,), [options.data] if options.data else [])
    except ExistsError as error:
        return str(error)
    return None


def _print_result(entry: Entry, out: Path, as_json: bool) -> None:
    test = next(b for b in entry.evaluation.benchmarks.values() if b.role == "test")
    accuracy = test.metrics["accuracy"]
    print_message(f"{out}: test accuracy {accuracy.value:.4f} ({accuracy.low:.4f} to {accuracy.high:.4f}).")
    print_message(f"To see it in the app: HEMAZOO_ZOO={out.parent} make demo")
    if as_json:
        print(json.dumps(summary(entry)))
