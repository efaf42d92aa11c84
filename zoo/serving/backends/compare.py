"""Comparison of a backend's results with torch's."""

from __future__ import annotations

import numpy as np

from zoo.serving.backends.base import Backend
from zoo.serving.backends.store import Reference

TOLERANCE = 1e-3  # of logits; of features and vectors, as a share of their largest value where that is above 1


def difference(backend: Backend, reference: Reference) -> float:
    """Largest difference of a backend's results from torch's; infinity where a shape or number of pictures fails."""
    largest = 0.0
    for part in (slice(None), slice(1)):  # all pictures, and one alone
        found = backend.predict(reference.batch[part])
        compared = [
            (mine / _scale(theirs), (theirs / _scale(theirs))[part])
            for mine, theirs in ((found.features, reference.features), (found.vectors, reference.vectors))
        ]
        if len(reference.logits):
            compared.append((found.logits, reference.logits[part]))
        for mine, theirs in compared:
            if mine.shape != theirs.shape or not np.isfinite(mine).all():
                return float("inf")
            largest = max(largest, float(np.abs(mine - theirs).max()))
    return largest


def _scale(values: np.ndarray) -> np.ndarray:
    return np.abs(values).max().clip(min=1)
