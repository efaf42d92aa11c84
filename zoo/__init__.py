"""Published models of blood cells: where they live, how they run and how they are scored.

The names below are imported when they are first used, so that `import zoo` alone and `--help` are fast. Imports neither
pages nor training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_exports
from zoo.version import __version__

if TYPE_CHECKING:
    from zoo.api import classify, count_cells, default_runtime, explain, find_cells, name_cells
    from zoo.attribution import ExplanationError
    from zoo.attribution.overlay import overlay
    from zoo.entry import EntryError, read_predictions
    from zoo.imaging.decode import ImageError, Picture, PictureError, decode, read_picture
    from zoo.serving.batch import classify_files
    from zoo.serving.runtime import BusyError, Runtime
    from zoo.sources.catalogue import get_entry, list_entries
    from zoo.tables import read_csv
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "BusyError": "zoo.serving.runtime",
            "EntryError": "zoo.entry",
            "ExplanationError": "zoo.attribution",
            "ImageError": "zoo.imaging.decode",
            "Picture": "zoo.imaging.decode",
            "PictureError": "zoo.imaging.decode",
            "Runtime": "zoo.serving.runtime",
            "classify": "zoo.api",
            "classify_files": "zoo.serving.batch",
            "count_cells": "zoo.api",
            "decode": "zoo.imaging.decode",
            "default_runtime": "zoo.api",
            "explain": "zoo.api",
            "find_cells": "zoo.api",
            "get_entry": "zoo.sources.catalogue",
            "list_entries": "zoo.sources.catalogue",
            "name_cells": "zoo.api",
            "overlay": "zoo.attribution.overlay",
            "read_csv": "zoo.tables",
            "read_picture": "zoo.imaging.decode",
            "read_predictions": "zoo.entry",
        },
    )

__all__ = [
    "BusyError",
    "EntryError",
    "ExplanationError",
    "ImageError",
    "Picture",
    "PictureError",
    "Runtime",
    "__version__",
    "classify",
    "classify_files",
    "count_cells",
    "decode",
    "default_runtime",
    "explain",
    "find_cells",
    "get_entry",
    "list_entries",
    "name_cells",
    "overlay",
    "read_csv",
    "read_picture",
    "read_predictions",
]
