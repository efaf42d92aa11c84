"""Is one model really better than another? Paired tests on the same images, one source cell being one observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from zoo.scores import metrics
from zoo.scores.bootstrap import Interval, cell_numbers, ratio, resampled

LEVEL = 0.05


@dataclass(frozen=True)
class McNemar:
    """Source cells that only the first, and only the second, model calls rightly, and the exact two-sided p-value."""

    first_only: int
    second_only: int
    p: float


def shared_rows(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of two prediction tables whose files both hold, in one order. Raises ValueError if there are none."""
    left, right = first.set_index("file"), second.set_index("file")
    both = left.index.intersection(right.index)
    if both.empty:
        raise ValueError("The two models were scored on different pictures.")
    return left.loc[both].reset_index(), right.loc[both].reset_index()


def accuracy_difference(first: pd.DataFrame, second: pd.DataFrame, labels: Sequence[str], seed: int = 0) -> Interval:
    """Accuracy of `first` minus that of `second` on the files both hold, paired bootstrap over source cells."""
    one, two = shared_rows(first, second)
    gain = _right(one, labels).astype(float) - _right(two, labels)
    cells, n_cells = cell_numbers(one["cell"])
    sums, sizes = np.bincount(cells, gain, n_cells), np.bincount(cells, minlength=n_cells)
    return ratio(sums, sizes, resampled(n_cells, seed)).interval


def mcnemar(first: pd.DataFrame, second: pd.DataFrame, labels: Sequence[str]) -> McNemar:
    """Exact McNemar test of two models, a cell called by its mean probability (McNemar 1947, doi:10.1007/BF02295996).

    Images of one cell are no independent trials, so that a test over images would be far too sure.
    """
    one, two = shared_rows(first, second)
    mine, other = metrics.called_by_cell(one, labels), metrics.called_by_cell(two, labels)
    first_only, second_only = int((mine & ~other).sum()), int((~mine & other).sum())
    trials = first_only + second_only
    return McNemar(first_only, second_only, binomtest(first_only, trials).pvalue if trials else 1.0)


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values adjusted for their number (Holm 1979), (n,)."""
    given = np.asarray(p, float)
    order = np.argsort(given)
    raised = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)).clip(max=1)
    adjusted = np.empty_like(given)
    adjusted[order] = raised
    return adjusted


def pairs(tables: Mapping[str, pd.DataFrame], labels: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Every two models: difference in accuracy with its interval, McNemar by cell, and p adjusted after Holm."""
    rows = []
    for first, second in combinations(tables, 2):
        gap = accuracy_difference(tables[first], tables[second], labels, seed)
        test = mcnemar(tables[first], tables[second], labels)
        rows.append((first, second, gap.value, gap.low, gap.high, test.first_only, test.second_only, test.p))
    columns = ["first", "second", "difference", "low", "high", "first_only", "second_only", "p"]
    found = pd.DataFrame(rows, columns=columns)
    found["p_holm"] = holm(found["p"]) if len(found) else []
    return found.assign(significant=found["p_holm"] < LEVEL)


def errors(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The rows that are called wrongly, the surest first."""
    _, probabilities = metrics.arrays(table, labels)
    order = np.argsort(-probabilities.max(1), kind="stable")
    return table.iloc[order[~_right(table, labels)[order]]]


def only_first_right(first: pd.DataFrame, second: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The rows of `second` that it calls wrongly and `first` rightly, the surest errors first.

    Raises ValueError if the two share no file.
    """
    one, two = shared_rows(first, second)
    return errors(two[_right(one, labels)], labels)


def _right(table: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    truth, probabilities = metrics.arrays(table, labels)
    return probabilities.argmax(1) == truth
