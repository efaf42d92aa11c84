"""A manifest: a CSV or Parquet table of file and label (also cell, split, origin), or a split that `training` wrote."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoo.data.table import DataError, DataSet, FileSource, Item, split_name

NAME = "a manifest (.csv or .parquet with the columns file and label)"
ORDER = 30
FILE = ("file", "file_name", "filename", "path", "image")
LABEL = ("label", "class", "category")
CELL = ("cell", "source_cell", "group")


def matches(path: Path) -> bool:
    """A .csv file, or a .parquet file whose pictures are named, not held."""
    if path.suffix.lower() == ".csv":
        return path.is_file()
    return path.suffix.lower() == ".parquet" and path.is_file() and not holds_pictures(path)


def holds_pictures(path: Path) -> bool:
    """Whether a Parquet file keeps pictures in itself, as Hub data sets do."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError):
        return False
    return any(pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0 for field in schema)


def read(path: Path) -> DataSet:
    """Read the manifest; paths are relative to its folder and must stay below it or be named in full.

    Raises DataError if it cannot be read or lacks a column. Rows without a file or label are reported.
    """
    table = _table(path)
    columns = {name.lower().strip(): name for name in table.columns}
    file, label = _column(columns, FILE), _column(columns, LABEL)
    if file is None or label is None:
        there = ", ".join(map(str, table.columns)) or "none"
        raise DataError(f"{path.name} has the columns {there}; it needs file and label.")
    cell, split, origin = _column(columns, CELL), columns.get("split"), columns.get("origin")
    items, problems, seen = [], {}, set()
    for number, row in enumerate(table.to_dict("records"), 1):
        name = _text(row[file])
        if name is None:
            problems[f"row {number}"] = "It names no file."
            continue
        if name in seen:
            problems[f"row {number}"] = f"It names {name} a second time; the first row counts."
            continue
        seen.add(name)
        given = _text(row[split]) if split else None
        items.append(
            Item(
                PurePosixPath(name.replace("\\", "/")).as_posix(),
                FileSource(path.parent / name),
                _text(row[label]),
                _text(row[cell]) if cell else None,
                (split_name(given) or given) if given else None,
                (_text(row[origin]) if origin else None) or path.stem,
            )
        )
    return DataSet(path.stem, path, "manifest", tuple(items), problems)


def _table(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path).to_pandas()
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=None, engine="python")
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path.name} is empty.") from error
    except (pa.ArrowException, pd.errors.ParserError, csv.Error, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path.name} is no table that can be read. Save it as CSV in UTF-8, or as Parquet.") from error


def _column(columns: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((columns[name] for name in names if name in columns), None)


def _text(value: Any) -> str | None:
    """The value as text; empty, missing and not-a-number mean None."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text or None


def hub_features(schema: pa.Schema) -> dict[str, Any]:
    """Description of a table's columns by the Hub's `datasets` library; empty if it did not write the table."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(info.get("info", {}).get("features", {}))
    except (ValueError, AttributeError, TypeError):
        return {}
