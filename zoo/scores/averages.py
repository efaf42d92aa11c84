"""Means of several models' probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from zoo.scores.temperature import MIN_PROBABILITY

Mean = Literal["arithmetic", "geometric"]


def mean_probabilities(
    parts: Sequence[np.ndarray], weights: Sequence[float] | np.ndarray | None = None, mean: Mean = "arithmetic"
) -> np.ndarray:
    """Combine models' probabilities of the same pictures.

    Args:
        parts: for each model an array (..., classes).
        weights: one for each model; None for equal weights.
        mean: arithmetic, or geometric, scaled to add up to 1: a model that excludes a class counts for more there.

    Returns:
        Array (..., classes).
    """
    if mean == "arithmetic":
        return np.average(parts, axis=0, weights=weights)
    logs = np.average(np.log(np.clip(parts, MIN_PROBABILITY, 1)), axis=0, weights=weights)
    combined = np.exp(logs - logs.max(-1, keepdims=True))
    return combined / combined.sum(-1, keepdims=True)
