"""Train a recipe without each of its laboratories and score it there.

Leave one source (laboratory) out: a recipe of several laboratories is trained once without each of them and scored on
that laboratory's training pictures. Recipes are chosen by these scores, and they tell how confident answers for an
unseen laboratory should be. If interrupted, run the same command again to continue.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.common import (
    INTERRUPTED_RESUME,
    RECIPE_HELP,
    ROOT_HELP,
    RUNS,
    add_device,
    add_json,
    add_recipe_changes,
    find_entry,
    lock_outputs,
)
from training.recipe import load_recipe
from zoo.cli.common import OK, USAGE, fail, print_message
from zoo.lazy import lazy_module
from zoo.serving.devices import device_name, resolve_device

if TYPE_CHECKING:
    from training.evaluation import leave_one_lab_out
else:
    leave_one_lab_out = lazy_module("training.evaluation.leave_one_lab_out")

INTERRUPTED_MESSAGE = INTERRUPTED_RESUME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("recipe", help=f"{RECIPE_HELP}; one that mixes laboratories (data.mix)")
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help=ROOT_HELP)
    parser.add_argument("--into", metavar="ENTRY", help="entry of the same recipe that keeps the predictions")
    add_recipe_changes(parser)
    parser.add_argument("--place", type=Path, metavar="DIR", help="folder of the models (default: runs/loso/ID)")
    add_device(parser)
    add_json(parser, "the scores")


def run(options: argparse.Namespace) -> int:
    """Train without each laboratory and print the scores there."""
    recipe = load_recipe(options.recipe, options.set)  # refuses a wrong key before torch is imported
    from training.fit.devices import make_accelerator

    if recipe.ensemble:
        return fail(f"{recipe.id} is an ensemble: leave laboratories out for its members.", USAGE)
    place = options.place or RUNS / "loso" / recipe.id
    accelerator = make_accelerator(resolve_device(options.device))
    with lock_outputs(accelerator, place.resolve()):
        result = leave_one_lab_out.leave_one_laboratory_out(
            recipe, options.data, place.resolve(), accelerator, print_message
        )
    for laboratory, scores in result.scores.items():
        score = scores["balanced_accuracy"]
        interval = f"{100 * score['low']:.1f} to {100 * score['high']:.1f}"
        print_message(f"{laboratory}: balanced accuracy {100 * score['value']:.1f} % ({interval})")
    print_message(f"temperature for an unseen laboratory: {result.temperature:.2f}")
    if options.into:
        entry = find_entry(options.into, usable=False)
        benchmark = leave_one_lab_out.add_to_entry(entry, recipe, result, device_name(accelerator.device))
        print_message(f"Stored in {entry.id} as {benchmark}.")
    if options.json:
        record = {"temperature": result.temperature, "labels": result.labels, "laboratories": result.scores}
        print(json.dumps(record))
    return OK
