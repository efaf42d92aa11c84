"""What are an entry's figures on a benchmark? The one place that computes them, for training, pages and reports."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pandas as pd

from zoo.benchmarks import robustness
from zoo.benchmarks.corruptions import KINDS
from zoo.scores import metrics
from zoo.scores.bootstrap import Estimate, Interval
from zoo.scores.metrics import Report, Scaling

NAMES = {**metrics.SCORES, **robustness.SCORES}  # of all scores, for people
LOWER_IS_BETTER = metrics.LOWER_IS_BETTER | set(robustness.SCORES)


def score(table: pd.DataFrame, labels: Sequence[str], scaling: Scaling, seed: int = 0) -> Report:
    """Every score of a prediction table; of corrupted pictures, also how much worse they are than clean ones.

    Raises ValueError where the table is empty.
    """
    found = metrics.report(table, labels, scaling, seed)
    if not is_corrupted(table):
        return found
    more = robustness.summary(robustness.errors(table, labels, seed))
    return Report({**found.scores, **more}, found.classes)


def estimate(table: pd.DataFrame, labels: Sequence[str], scaling: Scaling, name: str, seed: int = 0) -> Estimate:
    """One score of those that `score` gives, without the work of all others where that can be.

    Raises KeyError for a score that the table has none of.
    """
    if name == "balanced_accuracy":
        counts, drawn = metrics.resampled_confusions(table, labels, seed)
        return metrics.count_scores(counts, drawn, table["cell"].nunique())[name]
    if name == "ece":
        return metrics.calibration_error(table, labels, scaling.before, seed)
    if name == "ece_calibrated" and scaling.after is not None:
        return metrics.calibration_error(table, labels, scaling.after, seed)
    if name in robustness.SCORES:
        return robustness.summary(robustness.errors(table, labels, seed))[name]
    return score(table, labels, scaling, seed).scores[name]


def intervals(report: Report) -> dict[str, Interval]:
    """Each score with its interval."""
    return {name: estimate.interval for name, estimate in report.scores.items()}


def is_corrupted(table: pd.DataFrame) -> bool:
    """Whether the table's pictures are corrupted ones, by their names."""
    return bool(robustness.parted(table.head(1000))["kind"].isin(list(KINDS)).any())


def rows_hash(table: pd.DataFrame) -> str:
    """SHA-256 of a table's files and labels, whatever their order: two models with one hash answered one question."""
    rows = table.sort_values("file")[["file", "label"]]
    return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()
