"""Torch: any device, any architecture, and gradients. Its network is built when first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zoo.attribution.network import Outputs, run
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy_module("torch")


class TorchBackend:
    """A torch network that is built when first needed."""

    name = "torch"

    def __init__(self, load: Callable[[], nn.Module], device: torch.device | str) -> None:
        """Remember how to build the network.

        Args:
            load: builds the network, in evaluation mode.
            device: where it runs.
        """
        self._load, self._device = load, device
        self._module: nn.Module | None = None

    @property
    def module(self) -> nn.Module:
        """The network on its device. Raises what `load` raises."""
        if self._module is None:
            self._module = self._load().to(self._device).to(memory_format=torch.channels_last)
        return self._module

    @property
    def bytes(self) -> int:
        """Memory for the weights; 0 before the network is built."""
        return 0 if self._module is None else sum(p.numel() * p.element_size() for p in self._module.parameters())

    def predict(self, batch: torch.Tensor, vectors: bool = False) -> Outputs:
        """Run a normalised batch (B, 3, H, W), with the vectors before the last layer if wanted."""
        return run(self.module, batch, vectors)
