"""A prediction table prepared for scoring: label numbers, probabilities, source cells and their bootstrap weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from zoo.lazy import lazy_module
from zoo.scores.bootstrap import UNKNOWN_CELL_PREFIX, cell_numbers, resample_weights, wilson_interval
from zoo.scores.temperature import AS_STORED, Scaling

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Predictions:
    """A prediction table with what several metrics need of it, each computed on first use.

    Attributes:
        table: Columns file, cell, label, and one column of probabilities a label.
        labels: The K labels, in the order of every array's class axis.
        scaling: How the stored probabilities become those before and after temperature scaling.
        seed: Seed of the bootstrap.
    """

    table: pd.DataFrame
    labels: Sequence[str]
    scaling: Scaling = AS_STORED
    seed: int = 0
    derived: dict[Callable[[Predictions], Any], Any] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return label_arrays(self.table, self.labels)

    @cached_property
    def _cells(self) -> tuple[np.ndarray, int]:
        return cell_numbers(self.table["cell"])

    @property
    def truth(self) -> np.ndarray:
        """Number of the true label of each image (n,)."""
        return self._arrays[0]

    @property
    def probabilities(self) -> np.ndarray:
        """Probability of each label for each image, float64 (n, K)."""
        return self._arrays[1]

    @cached_property
    def predicted(self) -> np.ndarray:
        """Number of the most probable label of each image (n,)."""
        return self.probabilities.argmax(1)

    @property
    def cells(self) -> np.ndarray:
        """Number of the source cell of each image (n,)."""
        return self._cells[0]

    @property
    def n_cells(self) -> int:
        """Number of source cells."""
        return self._cells[1]

    @cached_property
    def images_per_cell(self) -> np.ndarray:
        """Number of images of each source cell (n_cells,)."""
        return np.bincount(self.cells, minlength=self.n_cells)

    @cached_property
    def has_mixed_groups(self) -> bool:
        """Whether most groups of the bootstrap hold several labels: patients or slides, not cells."""
        return bool((self.table.groupby("cell")["label"].nunique() > 1).mean() > 0.5)

    @property
    def weights(self) -> np.ndarray:
        """Draws of each source cell in each resample, float32 (N_RESAMPLES, n_cells)."""
        return resample_weights(self.n_cells, self.seed)

    @cached_property
    def confusions(self) -> tuple[np.ndarray, np.ndarray]:
        """Confusion counts of the sample, float32 (K, K), and of each resample (N_RESAMPLES, K, K)."""
        counts = cell_confusions(self.truth, self.predicted, self.cells, len(self.labels), self.n_cells)
        drawn = self.weights @ counts.reshape(self.n_cells, -1)
        return counts.sum(0), drawn.reshape(-1, len(self.labels), len(self.labels))

    def sum_by_cell(self, values: np.ndarray) -> np.ndarray:
        """Sum of a value of each image (n,) over each source cell (n_cells,)."""
        return np.bincount(self.cells, values, self.n_cells)

    def once(self, compute: Callable[[Predictions], T]) -> T:
        """Result of `compute(self)`, computed on the first call and kept: for metrics that share an expensive step."""
        if compute not in self.derived:
            self.derived[compute] = compute(self)
        return self.derived[compute]


def label_arrays(table: pd.DataFrame, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Label numbers (n,) and probabilities (n, K) float64 of a prediction table, joined to `labels` by name."""
    return pd.Index(labels).get_indexer(pd.Index(table["label"])), table[list(labels)].to_numpy(np.float64)


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes) int64 from label numbers (n,): row is the true label, column the predicted one."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def table_confusion(table: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Confusion counts (K, K) of a prediction table, in the order of `labels`."""
    truth, probabilities = label_arrays(table, labels)
    return confusion(truth, probabilities.argmax(1), len(labels))


def cell_confusions(
    truth: np.ndarray, predicted: np.ndarray, cells: np.ndarray, classes: int, n_cells: int
) -> np.ndarray:
    """Confusion counts of each source cell.

    Args:
        truth: True label numbers, (n,).
        predicted: Predicted label numbers, (n,).
        cells: Cell numbers, (n,).
        classes: Number of labels.
        n_cells: Number of source cells.

    Returns:
        Counts, float32 (n_cells, classes, classes): row is the true label, column the predicted one.
    """
    flat = (cells * classes + truth) * classes + predicted
    counts = np.bincount(flat, minlength=n_cells * classes * classes)
    return counts.reshape(n_cells, classes, classes).astype(np.float32)


def correct_by_cell(table: pd.DataFrame, labels: Sequence[str]) -> pd.Series:
    """Whether the mean probability of each source cell's images gives its true label.

    Args:
        table: A prediction table.
        labels: Its labels.

    Returns:
        A bool for each cell, indexed by the cell's name; cells of unknown source are dropped.
    """
    known = table[~table["cell"].str.startswith(UNKNOWN_CELL_PREFIX)]
    grouped = known.groupby("cell", sort=True)
    predicted = np.array(list(labels))[grouped[list(labels)].mean().to_numpy().argmax(1)] if len(known) else []
    return grouped["label"].first() == predicted


def differential_count(predicted: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Count of every label, its share of all, and the share's 95 % Wilson interval.

    Args:
        predicted: The label of each cell.
        labels: The labels to count, one row each.

    Returns:
        Columns label, count, share, low and high.
    """
    rows = []
    for label in labels:
        count = sum(name == label for name in predicted)
        share = wilson_interval(count, len(predicted))
        rows.append({"label": label, "count": count, "share": share.value, "low": share.low, "high": share.high})
    return pd.DataFrame(rows)
