"""Search a recipe's settings on the validation split.

Searches with Optuna; the test split is not touched. Start the same command several times, on any machine that reaches
the storage: the workers share the trials, and the trial of a worker that died is taken over by another.
"""

from __future__ import annotations

import argparse
import shlex
from functools import partial
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
    reading_of,
)
from training.prepare.splits import Split
from training.recipe import Recipe, load_recipe
from zoo.cli.common import OK, fail, print_message
from zoo.lazy import lazy_module
from zoo.serving.devices import resolve_device

if TYPE_CHECKING:
    from training import sweep
    from training.fit.batches import Arrays
    from training.prepare.training_data import TrainingData
else:
    sweep = lazy_module("training.sweep")

INTERRUPTED_MESSAGE = INTERRUPTED_RESUME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("recipe", help=RECIPE_HELP)
    parser.add_argument(
        "--space", type=Path, required=True, metavar="FILE", help="TOML file of the settings to search, and how"
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="any storage URL of Optuna, which workers may share (default: sqlite:///runs/sweeps/NAME.db)",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help="the data set's folder or file")
    add_originals(parser)
    add_reading(parser)
    parser.add_argument(
        "--split", type=Path, metavar="MANIFEST", help="a split made by `split`, instead of the recipe's"
    )
    parser.add_argument("--published", action="store_true", help="follow the published protocol, leaks included")
    parser.add_argument("--name", help="of the study (default: the recipe's id)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of table and plot (default: runs/sweeps/NAME)")
    add_device(parser)
    add_json(parser, "all trials")


def run(options: argparse.Namespace) -> int:
    """Run trials until the number of the space is reached, then write table and plot."""
    from training.fit.processor.devices import make_accelerator

    space = sweep.read_space(options.space)
    load = partial(load_recipe, options.recipe, published=options.published)
    sweep.check_keys(space, load)
    name = options.name or load().id
    out = options.out or RUNS / "sweeps" / name
    accelerator = make_accelerator(resolve_device(options.device))
    study = sweep.open_study(space, options.storage or _default_storage(name), name)
    sweep.run(study, space, load, _DataCache(options), out, accelerator, print_message)
    sweep.write_report(study, space, out)
    trials = sweep.table(study)
    complete = trials[trials["state"] == "complete"]
    if complete.empty:
        return fail("No trial was completed: each one diverged or was pruned. Widen the space.")
    best = " ".join(f"--set {shlex.quote(change)}" for change in sweep.changes_of(space, study.best_params))
    print_message(f"Best of {len(complete)}: {space.metric} {study.best_value:.4f} (trial {study.best_trial.number}).")
    recipe = f"{options.recipe} --published" if options.published else options.recipe
    print_message(f"Next: python -m training train {recipe} {best} --data {options.data} --out ENTRY")
    print_message(f"Table and plot: {out / 'trials.csv'}, {out / 'trials.html'}")
    if options.json:
        print(trials.to_json(orient="records"))
    return OK


def _default_storage(name: str) -> str:
    """URL of a study's own file, among the running states."""
    folder = (RUNS / "sweeps").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / name}.db"


class _DataCache:
    """Data and split of each trial's recipe, read once for all trials that share them."""

    def __init__(self, options: argparse.Namespace) -> None:
        from training.prepare.training_data import DataOptions

        self._options = DataOptions(options.data, options.split, options.originals, reading_of(options))
        self._kept: dict[str, TrainingData] = {}

    def __call__(self, recipe: Recipe) -> tuple[Recipe, Arrays, Split]:
        from training.prepare.training_data import load_training_data, with_labels

        recipe = with_labels(recipe, self._options.data, self._options.reading)
        # everything that decides what is read and how it is divided
        extras = f"{recipe.attributes} {recipe.augment.surroundings > 0}"
        key = f"{recipe.data} {recipe.clean} {recipe.balance} {recipe.seed} {extras}"
        if key not in self._kept:
            self._kept[key] = load_training_data(recipe, self._options)
        return recipe, self._kept[key].arrays, self._kept[key].split
