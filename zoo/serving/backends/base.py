"""The interface of a backend beside torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Arrays:
    """Results of one pass, all float32.

    Attributes:
        logits: (B, classes).
        features: the backbone's output, in its own layout.
        vectors: (B, d) before the last layer.
    """

    logits: np.ndarray
    features: np.ndarray
    vectors: np.ndarray


class Backend(Protocol):
    """One network, ready to compute passes without torch. Only one thread may call it.

    Attributes:
        name: one of BACKENDS.
    """

    name: str

    @property
    def bytes(self) -> int:
        """Memory for the weights."""

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether it can run a batch of this shape."""

    def predict(self, batch: np.ndarray) -> Arrays:
        """Run a normalised batch, float32 (B, 3, H, W). Raises RuntimeError if the library fails."""
