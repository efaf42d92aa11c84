"""Paired tests of two models on the same images, with one source cell as one observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from zoo.lazy import lazy_module
from zoo.scores.bootstrap import Interval, cell_numbers, ratio_of_sums, resample_weights
from zoo.scores.predictions import correct_by_cell, label_arrays

if TYPE_CHECKING:
    import pandas as pd
    from scipy import stats
else:
    pd = lazy_module("pandas")
    stats = lazy_module("scipy.stats")

SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True)
class McNemar:
    """Result of McNemar's test.

    Attributes:
        first_only: Source cells that only the first model predicts correctly.
        second_only: Source cells that only the second model predicts correctly.
        p: Exact two-sided p-value.
    """

    first_only: int
    second_only: int
    p: float


def shared_rows(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of two prediction tables for the files that both have, in the same order.

    Args:
        first: A prediction table.
        second: Another.

    Returns:
        Two tables of equal length.

    Raises:
        ValueError: The tables have no file in common.
    """
    left, right = first.set_index("file"), second.set_index("file")
    both = left.index.intersection(right.index)
    if both.empty:
        raise ValueError("The two models were scored on different pictures.")
    return left.loc[both].reset_index(), right.loc[both].reset_index()


def accuracy_difference(first: pd.DataFrame, second: pd.DataFrame, labels: Sequence[str], seed: int = 0) -> Interval:
    """Accuracy of `first` minus that of `second` on the files both have, by a paired bootstrap over source cells.

    Args:
        first: A prediction table.
        second: Another.
        labels: The labels of both.
        seed: Seed of the bootstrap.

    Returns:
        The difference with its 95 % interval.

    Raises:
        ValueError: The tables have no file in common.
    """
    one, two = shared_rows(first, second)
    gain = _is_correct(one, labels).astype(float) - _is_correct(two, labels)
    cells, n_cells = cell_numbers(one["cell"])
    sums, sizes = np.bincount(cells, gain, n_cells), np.bincount(cells, minlength=n_cells)
    return ratio_of_sums(sums, sizes, resample_weights(n_cells, seed)).interval


def mcnemar(first: pd.DataFrame, second: pd.DataFrame, labels: Sequence[str]) -> McNemar:
    """Exact McNemar test of two models (McNemar 1947, doi:10.1007/BF02295996).

    A cell is predicted by the mean probability of its images. Images of one cell are not independent trials, so that a
    test over images would give far too small p-values.

    Args:
        first: A prediction table.
        second: Another.
        labels: The labels of both.

    Returns:
        The counts of discordant cells and the p-value.

    Raises:
        ValueError: The tables have no file in common.
    """
    one, two = shared_rows(first, second)
    one_correct, two_correct = correct_by_cell(one, labels), correct_by_cell(two, labels)
    first_only, second_only = int((one_correct & ~two_correct).sum()), int((~one_correct & two_correct).sum())
    trials = first_only + second_only
    return McNemar(first_only, second_only, stats.binomtest(first_only, trials).pvalue if trials else 1.0)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values adjusted for multiple comparisons by Holm's step-down method (Holm 1979), (n,)."""
    given = np.asarray(p_values, float)
    order = np.argsort(given)
    raised = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)).clip(max=1)
    adjusted = np.empty_like(given)
    adjusted[order] = raised
    return adjusted


def compare_pairs(tables: Mapping[str, pd.DataFrame], labels: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Difference in accuracy and McNemar's test of every two models.

    Args:
        tables: Model → prediction table.
        labels: The labels of all.
        seed: Seed of the bootstrap.

    Returns:
        One row a pair: first, second, difference, low, high, first_only, second_only, p, p_holm (adjusted after Holm)
        and significant.

    Raises:
        ValueError: Two tables have no file in common.
    """
    rows = []
    for first, second in combinations(tables, 2):
        gap = accuracy_difference(tables[first], tables[second], labels, seed)
        test = mcnemar(tables[first], tables[second], labels)
        rows.append((first, second, gap.value, gap.low, gap.high, test.first_only, test.second_only, test.p))
    columns = ["first", "second", "difference", "low", "high", "first_only", "second_only", "p"]
    compared = pd.DataFrame(rows, columns=columns)
    compared["p_holm"] = holm(compared["p"].to_numpy()) if len(compared) else []
    return compared.assign(significant=compared["p_holm"] < SIGNIFICANCE_LEVEL)


def misclassified(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The rows whose prediction is wrong, the most confident first."""
    _, probabilities = label_arrays(table, labels)
    order = np.argsort(-probabilities.max(1), kind="stable")
    return table.iloc[order[~_is_correct(table, labels)[order]]]


def only_first_correct(first: pd.DataFrame, second: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The rows of `second` that it predicts wrongly and `first` correctly, the most confident errors first.

    Args:
        first: A prediction table.
        second: Another.
        labels: The labels of both.

    Returns:
        Rows of `second`.

    Raises:
        ValueError: The tables have no file in common.
    """
    one, two = shared_rows(first, second)
    return misclassified(two[_is_correct(one, labels)], labels)


def _is_correct(table: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    truth, probabilities = label_arrays(table, labels)
    return probabilities.argmax(1) == truth
