"""Comparison of a backend's results with torch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from zoo.serving.backends.base import Backend
from zoo.serving.backends.store import MapReference, Reference

TOLERANCE = (
    1e-3  # of logits; of features, vectors and sides of boxes, as a share of their largest value where that is above 1
)


def difference(backend: Backend, reference: Reference) -> float:
    """Largest difference of a backend's results from torch's; infinity where a shape or number of pictures fails."""
    logits = [reference.logits] if len(reference.logits) else []

    def predict(batch: np.ndarray) -> list[np.ndarray]:
        found = backend.predict(batch)
        return [found.features, found.vectors, *([found.logits] if logits else [])]

    scaled = [(theirs, _scale(theirs)) for theirs in (reference.features, reference.vectors)]
    return largest_difference(predict, reference.batch, [*scaled, *((theirs, 1.0) for theirs in logits)])


def map_difference(predict: Callable[[np.ndarray], list[np.ndarray]], reference: MapReference) -> float:
    """Largest difference of a detector's maps from torch's: of logits, and of sides as a share of the largest."""
    sides = reference.sides
    return largest_difference(predict, reference.batch, [(reference.logits, 1.0), (sides, _scale(sides))])


def largest_difference(
    predict: Callable[[np.ndarray], list[np.ndarray]], batch: np.ndarray, wanted: Sequence[tuple[np.ndarray, float]]
) -> float:
    """Largest difference of results from torch's, each with the unit it is divided by; infinity for other shapes."""
    largest = 0.0
    for part in (slice(None), slice(1)):  # all pictures, and one alone
        for mine, (theirs, unit) in zip(predict(batch[part]), wanted, strict=True):
            if mine.shape != theirs[part].shape or not np.isfinite(mine).all():
                return float("inf")
            largest = max(largest, float(np.abs(mine - theirs[part]).max()) / unit)
    return largest


def _scale(values: np.ndarray) -> float:
    return float(np.abs(values).max().clip(min=1))
