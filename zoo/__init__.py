"""Published models of blood cells: where they live, how they run and how they are scored.

The names below are imported when they are first used, so that `import zoo` alone and `--help` are fast. Imports neither
pages nor training.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from zoo.version import __version__

if TYPE_CHECKING:
    from zoo.api import classify, default_runtime, explain
    from zoo.attribution import ExplanationError
    from zoo.attribution.overlay import overlay
    from zoo.entry import EntryError, read_predictions
    from zoo.imaging.decode import ImageError, decode
    from zoo.serving.batch import classify_files
    from zoo.serving.runtime import BusyError, Runtime
    from zoo.sources.catalogue import get_entry, list_entries
else:
    _MODULES = {
        "BusyError": "zoo.serving.runtime",
        "EntryError": "zoo.entry",
        "ExplanationError": "zoo.attribution",
        "ImageError": "zoo.imaging.decode",
        "Runtime": "zoo.serving.runtime",
        "classify": "zoo.api",
        "classify_files": "zoo.serving.batch",
        "decode": "zoo.imaging.decode",
        "default_runtime": "zoo.api",
        "explain": "zoo.api",
        "get_entry": "zoo.sources.catalogue",
        "list_entries": "zoo.sources.catalogue",
        "overlay": "zoo.attribution.overlay",
        "read_predictions": "zoo.entry",
    }

    def __getattr__(name: str) -> object:
        """Import a public name from its module. Raises AttributeError if there is none of that name."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


__all__ = [
    "BusyError",
    "EntryError",
    "ExplanationError",
    "ImageError",
    "Runtime",
    "__version__",
    "classify",
    "classify_files",
    "decode",
    "default_runtime",
    "explain",
    "get_entry",
    "list_entries",
    "overlay",
    "read_predictions",
]
