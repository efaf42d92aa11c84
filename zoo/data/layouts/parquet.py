"""A data-set repo of the Hugging Face Hub, fetched: Parquet files that hold the pictures' bytes and a label."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from PIL import Image

from zoo.bounded import ByteCache
from zoo.data.layouts.registry import Reading, layout
from zoo.data.options import ReadOptions
from zoo.data.table import DataError, Item, named, split_name
from zoo.data.tree import Stored, Tree
from zoo.imaging.decode import PictureError, decode
from zoo.lazy import lazy_module
from zoo.limits import DATA_MB

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pa = lazy_module("pyarrow")
    pq = lazy_module("pyarrow.parquet")

LABEL = ("label", "class", "category")
MAX_DEPTH = 3  # folders above a file, as in data/train-00000.parquet

_columns: ByteCache[pa.ChunkedArray] = ByteCache(lambda: DATA_MB.bytes, lambda column: column.nbytes)


@dataclass(frozen=True)
class ParquetSource:
    """Row `row` of `column` in a Parquet file."""

    file: Stored
    column: str
    row: int

    def content(self) -> bytes:
        """The stored file's bytes. Raises PictureError if the row is empty."""
        held = _column(self.file, self.column)[self.row].as_py()
        if not held or not held.get("bytes"):
            raise PictureError("The row holds no picture.")
        return held["bytes"]

    def image(self) -> Image.Image:
        """The decoded picture."""
        return decode(self.content())


@layout("parquet", "a Hub data set (.parquet files that hold pictures)")
def read_parquet(tree: Tree, options: ReadOptions) -> Reading | None:
    """All Parquet files that hold pictures; the split is what each file's name begins with, or its folder's name."""
    found = [name for name in tree.offered if name.lower().endswith(".parquet") and name.count("/") < MAX_DEPTH]
    if found and tree.stored(found[0]).data is not None:
        raise DataError(f"{found[0]} can only be read by the commands, not in the browser: python -m training audit.")
    files = {name: file for name in found if holds_pictures(file := tree.stored(name))}
    if not files:
        return None
    items = [item for name, file in files.items() for item in _items(tree.name, name, file)]
    return Reading(tree.name, "Parquet", f"{named(list(files), 3)} hold pictures", tuple(items))


def holds_pictures(file: Stored) -> bool:
    """Whether a Parquet file keeps pictures in itself, as Hub data sets do."""
    try:
        with file.open() as raw:
            schema = pq.read_schema(raw)
    except (pa.ArrowException, OSError):
        return False
    return any(pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0 for field in schema)


def hub_features(schema: pa.Schema) -> dict[str, Any]:
    """Description of a table's columns by the Hub's `datasets` library; empty if it did not write the table."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(info.get("info", {}).get("features", {}))
    except (ValueError, AttributeError, TypeError):
        return {}


def _items(origin: str, place: str, file: Stored) -> list[Item]:
    try:
        with file.open() as raw:
            schema = pq.read_schema(raw)
        image = next(f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0)
        label = next((field.name for field in schema if field.name.lower() in LABEL), None)
        if label is None:
            raise DataError(f"{file.name} has the columns {', '.join(schema.names)}; one must be called label.")
        with file.open() as raw:
            values = pq.read_table(raw, columns=[label]).column(label).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file.name} is damaged. Fetch it again.") from error
    names = hub_features(schema).get(label, {}).get("names")
    path = PurePosixPath(place)
    split = split_name(path.stem.split("-")[0]) or split_name(path.parent.name)
    prefix = path.with_suffix("").as_posix()
    return [
        Item(f"{prefix}#{row}", ParquetSource(file, image, row), _label(value, names), None, split, origin)
        for row, value in enumerate(values)
    ]


def _label(value: Any, names: list[str] | None) -> str | None:
    """The label's name; numbers are looked up in the names that the data set declares (-1 is none)."""
    if value is None or (names and isinstance(value, int) and not 0 <= value < len(names)):
        return None
    return names[value] if names and isinstance(value, int) else str(value)


def _column(file: Stored, column: str) -> pa.ChunkedArray:
    """A column of the file; a replaced file is read again."""
    try:
        known = (file.version(), column)
    except OSError as error:
        raise PictureError("The file is gone. Fetch it again.") from error
    found = _columns.get(known)
    if found is None:
        try:
            with file.open() as raw:
                found = pq.read_table(raw, columns=[column]).column(column)
        except (pa.ArrowException, OSError) as error:
            raise PictureError("The file is damaged. Fetch it again.") from error
        _columns.put(known, found)
    return found
