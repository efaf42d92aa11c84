"""Train a recipe without each of its laboratories and score it there.

Leave one source (laboratory) out: a recipe of several laboratories is trained without each of them, and scored on
that laboratory's training pictures and on the validation laboratories below ROOT, which are always out. Recipes are
chosen by these scores, and they tell how confident answers for an unseen laboratory should be. If interrupted, run the
same command again to continue.

  python -m training loso champion8 --data ROOT --seeds 3
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
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
    add_work,
    find_entry,
    lock_outputs,
)
from training.recipe import load_recipe
from zoo.cli.common import OK, USAGE, fail, print_message
from zoo.lazy import lazy_module
from zoo.scores.sample.samples import ALIKE
from zoo.serving.devices import device_name, resolve_device

if TYPE_CHECKING:
    from training.evaluation import leave_one_lab_out, left_out_scores
else:
    leave_one_lab_out = lazy_module("training.evaluation.leave_one_lab_out")
    left_out_scores = lazy_module("training.evaluation.left_out_scores")

INTERRUPTED_MESSAGE = INTERRUPTED_RESUME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("recipe", help=f"{RECIPE_HELP}; one that mixes laboratories (data.mix)")
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help=ROOT_HELP)
    parser.add_argument("--into", metavar="ENTRY", help="entry of the same recipe that keeps the predictions")
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="models without each laboratory: the recipe's own seed and those after it (default: %(default)s)",
    )
    add_recipe_changes(parser)
    add_work(parser, "folder of the models (default: runs/loso/ID)")
    add_device(parser)
    add_json(parser, "the scores")


def run(options: argparse.Namespace) -> int:
    """Train without each laboratory and print the scores there."""
    recipe = load_recipe(options.recipe, options.set)  # refuses a wrong key before torch is imported
    from training.fit.processor.devices import make_accelerator

    if recipe.ensemble:
        return fail(f"{recipe.id} is an ensemble: leave laboratories out for its members.", USAGE)
    if options.seeds < 1:
        return fail("--seeds is a whole number from 1.", USAGE)
    place = options.work or RUNS / "loso" / recipe.id
    device = resolve_device(options.device)
    accelerator = make_accelerator(device)
    with lock_outputs(accelerator, place.resolve()):
        models = leave_one_lab_out.leave_one_laboratory_out(
            recipe, options.data, place.resolve(), accelerator, print_message, options.seeds
        )
        result = leave_one_lab_out.score_unseen_laboratories(leave_one_lab_out.predictions_of(models))
        found = left_out_scores.score_left_out(models)
        found += _validation_scores(models, options)
    _print_scores(result, found)
    if options.into:
        entry = find_entry(options.into, usable=False)
        benchmark = leave_one_lab_out.add_to_entry(entry, recipe, result, device_name(accelerator.device))
        print_message(f"Stored in {entry.id} as {benchmark}.")
    if options.json:
        record = {"temperature": result.temperature, "labels": result.labels, "laboratories": result.scores}
        print(json.dumps(record | left_out_scores.as_record(found)))
    return OK


def _validation_scores(
    models: Sequence[left_out_scores.LeftOutModel], options: argparse.Namespace
) -> list[left_out_scores.LaboratoryScores]:
    from zoo.serving.runtime import Runtime

    with Runtime(options.device) as runtime:
        return left_out_scores.score_validation(models, options.data, runtime, print_message)


def _print_scores(
    result: leave_one_lab_out.UnseenLaboratories, found: Sequence[left_out_scores.LaboratoryScores]
) -> None:
    for laboratory, scores in result.scores.items():
        score = scores["balanced_accuracy"]
        interval = f"{100 * score['low']:.1f} to {100 * score['high']:.1f}"
        print_message(f"{laboratory}: balanced accuracy {100 * score['value']:.1f} % ({interval})")
    print_message(f"temperature for an unseen laboratory: {result.temperature:.2f}")
    print_message("Balanced accuracy asked among all kinds, by seed:")
    for one in found:
        role = "left out" if one.role == "training" else "validation"
        texts = [
            f"{name} {', '.join(f'{100 * value:.1f}' for value in one.by_seed(which))} %"
            for name, which in zip((ALIKE, one.sample), left_out_scores.ASKED, strict=True)
        ]
        print_message(f"  {one.laboratory} ({role}, {len(one.kinds)} kinds): {'; '.join(texts)}")
    for title, which in zip(("alike", "with the sample"), left_out_scores.ASKED, strict=True):
        total = left_out_scores.summary(found, which)
        spread = "" if math.isnan(total.spread) else f", spread over seeds {100 * total.spread:.1f}"
        worst = f"worst {100 * total.worst:.1f} % ({total.worst_laboratory})"
        print_message(f"{title}: mean {100 * total.mean:.1f} %, {worst}{spread}")
