"""Scores of answers to one-hot labels, where each class is answered yes or no and a picture may get none.

A forest that is fitted on one-hot labels, as published system E's is, gives each class a share of votes, and they add
up to 1. A class is answered yes where its share is more than one half, which at most one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from zoo.scores.bootstrap import BootstrapEstimate
from zoo.scores.metrics import class_scores
from zoo.scores.predictions import Predictions, cell_confusions
from zoo.scores.temperature import AS_STORED, Scaling

if TYPE_CHECKING:
    import pandas as pd

HALF = 0.5 + 1e-3  # half precision moves a stored half by less; a vote of a hundred trees is more


def one_hot_scores(
    table: pd.DataFrame, labels: Sequence[str], scaling: Scaling = AS_STORED, seed: int = 0
) -> dict[str, BootstrapEstimate]:
    """Subset accuracy, and means of the classes' precision, recall and F1, of a table's answers to one-hot labels.

    Args:
        table: Columns file, cell, label, and one column of probabilities a label.
        labels: The K labels.
        scaling: How the stored probabilities become those before temperature scaling, which are the votes' shares.
        seed: Seed of the bootstrap.

    Returns:
        `subset_accuracy` (pictures whose true class, and no other, is answered yes), `macro_precision`, `macro_recall`
        and `macro_f1`; precision is 0 where a class is never answered yes.
    """
    predictions = Predictions(table, list(labels), scaling, seed)
    votes = scaling.apply(predictions.probabilities, predictions.labels, scaling.before)
    classes = len(labels)
    answers = np.where(votes.max(1) > HALF, votes.argmax(1), classes)  # the number after the last: no class
    drawn_from = cell_confusions(predictions.truth, answers, predictions.cells, classes + 1, predictions.n_cells)
    sample = drawn_from.sum(0)
    drawn = (predictions.weights @ drawn_from.reshape(predictions.n_cells, -1)).reshape(-1, *sample.shape)
    return {name: BootstrapEstimate(float(score(sample)), score(drawn)) for name, score in SCORES.items()}


def _subset_accuracy(counts: np.ndarray) -> np.ndarray:
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-1, -2))


def _mean_of_classes(counts: np.ndarray, name: str) -> np.ndarray:
    return class_scores(counts)[name][..., :-1].mean(-1)


SCORES = {
    "subset_accuracy": _subset_accuracy,
    "macro_precision": lambda counts: _mean_of_classes(counts, "precision"),
    "macro_recall": lambda counts: _mean_of_classes(counts, "recall"),
    "macro_f1": lambda counts: _mean_of_classes(counts, "f1"),
}
