"""Rows of benchmarks: the rules by which the CSV files in `zoo/benchmarks/sets` were written, as their TOML files say.

The same data give the same rows, which a test on the real pictures checks. A changed rule is a new version of its
benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from training.prepare.dataset import Prepared, TrainingDataError, prepare, read_labelled
from training.prepare.laboratories import grouping_of, subjects
from training.prepare.splits import Split
from training.prepare.training_data import DataOptions, split_pictures
from training.recipe import Clean, load_recipe
from zoo.benchmarks import BOX, COLUMNS, Definition, get_benchmark, get_definition
from zoo.benchmarks.thumbnails import FOLDER as THUMBNAILS
from zoo.benchmarks.thumbnails import write_thumbnails
from zoo.cache import cache_folder
from zoo.cli.common import print_message
from zoo.data import FileSource, Item, read_dataset
from zoo.data.registry import DataSetInfo, get_dataset

SAMPLE_SEED = 5
GROUPED = ("column", "folder", "file")  # groupings of independent patients or slides with cells of several kinds


def rows_of(name: str, root: Path) -> pd.DataFrame:
    """Make the rows of the benchmark `name` from the data sets under `root`. Raises DataError."""
    definition = get_definition(name)
    if definition.part == "sample":
        return sample(get_benchmark(definition.rows).rows, definition.per_class, SAMPLE_SEED)
    if definition.rows:
        return rows_of(definition.rows, root)
    if definition.part == "test":
        return test_side(definition.recipe, root)
    if definition.part == "frames":
        return crops(definition, root)
    return whole(definition.data_set, root, definition.labels)


def renew_thumbnails(name: str, root: Path) -> int:
    """Write the thumbnails of the benchmark `name` into the program; returns their number.

    Raises:
        DataError: The data set does not allow it, or pictures are missing under `root`.
    """
    benchmark = get_benchmark(name)
    info = benchmark.data_set
    if benchmark.definition.corruptions or not all(map(info.may_be_published, benchmark.rows["file"])):
        raise TrainingDataError(f"Thumbnails of {name} may not be published: see `thumbnails` in {info.name}.toml.")
    pictures = ((file, source.image()) for file, _, _, source in benchmark.pictures(root))
    return write_thumbnails(THUMBNAILS / f"{name}.zip", pictures, benchmark.credit)


def test_side(recipe_id: str, root: Path) -> pd.DataFrame:
    """The test side of a recipe's split."""
    prepared, split = _split_of(recipe_id, root)
    items = [(prepared.data.items[row], split.cells[row]) for row in split.rows["test"]]
    return _table([(item.file, cell, item.label) for item, cell in items])


def whole(info: DataSetInfo, root: Path, labels: list[str]) -> pd.DataFrame:
    """Every picture of some classes: a cell of its own, or in the group (patient, slide) that the data set names."""
    items = [item for item in read_dataset(root / info.place).items if item.label in labels]
    group_of = grouping_of(info, root)[0] if info.cells.by in GROUPED else _own_cell
    return _table([(item.file, group_of(item), item.label) for item in items])


def _own_cell(item: Item) -> str:
    return str(Path(item.file).with_suffix(""))


def crops(definition: Definition, root: Path) -> pd.DataFrame:
    """Labelled cells with their boxes, without those on frames whose copies the benchmark's recipe trains on."""
    prepared, split = _split_of(definition.recipe, root)
    # a field that was photographed twice is one cell under two names
    first = subjects(load_recipe(definition.recipe).data.name)
    cells = zip(split.cells, prepared.data.items, strict=True)
    trained = {first.get(cell, cell) for cell, item in cells if item.split == "train"}
    info = definition.data_set
    rows, boxes = [], []
    for item in read_dataset(root / info.place).items:
        kind, cell = info.kind(item.label or ""), item.cell or ""
        box = item.source.box if isinstance(item.source, FileSource) else None
        if kind in definition.labels and first.get(cell, cell) not in trained and box:
            rows.append((item.file.partition("#")[0], item.cell, kind))
            boxes.append(box)
    return pd.concat([_table(rows), pd.DataFrame(boxes, columns=list(BOX))], axis=1)


def _split_of(recipe_id: str, root: Path) -> tuple[Prepared, Split]:
    """A recipe's pictures and how it splits them; training pictures are not cleaned, which changes no test side."""
    recipe = load_recipe(recipe_id).model_copy(update={"clean": Clean()})
    data = root / get_dataset(recipe.data.name).place
    print_message(
        f"Splitting {data} as {recipe_id} does. The first time, copies among its pictures are looked for, which takes "
        f"minutes; what is found is kept in {cache_folder()}."
    )
    prepared = prepare(read_labelled(data, recipe.data.labels or None), recipe.data.packed, recipe.data.crop)
    return prepared, split_pictures(recipe, DataOptions(data), prepared)


def sample(rows: pd.DataFrame, per_class: int, seed: int) -> pd.DataFrame:
    """At most `per_class` rows of each class, spread over the source cells as evenly as possible."""
    mixed = rows.sample(frac=1, random_state=int(np.random.default_rng(seed).integers(2**32)))
    turn = mixed.groupby("cell").cumcount()  # takes first pictures of all cells, then second ones, and so on
    order = mixed.assign(turn=turn).sort_values("turn", kind="stable")
    return order.groupby("label").head(per_class).drop(columns="turn").sort_values("file", ignore_index=True)


def _table(rows: Sequence[tuple[str, str | None, str | None]]) -> pd.DataFrame:
    if not rows:
        raise TrainingDataError("There is no picture of this benchmark here. Check the data folder.")
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("file", ignore_index=True)
