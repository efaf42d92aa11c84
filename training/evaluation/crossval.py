"""How good is a recipe on every cell of a data set? Grouped k-fold: who answers for a cell never saw it.

The folds' entries are kept in a folder and gone on with; what they answer out of fold goes into an entry of the same
recipe, as a benchmark of its own: it tells of the recipe, not of that entry's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from accelerate import Accelerator

from training.audit.report import look_for_copies
from training.fit.averaging import has_unfinished_run
from training.prepare.dataset import TrainingDataError
from training.prepare.splits import Table, kfold_split, make_manifest, parts_of, table_of, write_manifest
from training.publish.card import renew_card
from training.publish.export import record
from training.recipe import Recipe, load_recipe
from training.run import TrainingJob, train
from zoo.benchmarks import CROSS_VALIDATION
from zoo.cache import cache_folder
from zoo.data import DataSet, read_dataset
from zoo.entry import EVALUATION, Entry, load_entry, read_predictions
from zoo.entry.write import ScoredBenchmark, update_benchmark
from zoo.scores.calibration import scaling_of

Say = Callable[[object], None]


@dataclass(frozen=True)
class Plan:
    """A cross-validation: `place` holds a folder a fold, `folds` of them; `originals` as in `TrainingJob`."""

    recipe: Recipe
    data: Path
    place: Path
    folds: int
    originals: Path | None = None


def crossval(plan: Plan, accelerator: Accelerator, say: Say) -> pd.DataFrame:
    """Train every fold that is not there yet; returns all out-of-fold predictions, one row a picture.

    Raises DataError where a class has fewer cells than folds, and whatever training raises.
    """
    manifests = write_folds(plan)
    tables = []
    for number, manifest in enumerate(manifests):
        folder = plan.place / f"fold-{number}"
        for recipe in _with_base(plan.recipe):
            if (folder / recipe.id / EVALUATION).exists():
                continue
            say(f"== fold {number + 1} of {plan.folds}: {recipe.id}")
            work = folder / f"{recipe.id}.work"
            resume = has_unfinished_run(work)
            train(
                TrainingJob(recipe, plan.data, folder / recipe.id, work, manifest, plan.originals, resume), accelerator
            )
        tables.append(tested(load_entry(folder / plan.recipe.id)))
    return pd.concat(tables, ignore_index=True).sort_values("file", ignore_index=True)


def write_folds(plan: Plan) -> list[Path]:
    """A manifest a fold, all of one table of cells; those that are there are kept."""
    paths = [plan.place / f"fold-{number}" / "split.json" for number in range(plan.folds)]
    if all(path.exists() for path in paths):
        return paths
    whole = read_dataset(plan.data)
    wanted = set(plan.recipe.labels) | set(plan.recipe.data.labels)
    data = _official(whole.where(lambda item: item.label in wanted))
    measured, _, cells = look_for_copies(data, cache_folder(), plan.originals)
    table: Table = table_of(data, measured, cells)
    val, seed = plan.recipe.data.val_fraction, plan.recipe.seed
    shares = (1 - val - 1 / plan.folds, val, 1 / plan.folds)
    for number, path in enumerate(paths):
        split = kfold_split(table, plan.folds, number, val, seed)
        write_manifest(path, make_manifest(data, table, split, "kfold", seed, shares, number, plan.folds))
    return paths


def tested(entry: Entry) -> pd.DataFrame:
    """An entry's predictions on its own test split."""
    name = next(name for name, b in entry.evaluation.benchmarks.items() if b.role == "test")
    return read_predictions(entry, name)


def add(entry: Entry, plan: Plan, table: pd.DataFrame, device: str) -> str:
    """Put out-of-fold predictions into an entry; returns the benchmark's name.

    Raises TrainingDataError if the entry was made by another recipe.
    """
    if entry.recipe.get("id") != plan.recipe.id:
        raise TrainingDataError(f"{entry.id} was not made by {plan.recipe.id}: its folds would tell nothing of it.")
    name = f"{plan.recipe.data.name}{CROSS_VALIDATION}"
    told = {
        "title": f"{plan.recipe.data.name}, grouped {plan.folds}-fold cross-validation",
        "role": "test",
        "data": plan.recipe.data.credit,
        "split_hash": "",
        "leaky": False,
        "leak_share": 0.0,
        "notes": [
            f"Out-of-fold answers of {plan.folds} models of this recipe, each trained without the cells it answers "
            "for; they tell of the recipe, not of these very weights."
        ],
        "seed": plan.recipe.seed,
        "device": device,
    }
    scored = record(table[["file", "cell", "label", *entry.labels]], scaling_of(entry), told)
    update_benchmark(entry.folder, name, ScoredBenchmark(scored, table))
    renew_card(entry.folder)
    return name


def _official(data: DataSet) -> DataSet:
    """Without pictures that stand outside of the data set's own TRAIN, VAL and TEST, where it has these."""
    inside = {item.file for item, part in zip(data.items, parts_of(data), strict=True) if part}
    return data.where(lambda item: item.file in inside) if inside else data


def _with_base(recipe: Recipe) -> list[Recipe]:
    """The recipe, after the one whose network its head needs."""
    base = recipe.head.of if recipe.head else None
    return [load_recipe(base), recipe] if base else [recipe]
