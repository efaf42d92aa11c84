"""Select by cross-validation what is changed in a model, and measure what the change gains.

The inner folds select, the outer folds measure: each cell is scored by a model that was made without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

from zoo.adaptation.last_layer import PSEUDO_LABEL_STRENGTH, LastLayer, fit_layer, fit_on_own_answers, log_probabilities
from zoo.adaptation.source import SourceNetwork
from zoo.imaging.preprocess import NetworkInput
from zoo.scores import metrics

OUTER_FOLDS = 5
INNER_FOLDS = 3
STRENGTHS = (1.0, 0.1, 0.01, 0.001)  # penalties on the distance between the new last layer and the old one
MIN_IMPROVEMENT = 1e-6  # of the loss, for a choice to replace a simpler one
UNLABELLED = -1  # class number of a picture without a label

Progress = Callable[[float, str], None]  # share done (0..1), current step


@dataclass(frozen=True)
class Choice:
    """Changes made to a model.

    Attributes:
        statistics: Whether batch norm gets statistics of the new pictures.
        strength: Penalty that a new last layer is fitted with; None keeps the old layer.
    """

    statistics: bool
    strength: float | None

    def __str__(self) -> str:
        parts = ["batch-norm statistics"] if self.statistics else []
        parts += [] if self.strength is None else [f"a new last layer (penalty {self.strength:g})"]
        return " and ".join(parts) or "nothing, since the model as it is scores best"


@dataclass(frozen=True)
class CrossValidation:
    """Result of the cross-validation.

    Attributes:
        choice: What is best for all pictures.
        before: Log probabilities (n, classes) of the labelled pictures by the old model.
        after: The same by adapted models, each made without the pictures that it answers for.
    """

    choice: Choice
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class AdaptedNetwork:
    """A network with its new last layer, and the share of answers (0..1) that stayed the same."""

    model: Any
    weight: torch.Tensor
    bias: torch.Tensor
    agreement: float


class Selection:
    """Pictures of one laboratory, seen by one network.

    Args:
        source: The network.
        inputs: The pictures as the network sees them.
        numbers: Class number (n,) of each; UNLABELLED without a label.
        views: Number of rotated and mirrored views of each.
        progress: Told how far the work is; whatever it raises stops the work.
        groups: Patient, slide or frame (n,) of each, numbered; all of one group are in one fold. None: unknown.
    """

    def __init__(
        self,
        source: SourceNetwork,
        inputs: Sequence[NetworkInput],
        numbers: np.ndarray,
        views: int,
        progress: Progress,
        groups: np.ndarray | None = None,
    ) -> None:
        self.groups = groups
        self.source, self.numbers, self.views, self.progress = source, numbers, views, progress
        self.pixels, self.confidence = [one.pixels for one in inputs], [one.confidence for one in inputs]
        self.progress(0.02, "computing features")
        self.old_vectors = source.features(self.pixels, views)

    @property
    def labelled(self) -> np.ndarray:
        """Rows of the labelled pictures."""
        return np.flatnonzero(self.numbers != UNLABELLED)

    def default_choice(self, only_statistics: bool) -> Choice:
        """Changes made where no picture has a label."""
        return Choice(self.source.has_statistics, None if only_statistics else PSEUDO_LABEL_STRENGTH)

    def cross_validate(self) -> CrossValidation:
        """Select what is changed, and score it on pictures that had no part in the change."""
        labelled, unlabelled = self.labelled, np.flatnonzero(self.numbers == UNLABELLED)
        folds = list(self._folds(labelled, OUTER_FOLDS))
        after = np.zeros((len(labelled), self.source.classes))
        for number, (train, test) in enumerate(folds):
            self.progress(0.1 + 0.7 * number / len(folds), f"cross-validation {number + 1} of {len(folds)}")
            # the test pictures must have no part in the statistics either
            new_vectors = self._new_vectors(np.concatenate([labelled[train], unlabelled]))
            choice = self._choose(labelled[train], new_vectors)
            vectors = new_vectors if choice.statistics and new_vectors is not None else self.old_vectors
            weight, bias = self._last_layer(vectors, labelled[train], choice)
            after[test] = log_probabilities(vectors[labelled[test]], weight, bias)
        before = log_probabilities(self.old_vectors[labelled], self.source.weight, self.source.bias)
        self.progress(0.82, "choosing for all pictures")
        new_vectors = self._new_vectors(np.arange(len(self.pixels)))
        return CrossValidation(self._choose(labelled, new_vectors), before, after)

    def apply(self, choice: Choice) -> AdaptedNetwork:
        """Change the network as chosen, with all pictures."""
        self.progress(0.88, "fitting on all pictures")
        model, vectors = self.source.model, self.old_vectors
        if choice.statistics:
            model = self.source.with_statistics(self.pixels, self.views)
            vectors = self.source.features(self.pixels, self.views, model)
        if len(self.labelled) or choice.strength is None:
            weight, bias = self._last_layer(vectors, self.labelled, choice)
        else:
            weight, bias = fit_on_own_answers(vectors, self.source)
        old = log_probabilities(self.old_vectors, self.source.weight, self.source.bias).argmax(1)
        new = log_probabilities(vectors, weight, bias).argmax(1)
        return AdaptedNetwork(model, weight, bias, float((new == old).mean()))

    def _new_vectors(self, rows: np.ndarray) -> torch.Tensor | None:
        """Vectors of all pictures by a network with the statistics of `rows`; None if it has no batch norm."""
        if not self.source.has_statistics:
            return None
        model = self.source.with_statistics([self.pixels[row] for row in rows], self.views)
        return self.source.features(self.pixels, self.views, model)

    def _choose(self, rows: np.ndarray, new_vectors: torch.Tensor | None) -> Choice:
        """The choice with the least balanced log loss in folds of `rows`; on a tie, the one that changes less."""
        truth = self.numbers[rows]
        best, least = Choice(False, None), np.inf
        for statistics, vectors in ((False, self.old_vectors), (True, new_vectors)):
            if vectors is None:
                continue
            for strength in (None, *STRENGTHS):
                choice = Choice(statistics, strength)
                logits = np.zeros((len(rows), self.source.classes))
                for train, test in self._folds(rows, INNER_FOLDS):
                    weight, bias = self._last_layer(vectors, rows[train], choice)
                    logits[test] = log_probabilities(vectors[rows[test]], weight, bias)
                loss = _balanced_loss(truth, logits)
                if loss < least - MIN_IMPROVEMENT:
                    best, least = choice, loss
        return best

    def _folds(self, rows: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (training rows, test rows) as places in `rows`."""
        return _folds(self.numbers[rows], None if self.groups is None else self.groups[rows], count)

    def _last_layer(self, vectors: torch.Tensor, rows: np.ndarray, choice: Choice) -> LastLayer:
        """The last layer as chosen, fitted on the labels of `rows`."""
        if choice.strength is None:
            return self.source.weight, self.source.bias
        return fit_layer(vectors[rows], self.numbers[rows], self.source.weight, self.source.bias, choice.strength)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits (n, classes)."""
    values = np.exp(logits - logits.max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


def _balanced_loss(truth: np.ndarray, logits: np.ndarray) -> float:
    """Mean log loss over classes, so that rare classes count as much as frequent ones."""
    losses = metrics.log_losses(truth, softmax(logits))
    return float(np.mean([losses[truth == number].mean() for number in np.unique(truth)]))


def _folds(truth: np.ndarray, groups: np.ndarray | None, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (training rows, test rows), stratified by class; fewer folds where a class has fewer cells.

    Pictures of one group are in one fold, unless there is a single group.
    """
    count = max(2, min(count, int(np.bincount(truth)[np.unique(truth)].min())))
    if np.bincount(truth).max() < 2:
        return
    distinct = 0 if groups is None else len(np.unique(groups))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer cells or groups than folds
        if distinct < 2:
            yield from StratifiedKFold(count, shuffle=True, random_state=0).split(truth, truth)
            return
        count = min(count, distinct)
        folds = list(StratifiedGroupKFold(count, shuffle=True, random_state=0).split(truth, truth, groups))
        if any(not len(test) for _, test in folds):  # few groups hold most pictures
            folds = list(GroupKFold(count).split(truth, truth, groups))
    yield from folds
