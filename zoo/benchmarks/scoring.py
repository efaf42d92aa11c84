"""Scores of an entry's predictions on a benchmark: the one place that training, pages and reports call."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.benchmarks.robustness import is_corrupted
from zoo.lazy import lazy_module
from zoo.scores.bootstrap import Interval
from zoo.scores.metrics import METRICS, Report, classes, report
from zoo.scores.temperature import AS_STORED, Scaling

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

__all__ = ["METRICS", "classes", "intervals", "is_corrupted", "rows_hash", "score"]


def score(table: pd.DataFrame, labels: Sequence[str], scaling: Scaling = AS_STORED, seed: int = 0) -> Report:
    """Every metric of a prediction table, those of corrupted pictures included.

    Args:
        table: Columns file, cell, label, and one column of probabilities a label.
        labels: The labels.
        scaling: How the stored probabilities become those before and after temperature scaling.
        seed: Seed of the bootstrap.

    Returns:
        The metrics that apply to the table, and the scores of each class.

    Raises:
        ValueError: The table is empty.
    """
    return report(table, labels, scaling, seed)


def intervals(report: Report) -> dict[str, Interval]:
    """Each score with its 95 % interval."""
    return {name: estimate.interval for name, estimate in report.scores.items()}


def rows_hash(table: pd.DataFrame) -> str:
    """SHA-256 of a table's files and labels in any order: equal for two models that were scored on the same rows."""
    rows = table.sort_values("file")[["file", "label"]]
    return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()
