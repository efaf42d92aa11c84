"""Cross-validate a recipe on grouped folds.

Trains the recipe once per fold, with all pictures of a cell in the same fold, and keeps each fold's predictions for the
cells that it was not trained on. If interrupted, run the same command again to continue.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.common import (
    INTERRUPTED_RESUME,
    RECIPE_HELP,
    RUNS,
    add_device,
    add_json,
    add_originals,
    add_reading,
    add_recipe_changes,
    add_work,
    find_entry,
    lock_outputs,
    reading_of,
)
from training.recipe import load_recipe
from zoo.benchmarks import scoring
from zoo.cli.common import OK, USAGE, fail, print_message
from zoo.lazy import lazy_module
from zoo.scores.metrics import as_dict
from zoo.scores.temperature import AS_STORED
from zoo.serving.devices import device_name, resolve_device

if TYPE_CHECKING:
    from training.evaluation import crossval
else:
    crossval = lazy_module("training.evaluation.crossval")

INTERRUPTED_MESSAGE = INTERRUPTED_RESUME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("recipe", help=f"{RECIPE_HELP}; for a classical head, its network is trained in each fold too")
    parser.add_argument("--data", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--into", metavar="ENTRY", help="entry of the same recipe that keeps the predictions")
    parser.add_argument("--folds", type=int, default=5, help="(default: %(default)s)")
    add_recipe_changes(parser)
    add_originals(parser)
    add_reading(parser)
    add_work(parser, "folder of the folds (default: runs/crossval/ID)")
    add_device(parser)
    add_json(parser, "the scores")


def run(options: argparse.Namespace) -> int:
    """Train the folds and print the scores over all of them."""
    recipe = load_recipe(options.recipe, options.set)  # refuses a wrong key before torch is imported
    from training.fit.processor.devices import make_accelerator
    from training.prepare.training_data import DataOptions, find_originals, with_labels

    reading = reading_of(options)
    recipe = with_labels(recipe, options.data, reading)
    if recipe.ensemble:
        return fail(f"{recipe.id} is an ensemble: cross-validate its members.", USAGE)
    if options.folds < 2:
        return fail("At least 2 folds are needed.", USAGE)
    place = options.work or RUNS / "crossval" / recipe.id
    accelerator = make_accelerator(resolve_device(options.device))
    originals = find_originals(recipe, DataOptions(options.data, originals=options.originals))
    plan = crossval.Plan(recipe, options.data, place.resolve(), options.folds, originals, reading)
    with lock_outputs(accelerator, plan.place):
        predictions = crossval.crossval(plan, accelerator, print_message)
    scores = scoring.intervals(scoring.score(predictions, list(predictions.columns[3:]), AS_STORED))
    for name in ("accuracy", "balanced_accuracy", "accuracy_by_cell"):
        score = scores[name]
        print_message(
            f"{scoring.METRICS[name].title} {100 * score.value:.1f} % ({100 * score.low:.1f} to {100 * score.high:.1f})"
        )
    if options.into:
        entry = find_entry(options.into, usable=False)
        benchmark = crossval.add_to_entry(entry, plan, predictions, device_name(accelerator.device))
        print_message(f"Stored in {entry.id} as {benchmark}.")
    if options.json:
        print(json.dumps(as_dict(scores)))
    return OK
