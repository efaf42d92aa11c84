"""Comparison of the answers of two backends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from zoo.entry import Entry
from zoo.serving.runtime import Runtime

PROBABILITY_TOLERANCE, MAP_TOLERANCE = 2e-3, 2e-2
CLEAR_GAP = 0.01  # between the two best classes, from which on the label must be the same


def answers(entry: Entry, backend: str, pictures: Sequence[Image.Image]) -> tuple[set[str], np.ndarray]:
    """Names of the backends that answered, and the network's probabilities (n, classes)."""
    with Runtime("cpu", "fp32", backend=backend) as runtime:
        tickets = [runtime.submit(entry, picture) for picture in pictures]
        found = [ticket.result() for ticket in tickets]
    return {one.backend for one in found}, np.array([one.probabilities for one in found])


def assert_equal_answers(mine: np.ndarray, theirs: np.ndarray) -> None:
    """Check that probabilities are within the tolerance and labels of clear answers the same."""
    assert np.abs(mine - theirs).max() < PROBABILITY_TOLERANCE
    best = np.sort(theirs, axis=1)
    clear = best[:, -1] - best[:, -2] > CLEAR_GAP
    assert (mine.argmax(1) == theirs.argmax(1))[clear].all()
