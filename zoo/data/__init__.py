"""Data sets: any known layout read into one table of items, whose pictures are decoded when needed."""

from zoo.data.layouts import AmbiguousError, layouts, read_dataset, read_files
from zoo.data.options import AS_FOUND, ReadOptions
from zoo.data.packed import Packed, pack
from zoo.data.table import DataError, DataSet, FileSource, Item, Source

__all__ = [
    "AS_FOUND",
    "AmbiguousError",
    "DataError",
    "DataSet",
    "FileSource",
    "Item",
    "Packed",
    "ReadOptions",
    "Source",
    "layouts",
    "pack",
    "read_dataset",
    "read_files",
]
