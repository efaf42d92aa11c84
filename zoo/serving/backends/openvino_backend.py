"""OpenVINO: one and a half to several times as fast as torch on most processors, in float32.

The library is imported when it is first used. Networks are converted by its PyTorch frontend, not by `convert_model`,
which reports each conversion to the library's makers.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.attribution.network import Outputs

EXAMPLE_PICTURES = 2  # of the traced pass; any number of pictures can be run afterwards
WEIGHT_COPIES = 2  # the library keeps the stored weights and those in the layout of the processor


def is_installed() -> bool:
    """Whether the library can be imported."""
    return importlib.util.find_spec("openvino") is not None


@lru_cache(1)
def core() -> Any:
    """The library's runtime, one for the process."""
    import openvino  # noqa: PLC0415

    return openvino.Core()


def processor() -> str:
    """Name of the processor that the library sees: a compiled network is for this one alone."""
    return str(core().get_property("CPU", "FULL_DEVICE_NAME"))


class _Traced(nn.Module):
    """A timm model as one pass with its features, vectors and, unless a classical head follows, logits."""

    def __init__(self, model: nn.Module, logits: bool) -> None:
        super().__init__()
        self.model, self.logits = model, logits

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the outputs of a batch (B, 3, H, W)."""
        network: Any = self.model
        features = network.forward_features(batch)
        vectors = network.forward_head(features, pre_logits=True)
        if not self.logits:
            return features, vectors
        last = network.get_classifier()
        # most heads end in one layer: the vectors need not be computed twice
        logits = last(vectors) if isinstance(last, nn.Linear) else network.forward_head(features)
        return features, vectors, logits


def convert(model: nn.Module, size: tuple[int, int, int], logits: bool, target: Path) -> None:
    """Convert a torch network and store it.

    Args:
        model: a timm model on the CPU, in evaluation mode.
        size: (3, H, W) of its input.
        logits: whether its own logits are wanted; False where a classical head takes its vectors.
        target: file to write, ending in .xml; the weights are written beside it.

    Raises:
        Exception: whatever tracing, the conversion or writing raises.
    """
    import openvino  # noqa: PLC0415
    from openvino.frontend import FrontEndManager  # noqa: PLC0415
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: PLC0415

    with torch.no_grad(), warnings.catch_warnings():
        # tracing warns of every shape that it takes for constant; the converted network is compared with torch's
        warnings.simplefilter("ignore")
        traced = TorchScriptPythonDecoder(
            _Traced(model, logits),
            example_input=(torch.zeros(EXAMPLE_PICTURES, *size),),
            trace_kwargs={"check_trace": False},
        )
        frontend = FrontEndManager().load_by_framework("pytorch")
        converted = frontend.convert(frontend.load(traced))
    converted.reshape({0: openvino.PartialShape([-1, *size])})
    openvino.save_model(converted, str(target), compress_to_fp16=False)


class OpenVinoBackend:
    """A converted network, compiled for this processor."""

    name = "openvino"

    def __init__(self, path: Path, classify: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        """Read and compile a network that `convert` has stored.

        Args:
            path: the .xml file.
            classify: computes logits (B, classes) of vectors (B, d), where the network has none of its own.

        Raises:
            RuntimeError: the files cannot be read.
        """
        compiled = core().compile_model(
            str(path),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._shape = tuple(compiled.input(0).partial_shape[axis].get_length() for axis in (1, 2, 3))
        self._request = compiled.create_infer_request()
        self._classify = classify
        self._bytes = WEIGHT_COPIES * path.with_suffix(".bin").stat().st_size

    @property
    def bytes(self) -> int:
        """Memory for the weights."""
        return self._bytes

    def accepts(self, batch: torch.Tensor) -> bool:
        """Whether it can run a batch of this shape: pictures of the size for which it was converted."""
        return len(batch) > 0 and tuple(batch.shape[1:]) == self._shape

    def predict(self, batch: torch.Tensor, vectors: bool = False) -> Outputs:
        """Run a normalised batch (B, 3, H, W); see `Backend.predict`."""
        found = self._request.infer([batch.detach().float().contiguous().numpy()], share_inputs=True)
        outputs = [torch.from_numpy(array) for array in found.to_tuple()]
        features, before = outputs[0], outputs[1].float()
        logits = outputs[2] if self._classify is None else self._classify(before)
        return Outputs(logits.float(), features, before)
