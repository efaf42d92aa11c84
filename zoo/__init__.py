"""What a published model is, where it lives, how it is run and judged. Knows nothing of pages or training."""

from zoo.api import classify, default_runtime, explain
from zoo.attribution import ExplanationError
from zoo.attribution.overlay import overlay
from zoo.entry import EntryError, read_predictions
from zoo.imaging.decode import ImageError, decode
from zoo.serving.batch import classify_files
from zoo.serving.runtime import BusyError, Runtime
from zoo.sources.catalogue import get_entry, list_entries
from zoo.version import __version__

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
