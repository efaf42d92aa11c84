"""Shares of kinds among the cells of one slide, with intervals for chance and for the classifier's errors.

The limits of chance are the exact ones of a binomial count (Clopper & Pearson 1934; tabulated for differential counts
by Rümke 1977). In a laboratory that a model never saw its own errors matter more, and do not shrink with the number of
cells: their size is measured on samples with known shares, drawn from the validation laboratories
(`python -m training counts`), and added to those of chance as independent errors are.

Shares are the counted ones. Correcting them by expectation-maximisation (Saerens, Latinne & Decaestecker 2002) or by
the confusion matrix of other laboratories made them worse in laboratories left out, because the kinds that a model
confuses differ between laboratories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.lazy import lazy_module
from zoo.scores.bootstrap import CONFIDENCE_LEVEL

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = lazy_module("scipy.stats")

ERROR_SPREAD = 1.96  # standard deviations of the classifier's error that an interval holds


@dataclass(frozen=True)
class KindCount:
    """One kind's part of a count.

    Attributes:
        kind: The kind.
        count: Cells of it.
        share: Its share, 0..1; nan where no cell was counted.
        low: Lower end of the share's 95 % interval for chance and the classifier's errors.
        high: Its upper end.
        chance_low: Lower end of the interval for chance alone.
        chance_high: Its upper end.
    """

    kind: str
    count: int
    share: float
    low: float
    high: float
    chance_low: float
    chance_high: float


def chance_limits(counts: np.ndarray, total: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Exact 95 % limits of shares (Clopper & Pearson 1934).

    Args:
        counts: Cells of a kind, any shape.
        total: Cells counted, above 0; a number or of the same shape.

    Returns:
        Lower and upper limits, 0..1.
    """
    counts, total = np.asarray(counts, np.float64), np.asarray(total, np.float64)
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low = stats.beta.ppf(tail, np.maximum(counts, 1), total - counts + 1)
    high = stats.beta.ppf(1 - tail, counts + 1, np.maximum(total - counts, 1))
    return np.where(counts > 0, low, 0.0), np.where(counts < total, high, 1.0)


def limits(counts: np.ndarray, total: np.ndarray | int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """95 % limits of shares for chance and the classifier's errors.

    Args:
        counts: Cells of a kind, any shape.
        total: Cells counted, above 0; a number or of the same shape.
        error: Standard deviation of a share's error that is the classifier's, 0..1.

    Returns:
        Lower and upper limits, 0..1.
    """
    share = np.asarray(counts, np.float64) / total
    low, high = chance_limits(counts, total)
    extra = ERROR_SPREAD * error
    return (
        (share - np.hypot(share - low, extra)).clip(0, 1),
        (share + np.hypot(high - share, extra)).clip(0, 1),
    )


def count_kinds(answers: Sequence[str], labels: Sequence[str], error: float | None = None) -> list[KindCount]:
    """Count the kinds that some cells were answered to be.

    Args:
        answers: The answer of each cell.
        labels: The kinds to count, one result each.
        error: As in `limits`; None where it was not measured: the limits are those of chance.

    Returns:
        A count for each kind, in the order of `labels`.
    """
    total = len(answers)
    counts = np.array([sum(answer == label for answer in answers) for label in labels])
    if not total:
        nan = float("nan")
        return [KindCount(label, 0, nan, nan, nan, nan, nan) for label in labels]
    chance, wide = chance_limits(counts, total), limits(counts, total, error or 0.0)
    columns = zip(labels, counts.tolist(), *(one.tolist() for one in (*wide, *chance)), strict=True)
    return [KindCount(label, count, count / total, *ends) for label, count, *ends in columns]
