"""Data sets: any known layout read into one table of items, whose pictures are decoded when needed."""

from zoo.data.packed import Packed, pack
from zoo.data.readers import layouts, read_dataset
from zoo.data.table import DataError, DataSet, FileSource, Item, Source

__all__ = ["DataError", "DataSet", "FileSource", "Item", "Packed", "Source", "layouts", "pack", "read_dataset"]
