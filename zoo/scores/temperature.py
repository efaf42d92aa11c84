"""Temperature scaling of probabilities (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

MIN_PROBABILITY = 1e-7  # below the smallest number of half precision: a stored zero is not certain
MIN_TEMPERATURE = 0.25
# a network that memorised its few cells, or one nearest neighbour, is far too confident
MAX_TEMPERATURE = 32
N_TEMPERATURES = 601  # of the grid that is searched, 0.8 % apart


@dataclass(frozen=True)
class Scaling:
    """Exponents that turn stored probabilities into those before and after temperature scaling.

    A temperature T that is already applied makes `before` T and `after` 1. One that was fitted on validation data but
    not applied makes `before` 1 and `after` 1/T. `after` is None where no temperature was fitted.

    `weights` are those by which a sample multiplied the network's probabilities, by label. The temperature belongs to
    the network, so that they are taken off, the network's probabilities scaled, and the weights put on again.
    """

    before: float = 1.0
    after: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)

    def apply(self, probabilities: np.ndarray, labels: Sequence[str], exponent: float) -> np.ndarray:
        """Answers (n, K) over `labels` as if the network's probabilities had been raised to `exponent`."""
        if exponent == 1 or not self.weights:
            return scale_probabilities(probabilities, exponent)
        weights = np.array([self.weights.get(label, 1.0) for label in labels])
        network = np.divide(probabilities, weights, out=np.zeros_like(probabilities), where=weights > 0)
        asked = scale_probabilities(network / network.sum(1, keepdims=True), exponent) * weights
        return asked / asked.sum(1, keepdims=True)


AS_STORED = Scaling()


def scale_probabilities(probabilities: np.ndarray, exponent: float) -> np.ndarray:
    """Softmax of `exponent` times the logarithm of probabilities, which is a temperature of 1/exponent.

    Args:
        probabilities: One row an image, (n, K).
        exponent: Above 1 makes answers more confident, below 1 less.

    Returns:
        Probabilities (n, K).
    """
    if exponent == 1:
        return probabilities
    logits = exponent * np.log(np.clip(probabilities, MIN_PROBABILITY, 1))
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def fit_temperature(truth: np.ndarray, logits: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Temperature that minimises the log loss of validation data, found on a grid.

    Args:
        truth: Label numbers, (n,).
        logits: Outputs of the network before softmax, (n, K).
        weights: Weight of each row, (n,); None weighs all rows alike.

    Returns:
        A temperature between MIN_TEMPERATURE and MAX_TEMPERATURE.
    """
    grid = np.geomspace(MIN_TEMPERATURE, MAX_TEMPERATURE, N_TEMPERATURES)
    scaled = logits[None] / grid[:, None, None]
    top = scaled.max(-1, keepdims=True)
    log_sum = np.log(np.exp(scaled - top).sum(-1)) + top[..., 0]
    losses = np.average(log_sum - scaled[:, np.arange(len(truth)), truth], axis=1, weights=weights)
    return float(grid[losses.argmin()])
