"""Named evaluation sets of fields: one TOML file each in `sets`, with the files in a CSV file of the same name."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict

from zoo.data import read_dataset
from zoo.data.kinds import name_labels, rename
from zoo.data.options import ReadOptions
from zoo.data.registry import get_dataset
from zoo.data.table import DataError
from zoo.detection.fields import Field, read_fields
from zoo.detection.found import Found
from zoo.detection.objects import OBJECTS
from zoo.detection.scoring import COLUMNS
from zoo.entry import Entry, EntryError
from zoo.entry.files import predictions_file

FOLDER = Path(__file__).parent / "sets"


class Composed(BaseModel):
    """Fields to put together from those of a data set: how many, white cells in each, and the seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    fields: int
    white_cells: int
    seed: int


class Definition(BaseModel):
    """Content of a TOML file: title, data set, the layout it is read as, and what a reader should know."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    data: str
    layout: str = ""
    note: str = ""
    composed: Composed | None = None


@dataclass(frozen=True)
class FieldBenchmark:
    """A named evaluation set of fields."""

    name: str
    definition: Definition
    files: tuple[str, ...]

    def fields(self, root: Path) -> list[Field]:
        """Its fields, where `root` holds the data sets. Raises DataError if one is missing."""
        known = get_dataset(self.definition.data)
        folder = root / known.place
        options = ReadOptions(layout=self.definition.layout, labels=known.labels)
        data = read_dataset(folder, options=options)
        found = {item.label for item in data.items if item.label}
        fields = {field.file: field for field in read_fields(rename(data, name_labels(found, known.labels)))}
        missing = [file for file in self.files if file not in fields]
        if missing:
            raise DataError(f"{folder} lacks {len(missing)} fields of {self.name}, such as {missing[0]}.")
        return [fields[file] for file in self.files]


def field_benchmarks() -> dict[str, FieldBenchmark]:
    """Every evaluation set of fields by its name."""
    found = {}
    for path in sorted(FOLDER.glob("*.toml")):
        definition = Definition.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        files = pd.read_csv(path.with_suffix(".csv"))["file"]
        found[path.stem] = FieldBenchmark(path.stem, definition, tuple(files))
    return found


def read_found(entry: Entry, benchmark: str) -> pd.DataFrame:
    """Marked and found cells that are stored with an entry. Raises EntryError if there are none."""
    path = entry.folder / predictions_file(benchmark)
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise EntryError(f"{entry.id} holds no cells found in {benchmark}. Score it with --data.") from error
    if missing := set(COLUMNS) - set(table.columns):
        raise EntryError(f"{path.name} of {entry.id} lacks the column {min(missing)}.")
    return table


def result_rows(field: Field, image: Image.Image, found: Found) -> pd.DataFrame:
    """Marked and found cells of a field as rows with `COLUMNS`; one empty row where there are none."""
    marked = field.boxes(image.size)
    parts = [
        (True, marked, field.objects, np.ones(len(marked))),
        (False, found.boxes, [OBJECTS[number] for number in found.numbers], found.confidences),
    ]
    rows = [
        (field.file, is_marked, name, *(round(float(value), 1) for value in box), round(float(confidence), 4))
        for is_marked, boxes, names, confidences in parts
        for box, name, confidence in zip(boxes, names, confidences, strict=True)
    ]
    return pd.DataFrame(rows or [(field.file, False, "", *(np.nan,) * 5)], columns=list(COLUMNS))
