"""A data-set repo of the Hugging Face Hub, fetched: Parquet files that hold the pictures' bytes and a label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from zoo.data.readers.manifest import LABEL, holds_pictures, hub_features
from zoo.data.table import DataError, DataSet, Item, natural, split_name
from zoo.imaging.decode import ImageError, decode

NAME = "a Hub data set (.parquet files that hold pictures)"
ORDER = 25


@dataclass(frozen=True)
class ParquetSource:
    """Row `row` of `column` in a Parquet file."""

    path: Path
    column: str
    row: int

    def content(self) -> bytes:
        """The stored file's bytes. Raises ImageError if the row is empty."""
        held = _column(self.path, self.column)[self.row].as_py()
        if not held or not held.get("bytes"):
            raise ImageError("The row holds no picture.")
        return held["bytes"]

    def image(self) -> Image.Image:
        """The decoded picture."""
        return decode(self.content())


def matches(path: Path) -> bool:
    """A Parquet file with pictures, or a folder with some (at most two levels down, as `data/train-00000.parquet`)."""
    return any(holds_pictures(file) for file in _files(path))


def read(path: Path) -> DataSet:
    """Read all Parquet files below `path`; the split is what each file's name begins with, or its folder's name."""
    items: list[Item] = []
    for file in _files(path):
        if holds_pictures(file):
            items += _items(path if path.is_dir() else path.parent, file)
    return DataSet(path.stem, path, "Parquet", tuple(items))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    found = [file for pattern in ("*.parquet", "*/*.parquet", "*/*/*.parquet") for file in path.glob(pattern)]
    return sorted(found, key=lambda p: natural(p.as_posix()))


def _items(root: Path, file: Path) -> list[Item]:
    try:
        schema = pq.read_schema(file)
        image = next(f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0)
        label = next((field.name for field in schema if field.name.lower() in LABEL), None)
        if label is None:
            raise DataError(f"{file.name} has the columns {', '.join(schema.names)}; one must be called label.")
        values = pq.read_table(file, columns=[label]).column(label).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file.name} is damaged. Fetch it again.") from error
    names = hub_features(schema).get(label, {}).get("names")
    split = split_name(file.stem.split("-")[0]) or split_name(file.parent.name)
    prefix = file.relative_to(root).with_suffix("").as_posix()
    return [
        Item(f"{prefix}#{row}", ParquetSource(file, image, row), _label(value, names), None, split, root.name)
        for row, value in enumerate(values)
    ]


def _label(value: Any, names: list[str] | None) -> str | None:
    """The label's name; numbers are looked up in the names that the data set declares (-1 is none)."""
    if value is None or (names and isinstance(value, int) and not 0 <= value < len(names)):
        return None
    return names[value] if names and isinstance(value, int) else str(value)


def _column(file: Path, column: str) -> pa.ChunkedArray:
    try:
        facts = file.stat()
    except OSError as error:
        raise ImageError("The file is gone. Fetch it again.") from error
    return _load(file, column, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=4)
def _load(file: Path, column: str, changed: int, size: int) -> pa.ChunkedArray:
    """A column of the file; `changed` and `size` are part of the key, so that a replaced file is read again."""
    try:
        return pq.read_table(file, columns=[column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise ImageError("The file is damaged. Fetch it again.") from error
