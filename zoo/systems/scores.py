"""The four scores that publications give of a model, on its test set, computed as its authors did."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.entry import Entry, Metric, read_predictions
from zoo.scores.bootstrap import BootstrapEstimate
from zoo.scores.calibration import scaling_on
from zoo.scores.one_hot import one_hot_scores
from zoo.systems.reproductions import Reproduction, tested_on

SUMMARY = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
SUBSET = "subset_accuracy"  # what takes the place of accuracy where answers are to one-hot labels


def summary_scores(entry: Entry | None) -> dict[str, Metric]:
    """Accuracy and means of precision, recall and F1 of an entry on its test set, as stored; empty without a test."""
    found = tested_on(entry)
    if found is None or not all(name in found[1].metrics for name in SUMMARY):
        return {}
    return {name: found[1].metrics[name] for name in SUMMARY}


def authors_scores(row: Reproduction) -> dict[str, Metric]:
    """The same of the entry under the authors' protocol, with the answers that its authors counted.

    Where they fitted one-hot labels, accuracy is subset accuracy. Scores that are not stored are computed from the
    stored predictions.

    Raises:
        EntryError: The predictions cannot be read.
    """
    found = tested_on(row.published)
    if not row.model.one_hot or row.published is None or found is None:
        return summary_scores(row.published)
    stored: Mapping[str, Metric] = found[1].one_hot
    if not stored:
        scores = {name: score.interval for name, score in stored_one_hot_scores(row.published, found[0]).items()}
        stored = {name: Metric(value=one.value, low=one.low, high=one.high) for name, one in scores.items()}
    return {name: stored[SUBSET if name == "accuracy" else name] for name in SUMMARY}


def stored_one_hot_scores(entry: Entry, benchmark: str) -> dict[str, BootstrapEstimate]:
    """Scores of an entry's answers to one-hot labels, from its stored predictions. Raises EntryError without them."""
    labels = entry.evaluation.benchmarks[benchmark].labels
    return one_hot_scores(read_predictions(entry, benchmark), labels, scaling_on(entry, benchmark))
