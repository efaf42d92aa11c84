"""What a published model is, where it lives, how it is run and judged. Knows nothing of pages or training."""

from zoo.api import classify, default_runtime, explain
from zoo.attribution import ExplanationError
from zoo.batch import classify_files
from zoo.catalogue import get_entry, list_entries
from zoo.entry import EntryError, read_predictions
from zoo.images import ImageError, decode
from zoo.overlay import overlay
from zoo.runtime import BusyError, Runtime

__all__ = [
    "BusyError",
    "EntryError",
    "ExplanationError",
    "ImageError",
    "Runtime",
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
