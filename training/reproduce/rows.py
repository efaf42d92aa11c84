"""Which pictures is a benchmark made of? The rules by which the CSV files in `zoo/benchmarks` were written.

Run again on the same data they give the same rows (a test on the real pictures says so); a rule that changes is a new
version of its benchmark.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from training.prepare.dataset import TrainingDataError, prepare, read_labelled
from training.prepare.laboratories import subjects
from training.recipe import load_recipe
from training.run import Job, make_split
from zoo.benchmarks import COLUMNS, get_benchmark, get_definition
from zoo.data import FileSource, read_dataset

TESTS = {"dataset2-test": "wbc4-efficientnet-lite0", "pbc-test": "pbc8-efficientnet-lite0"}  # their recipes
SAMPLES = {"dataset2-test-corrupted": ("dataset2-test", 40), "pbc-test-corrupted": ("pbc-test", 25)}  # images a class
SEED = 5


def rows_of(name: str, root: Path) -> pd.DataFrame:
    """The rows of a benchmark made from the data sets under `root`. Raises DataError."""
    if get_definition(name).rows:
        return rows_of(get_definition(name).rows, root)
    if name in TESTS:
        return tested(TESTS[name], root)
    if name in SAMPLES:
        of, each = SAMPLES[name]
        return sample(get_benchmark(of).rows, each, SEED)
    if name == "bccd-crops":
        return crops(root)
    return whole(root / get_definition(name).place, get_definition(name).labels)


def tested(recipe_id: str, root: Path) -> pd.DataFrame:
    """The test side of a recipe's split."""
    recipe = load_recipe(recipe_id)
    data = root / recipe.data.name
    prepared = prepare(read_labelled(data, recipe.data.labels or None), recipe.data.packed, recipe.data.crop)
    split = make_split(Job(recipe, data, Path(), Path()), prepared)
    items = [(prepared.data.items[row], split.cells[row]) for row in split.rows["test"]]
    return _table([(item.file, cell, item.label) for item, cell in items])


def whole(folder: Path, labels: list[str]) -> pd.DataFrame:
    """Every picture of some classes; each is a cell of its own."""
    items = [item for item in read_dataset(folder).items if item.label in labels]
    return _table([(item.file, str(Path(item.file).with_suffix("")), item.label) for item in items])


def crops(root: Path) -> pd.DataFrame:
    """BCCD's labelled white cells with their boxes, but for frames that dataset2's TRAIN was made of."""
    recipe = load_recipe(TESTS["dataset2-test"])
    data = root / recipe.data.name
    prepared = prepare(read_labelled(data, recipe.data.labels or None), recipe.data.packed, recipe.data.crop)
    split = make_split(Job(recipe, data, Path(), Path()), prepared)
    # fields that were photographed twice are one cell under two names
    one = subjects()
    cells = zip(split.cells, prepared.data.items, strict=True)
    trained = {one.get(cell, cell) for cell, item in cells if item.split == "train"}
    labels = set(get_definition("bccd-crops").labels)
    found, boxes = [], []
    for item in read_dataset(root / "bccd").items:
        label = (item.label or "").lower()
        if (
            label in labels
            and one.get(item.cell or "", item.cell) not in trained
            and isinstance(item.source, FileSource)
            and item.source.box
        ):
            found.append((item.file.partition("#")[0], item.cell, label))
            boxes.append(item.source.box)
    sides = pd.DataFrame(boxes, columns=["left", "top", "right", "bottom"])
    return pd.concat([_table(found), sides], axis=1)


def sample(rows: pd.DataFrame, each: int, seed: int) -> pd.DataFrame:
    """`each` rows a class at the most, spread over the source cells as evenly as they allow."""
    mixed = rows.sample(frac=1, random_state=np.random.default_rng(seed).integers(2**32))
    turn = mixed.groupby("cell").cumcount()  # each cell's first picture, then the seconds, and so on
    order = mixed.assign(turn=turn).sort_values("turn", kind="stable")
    return order.groupby("label").head(each).drop(columns="turn").sort_values("file", ignore_index=True)


def _table(rows: list[tuple[str, str | None, str | None]]) -> pd.DataFrame:
    if not rows:
        raise TrainingDataError("No picture belongs to this benchmark; is this the right data folder?")
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("file", ignore_index=True)
