"""An entry's network as the engine runs it: by the chosen backend, and by torch where that cannot."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from zoo.attribution.features import forward_head
from zoo.attribution.network import LinearHead, Outputs
from zoo.lazy import lazy_module
from zoo.serving.backends.base import Arrays, Backend
from zoo.serving.backends.store import LinearLayer
from zoo.serving.backends.torch_backend import TorchBackend
from zoo.serving.heads import ClassicalHead

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy_module("torch")

LOG = logging.getLogger(__name__)


class ServedNetwork:
    """A network behind a backend (see `zoo.attribution.network.Network`). Only one thread may run it."""

    def __init__(
        self,
        name: str,
        torch_backend: TorchBackend,
        fast: Backend | None = None,
        linear: LinearLayer | None = None,
        classical_head: ClassicalHead | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            name: of the entry, for messages.
            torch_backend: the network in torch, which is built when first needed.
            fast: the same network in another library; None to run torch.
            linear: the last layer, where the head is known to be that and a mean over places.
            classical_head: the classical head, where it was loaded without the network in torch.
        """
        self._name, self._torch, self._fast = name, torch_backend, fast
        self._linear, self._classical_head = linear, classical_head

    @property
    def backend(self) -> str:
        """Name of the library that computes the passes."""
        return self._torch.name if self._fast is None else self._fast.name

    @property
    def bytes(self) -> int:
        """Memory for the weights, of all backends."""
        return self._torch.bytes + (0 if self._fast is None else self._fast.bytes)

    @property
    def module(self) -> nn.Module:
        """The network in torch, built on the first call. Raises EntryError if it cannot be."""
        return self._torch.module

    @property
    def linear_head(self) -> LinearHead | None:
        """The head, where it is known to be linear."""
        if self._linear is None:
            return None
        return LinearHead(torch.from_numpy(self._linear.weight), torch.from_numpy(self._linear.bias))

    @property
    def classical_head(self) -> ClassicalHead | None:
        """The classical head; None for a network that has none."""
        if self._classical_head is None and self._fast is None:
            found: ClassicalHead | None = getattr(self.module, "head", None)
            return found if isinstance(found, ClassicalHead) else None
        return self._classical_head

    def run(self, batch: torch.Tensor, vectors: bool = False) -> Outputs:
        """Run a normalised batch (B, 3, H, W), with the vectors before the last layer if wanted."""
        if self._fast is not None:
            found = self.run_arrays(batch.detach().float().contiguous().numpy())
            if found is not None:
                logits, features, before = map(torch.from_numpy, (found.logits, found.features, found.vectors))
                return Outputs(logits, features, before)
        return self._torch.predict(batch, vectors)

    def run_arrays(self, batch: np.ndarray) -> Arrays | None:
        """Run a normalised batch, float32 (B, 3, H, W), without torch; None where that cannot be done.

        A backend that fails is not asked again.
        """
        if self._fast is None or not self._fast.accepts(batch.shape):
            return None
        try:
            return self._fast.predict(batch)
        except RuntimeError as error:
            LOG.warning("%s runs on torch from now on: %s failed (%s)", self._name, self._fast.name, error)
            self._fast = self._linear = None
            return None

    def vectors(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the vectors before the last layer, float32 (B, d), of feature maps."""
        if self._linear is not None:
            return features.float().mean((2, 3))
        with torch.no_grad():
            return forward_head(self.module, features, pre_logits=True).float()
