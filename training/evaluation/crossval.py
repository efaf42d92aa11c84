"""Grouped k-fold cross-validation of a recipe.

Each fold trains a model without the cells that it predicts. The folds' entries are kept in a folder, so that an
interrupted cross-validation can be resumed. The out-of-fold predictions go into an entry of the same recipe as a
benchmark of their own; they describe the recipe, not that entry's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from accelerate import Accelerator

from training.audit.report import look_for_copies
from training.fit.averaging import has_unfinished_run
from training.prepare.dataset import TrainingDataError, map_labels
from training.prepare.manifest import make_manifest, write_manifest
from training.prepare.splits import Table, kfold_split, parts_of, table_of
from training.publish.card import renew_card
from training.publish.records import benchmark_record
from training.recipe import Recipe, load_recipe
from training.run import TrainingJob, train
from zoo.benchmarks import CROSS_VALIDATION
from zoo.cache import cache_folder
from zoo.data import AS_FOUND, DataSet, ReadOptions, read_dataset
from zoo.entry import EVALUATION, Entry, load_entry, read_predictions
from zoo.entry.write import ScoredBenchmark, update_benchmark
from zoo.scores.calibration import scaling_of

Log = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """A cross-validation.

    Attributes:
        recipe: The recipe to train.
        data: Folder of the data set.
        place: Folder that holds one folder a fold.
        folds: Number of folds.
        originals: Folder of the frames that augmented pictures were made from, to find copies of one cell.
        reading: How the data set is read.
    """

    recipe: Recipe
    data: Path
    place: Path
    folds: int
    originals: Path | None = None
    reading: ReadOptions = AS_FOUND


def crossval(plan: Plan, accelerator: Accelerator, log: Log) -> pd.DataFrame:
    """Train every fold that does not exist yet.

    Args:
        plan: The cross-validation.
        accelerator: Where to train.
        log: Called with a line for each model that is trained.

    Returns:
        All out-of-fold predictions, one row a picture, sorted by file.

    Raises:
        DataError: A class has fewer cells than there are folds, or training refuses the data.
    """
    manifests = write_folds(plan)
    tables = []
    for number, manifest in enumerate(manifests):
        folder = plan.place / f"fold-{number}"
        for recipe in _with_base(plan.recipe):
            out, work = folder / recipe.id, folder / f"{recipe.id}.work"
            if (out / EVALUATION).exists():
                continue
            log(f"== fold {number + 1} of {plan.folds}: {recipe.id}")
            resume = has_unfinished_run(work)
            train(
                TrainingJob(recipe, plan.data, out, work, manifest, plan.originals, resume, reading=plan.reading),
                accelerator,
            )
        tables.append(predictions_on_test(load_entry(folder / plan.recipe.id)))
    return pd.concat(tables, ignore_index=True).sort_values("file", ignore_index=True)


def write_folds(plan: Plan) -> list[Path]:
    """Write a split manifest for each fold, unless all exist.

    Args:
        plan: The cross-validation.

    Returns:
        Paths of the manifests, by fold.

    Raises:
        DataError: A class has fewer cells than there are folds.
    """
    paths = [plan.place / f"fold-{number}" / "split.json" for number in range(plan.folds)]
    if all(path.exists() for path in paths):
        return paths
    everything = read_dataset(plan.data, plan.reading)
    labels = map_labels(everything, plan.recipe.data.labels or None, plan.reading)
    data = _official(everything.where(lambda item: item.label in labels))
    measured, _, cells = look_for_copies(data, cache_folder(), plan.originals)
    table: Table = table_of(data, measured, cells)
    val, seed = plan.recipe.data.val_fraction, plan.recipe.seed
    fractions = (1 - val - 1 / plan.folds, val, 1 / plan.folds)
    for number, path in enumerate(paths):
        split = kfold_split(table, plan.folds, number, val, seed)
        write_manifest(path, make_manifest(data, table, split, "kfold", seed, fractions, number, plan.folds))
    return paths


def predictions_on_test(entry: Entry) -> pd.DataFrame:
    """An entry's predictions on its own test split."""
    name = next(name for name, b in entry.evaluation.benchmarks.items() if b.role == "test")
    return read_predictions(entry, name)


def add_to_entry(entry: Entry, plan: Plan, table: pd.DataFrame, device: str) -> str:
    """Write out-of-fold predictions into an entry.

    Args:
        entry: An entry of the same recipe.
        plan: The cross-validation.
        table: The out-of-fold predictions.
        device: Name of the device that computed them.

    Returns:
        Name of the benchmark.

    Raises:
        TrainingDataError: The entry was made by another recipe.
    """
    if entry.recipe.get("id") != plan.recipe.id:
        raise TrainingDataError(f"{entry.id} was not made by {plan.recipe.id}: these folds do not describe it.")
    name = f"{plan.recipe.data.name}{CROSS_VALIDATION}"
    description = {
        "title": f"{plan.recipe.data.name}, grouped {plan.folds}-fold cross-validation",
        "role": "test",
        "data": plan.recipe.data.credit,
        "split_hash": "",
        "leaky": False,
        "leak_share": 0.0,
        "notes": [
            f"Out-of-fold predictions of {plan.folds} models of this recipe, each trained without the cells that it "
            "predicts. They describe the recipe, not these weights."
        ],
        "seed": plan.recipe.seed,
        "device": device,
    }
    scored = benchmark_record(table[["file", "cell", "label", *entry.labels]], scaling_of(entry), description)
    update_benchmark(entry.folder, name, ScoredBenchmark(scored, table))
    renew_card(entry.folder)
    return name


def _official(data: DataSet) -> DataSet:
    """The data set without pictures outside its own TRAIN, VAL and TEST, where it has these."""
    inside = {item.file for item, part in zip(data.items, parts_of(data), strict=True) if part}
    return data.where(lambda item: item.file in inside) if inside else data


def _with_base(recipe: Recipe) -> list[Recipe]:
    """The recipe, after the recipe of the network that its head needs."""
    base = recipe.head.of if recipe.head else None
    return [load_recipe(base), recipe] if base else [recipe]
