"""Confidence intervals by a bootstrap over source cells.

Percentile intervals of a cluster bootstrap (Efron & Tibshirani 1993, chapter 13; Field & Welsh 2007,
doi:10.1111/j.1467-9868.2007.00593.x). The unit that is drawn is the source cell, not the image, because augmented
copies of one cell are one observation. Two tables with the same cells are resampled alike, so that the difference of
their draws is a paired one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import pandas as pd
    from scipy import stats
else:
    pd = lazy_module("pandas")
    stats = lazy_module("scipy.stats")

N_RESAMPLES = 2000
CONFIDENCE_LEVEL = 0.95
UNKNOWN_CELL_PREFIX = "unknown-"  # begins the name of a cell whose source frame is not known


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class BootstrapEstimate:
    """A value with its bootstrap draws.

    Attributes:
        value: The estimate from the sample itself.
        draws: The estimate from each resample, (N_RESAMPLES,).
        exact: Interval to use instead of the percentiles of the draws, for example where every draw is the same.
    """

    value: float
    draws: np.ndarray
    exact: Interval | None = None

    @property
    def interval(self) -> Interval:
        """The 95 % confidence interval."""
        return self.exact or percentile_interval(self.value, self.draws)


def percentile_interval(value: float, draws: np.ndarray) -> Interval:
    """95 % percentile interval of bootstrap draws, widened to hold the value itself.

    In a sample of few images most draws can lie on one side of the value, because draws that miss a class lose that
    class's part of a mean.

    Args:
        value: The estimate from the sample.
        draws: The estimate from each resample, (N_RESAMPLES,); draws that are not finite numbers are ignored.

    Returns:
        The interval; its ends are nan where the value or all draws are.
    """
    if not np.isfinite(value) or not np.isfinite(draws).any():
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.nanquantile(draws, [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2])
    return Interval(float(value), min(float(low), float(value)), max(float(high), float(value)))


def wilson_interval(count: int, total: int) -> Interval:
    """Wilson's 95 % interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953); nan for no trials."""
    if not total:
        return Interval(float("nan"), float("nan"), float("nan"))
    interval = stats.binomtest(count, total).proportion_ci(CONFIDENCE_LEVEL, "wilson")
    return Interval(count / total, float(interval.low), float(interval.high))


@lru_cache(maxsize=4)
def resample_weights(n_cells: int, seed: int = 0) -> np.ndarray:
    """Number of draws of each cell in each resample.

    Args:
        n_cells: Number of source cells.
        seed: Seed of the random numbers. The same seed and number of cells give the same draws.

    Returns:
        Counts, float32 (N_RESAMPLES, n_cells), read-only because the array is cached.
    """
    generator = np.random.default_rng(seed)
    weights = np.empty((N_RESAMPLES, n_cells), np.float32)
    for row in weights:
        row[:] = np.bincount(generator.integers(0, n_cells, n_cells, np.int32), minlength=n_cells)
    weights.flags.writeable = False
    return weights


def cell_numbers(cells: pd.Series) -> tuple[np.ndarray, int]:
    """Number of each row's cell, in the order of the cells' names (n,), and the number of cells."""
    codes, names = pd.factorize(cells, sort=True)
    return codes, len(names)


def ratio_of_sums(numerators: np.ndarray, denominators: np.ndarray, weights: np.ndarray) -> BootstrapEstimate:
    """Ratio of two sums over cells, such as correct images over all images.

    Args:
        numerators: Each cell's part of the upper sum, (n_cells,).
        denominators: Each cell's part of the lower sum, (n_cells,).
        weights: Draws of each cell, (N_RESAMPLES, n_cells), see `resample_weights`.

    Returns:
        The ratio; nan where the lower sum is 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (weights @ numerators.astype(np.float32)) / (weights @ denominators.astype(np.float32))
        total = denominators.sum()
        return BootstrapEstimate(float(numerators.sum() / total) if total else float("nan"), draws)
