"""The published artefact: an entry's files, read, checked and written."""

from zoo.entry.files import (
    CARD,
    CONFIG,
    EVALUATION,
    HEAD,
    HISTORY,
    ID,
    MAX_CARD_BYTES,
    NEIGHBOURS,
    OOD_STATISTICS,
    PREDICTIONS,
    WEIGHTS,
    EntryError,
)
from zoo.entry.model import AnyEntry, BrokenEntry, Entry, readable_entries, usable_entries
from zoo.entry.predictions import as_stored, keeps_network, read_network_predictions, read_predictions
from zoo.entry.read import load_entry, read_card, read_entry, read_history, summary, with_members
from zoo.entry.schema import Benchmark, Config, Evaluation, Label, LocalisationScores, Metric, OodRates, is_on_frames
from zoo.entry.weights import Weights, read_header
from zoo.entry.write import write_predictions

__all__ = [
    "CARD",
    "CONFIG",
    "EVALUATION",
    "HEAD",
    "HISTORY",
    "ID",
    "MAX_CARD_BYTES",
    "NEIGHBOURS",
    "OOD_STATISTICS",
    "PREDICTIONS",
    "WEIGHTS",
    "AnyEntry",
    "Benchmark",
    "BrokenEntry",
    "Config",
    "Entry",
    "EntryError",
    "Evaluation",
    "Label",
    "LocalisationScores",
    "Metric",
    "OodRates",
    "Weights",
    "as_stored",
    "is_on_frames",
    "keeps_network",
    "load_entry",
    "read_card",
    "read_entry",
    "read_header",
    "read_history",
    "read_network_predictions",
    "read_predictions",
    "readable_entries",
    "summary",
    "usable_entries",
    "with_members",
    "write_predictions",
]
