"""How sure is a score? Bootstrap over source cells, not images: copies of one cell are one observation.

Percentile intervals of a cluster bootstrap (Efron & Tibshirani 1993, chapter 13; Field & Welsh 2007,
doi:10.1111/j.1467-9868.2007.00593.x). Two tables with the same cells are resampled alike, so that the difference of
their draws is a paired one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import binomtest

RESAMPLES = 2000
LEVEL = 0.95
UNKNOWN = "unknown-"  # begins the name of a cell that no source frame was found for


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Estimate:
    """A value and what the bootstrap drew of it (RESAMPLES,); `exact` stands for the draws where they cannot tell."""

    value: float
    draws: np.ndarray
    exact: Interval | None = None

    @property
    def interval(self) -> Interval:
        """The 95 % percentile interval."""
        return self.exact or percentiles(self.value, self.draws)


def percentiles(value: float, draws: np.ndarray) -> Interval:
    """A value with the 2.5 and 97.5 % points of its draws, those left out that are not numbers, and itself between.

    Of a handful of images most draws may lie to one side: of those without a class its part of a mean is gone.
    """
    if not np.isfinite(value) or not np.isfinite(draws).any():
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), min(float(low), float(value)), max(float(high), float(value)))


def proportion(count: int, total: int) -> Interval:
    """Wilson's 95 % interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    if not total:
        return Interval(float("nan"), float("nan"), float("nan"))
    interval = binomtest(count, total).proportion_ci(LEVEL, "wilson")
    return Interval(count / total, float(interval.low), float(interval.high))


@lru_cache(maxsize=4)
def resampled(n_cells: int, seed: int = 0) -> np.ndarray:
    """How often each cell is drawn in each resample, float32 (RESAMPLES, n_cells), read-only."""
    generator = np.random.default_rng(seed)
    drawn = np.empty((RESAMPLES, n_cells), np.float32)
    for row in drawn:
        row[:] = np.bincount(generator.integers(0, n_cells, n_cells, np.int32), minlength=n_cells)
    drawn.flags.writeable = False
    return drawn


def cell_numbers(cells: pd.Series) -> tuple[np.ndarray, int]:
    """A number for each row's cell, in the order of the cells' names (n,), and how many cells there are."""
    codes, names = pd.factorize(cells, sort=True)
    return codes, len(names)


def ratio(parts: np.ndarray, wholes: np.ndarray, weights: np.ndarray) -> Estimate:
    """Ratio of two sums over cells, such as right images over all images: `parts` and `wholes` are (n_cells,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (weights @ parts.astype(np.float32)) / (weights @ wholes.astype(np.float32))
        return Estimate(float(parts.sum() / wholes.sum()) if wholes.sum() else float("nan"), draws)
