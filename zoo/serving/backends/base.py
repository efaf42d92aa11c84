"""The interface of a backend."""

from __future__ import annotations

from typing import Protocol

import torch

from zoo.attribution.network import Outputs


class Backend(Protocol):
    """One network, ready to compute passes. Only one thread may call it.

    Attributes:
        name: one of BACKENDS.
    """

    name: str

    @property
    def bytes(self) -> int:
        """Memory for the weights."""

    def accepts(self, batch: torch.Tensor) -> bool:
        """Whether it can run a batch of this shape."""

    def predict(self, batch: torch.Tensor, vectors: bool = False) -> Outputs:
        """Run a normalised batch (B, 3, H, W).

        Args:
            batch: float (B, 3, H, W).
            vectors: whether the vectors before the last layer are wanted.

        Returns:
            Logits, feature map and vectors.

        Raises:
            RuntimeError: the library failed.
        """
