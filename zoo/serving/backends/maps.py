"""A detector's network behind its backend: maps of pictures of any size."""

from __future__ import annotations

import logging
import threading

import numpy as np

from zoo.serving.backends.openvino_backend import CompiledNetwork
from zoo.serving.backends.torch_backend import TorchBackend

LOG = logging.getLogger(__name__)


class ServedMaps:
    """A detector's network. Any number of threads may use it; batches run one after the other."""

    def __init__(self, name: str, torch_backend: TorchBackend, fast: CompiledNetwork | None = None) -> None:
        """Put the parts together.

        Args:
            name: of the entry, for messages.
            torch_backend: the network in torch, which is built when first needed, now if nothing else can run it.
            fast: the same network in another library.
        """
        self._name, self._torch, self._fast = name, torch_backend, fast
        self._lock = threading.Lock()
        if fast is None:
            _ = torch_backend.module

    @property
    def backend(self) -> str:
        """Name of the library that computes the passes."""
        return self._torch.name if self._fast is None else self._fast.name

    def __call__(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run a normalised batch, float32 (B, 3, H, W): logits and sides, see `CellDetector.forward`.

        A library that fails is not asked again.
        """
        with self._lock:
            if self._fast is not None:
                try:
                    logits, sides = self._fast.outputs(batch)
                except RuntimeError as error:
                    LOG.warning("%s runs on torch from now on: %s failed (%s)", self._name, self._fast.name, error)
                    self._fast = None
                else:
                    return logits, sides
            from zoo.detection.network import run_network  # noqa: PLC0415 (imports torch)

            return run_network(self._torch.module, batch)
