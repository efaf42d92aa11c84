"""OpenVINO: one and a half to several times as fast as torch on most processors, in float32.

The library is imported when it is first used. Networks are converted by its PyTorch frontend (`convert`), not by
`convert_model`, which reports each conversion to the library's makers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from zoo.serving.backends.base import Arrays
from zoo.threads import compute_threads

WEIGHT_COPIES = 2  # the library keeps the stored weights and those in the layout of the processor


def is_installed() -> bool:
    """Whether the library can be imported."""
    return importlib.util.find_spec("openvino") is not None


@lru_cache(1)
def core() -> Any:
    """The library's runtime, one for the process."""
    import openvino  # noqa: PLC0415

    return openvino.Core()


def processor() -> list[str]:
    """Name and abilities of the processor that the library sees: a converted network is for this one alone."""
    return [str(core().get_property("CPU", name)) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]


class CompiledNetwork:
    """A converted network, compiled for this processor. Only one thread may run it."""

    name = "openvino"

    def __init__(self, path: Path) -> None:
        """Read and compile a network that `convert` has stored.

        Args:
            path: the .xml file.

        Raises:
            RuntimeError: the files cannot be read.
        """
        compiled = core().compile_model(
            str(path),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": compute_threads(),
                "ENABLE_CPU_PINNING": False,
            },
        )
        lengths = [compiled.input(0).partial_shape[axis] for axis in (1, 2, 3)]
        self._shape = tuple(None if length.is_dynamic else length.get_length() for length in lengths)
        self._request = compiled.create_infer_request()
        self._bytes = WEIGHT_COPIES * path.with_suffix(".bin").stat().st_size

    @property
    def bytes(self) -> int:
        """Memory for the weights."""
        return self._bytes

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether it can run a batch of this shape: pictures of the size for which it was converted."""
        if shape[0] < 1 or len(shape) != 1 + len(self._shape):
            return False
        return all(wanted in (None, length) for wanted, length in zip(self._shape, shape[1:], strict=True))

    def outputs(self, batch: np.ndarray) -> list[np.ndarray]:
        """Run a normalised batch, float32 (B, 3, H, W). Raises RuntimeError if the library fails."""
        found = self._request.infer([batch], share_inputs=True)
        return [np.asarray(array, np.float32) for array in found.to_tuple()]


class OpenVinoBackend(CompiledNetwork):
    """A converted classifier."""

    def __init__(self, path: Path, classify: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        """Read and compile a network.

        Args:
            path: the .xml file.
            classify: computes logits (B, classes) of vectors (B, d), where the network has none of its own.

        Raises:
            RuntimeError: the files cannot be read.
        """
        super().__init__(path)
        self._classify = classify

    def predict(self, batch: np.ndarray) -> Arrays:
        """Run a normalised batch, float32 (B, 3, H, W); see `Backend.predict`."""
        outputs = self.outputs(batch)
        features, vectors = outputs[:2]
        return Arrays(outputs[2] if self._classify is None else self._classify(vectors), features, vectors)
