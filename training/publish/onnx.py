"""Export of an entry's network as ONNX, checked against torch.

The file takes normalised pictures and gives calibrated probabilities. How pictures are prepared, and the labels in the
order of the outputs, are in its metadata (`metadata_props`), as JSON.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.entry import Entry, EntryError
from zoo.files import atomic_path
from zoo.serving.models.loading import load_model
from zoo.version import __version__

OPSET = 17
TOLERANCE = 1e-4  # largest difference of a probability from torch's
PICTURES = 2  # of the traced and the compared pass; any number can be run afterwards


class _Probabilities(nn.Module):
    """A network whose logits, divided by a temperature, become probabilities."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Compute probabilities (B, classes) of normalised pictures (B, 3, H, W)."""
        return (self.network(pictures) / self.temperature).softmax(1)


def export_onnx(entry: Entry, target: Path) -> float | None:
    """Write an entry's network as an ONNX file, and compare its answers with torch's.

    Args:
        entry: A network; an ensemble or a classical head has none that gives its answers.
        target: File to write.

    Returns:
        The largest difference of a probability; None where no runtime is installed that could compute it.

    Raises:
        EntryError: The package onnx is missing, the entry is not one network, it cannot be converted, or the file
            answers differently.
    """
    if importlib.util.find_spec("onnx") is None:
        raise EntryError(
            "The package onnx is not installed: pip install onnx onnxruntime, then give the command again."
        )
    onnx: Any = importlib.import_module("onnx")
    config = entry.config
    if config.zoo.members or config.zoo.head:
        kind = "an ensemble" if config.zoo.members else "a classical head on a network"
        raise EntryError(f"{entry.id} is {kind}, which is not one network: it cannot be exported as ONNX.")
    model = _Probabilities(load_model(entry), config.zoo.temperature).eval()
    size = config.pretrained_cfg.input_size
    pictures = torch.randn(PICTURES, *size, generator=torch.Generator().manual_seed(0))
    with atomic_path(target) as temporary:
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # tracing warns of every shape that it takes for constant; the file is compared below
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    model,
                    (pictures,),
                    str(temporary),
                    opset_version=OPSET,
                    input_names=["pictures"],
                    output_names=["probabilities"],
                    dynamic_axes={"pictures": {0: "batch"}, "probabilities": {0: "batch"}},
                    dynamo=False,
                )
        # an operation without a counterpart in ONNX is reported in many ways
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise EntryError(f"{entry.id} cannot be exported as ONNX: {reason}") from error
        content = onnx.load(str(temporary))
        onnx.helper.set_model_props(content, metadata(entry))
        onnx.save(content, str(temporary))
        found = _run(temporary, pictures.numpy())
        difference = None
        if found is not None:
            with torch.no_grad():
                difference = float(np.abs(found - model(pictures).numpy()).max())
            if difference > TOLERANCE:
                raise EntryError(f"{entry.id}: its ONNX file differs from torch by {difference:.1g}. It was not kept.")
    return difference


def metadata(entry: Entry) -> dict[str, str]:
    """Facts that a user of the file must know: labels, and how a picture becomes its input; values are text or JSON."""
    config, expected = entry.config, entry.config.pretrained_cfg
    preprocessing = {
        "color": "RGB",
        "cell_crop": config.zoo.crop,
        "input_size": list(expected.input_size),
        "crop_mode": expected.crop_mode,
        "crop_pct": expected.crop_pct,
        "interpolation": expected.interpolation,
        "scale": 1 / 255,
        "mean": list(expected.mean),
        "std": list(expected.std),
    }
    return {
        "labels": json.dumps(list(entry.labels)),
        "preprocessing": json.dumps(preprocessing),
        "output": "calibrated probabilities, in the order of labels",
        "title": entry.title,
        "id": entry.id,
        "hemazoo_version": config.zoo.hemazoo_version or __version__,
    }


def _run(path: Path, pictures: np.ndarray) -> np.ndarray | None:
    """The file's answers by ONNX Runtime, or OpenVINO, whichever is installed; None if neither is."""
    if importlib.util.find_spec("onnxruntime") is not None:
        runtime: Any = importlib.import_module("onnxruntime")
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"pictures": pictures})[0])
    if importlib.util.find_spec("openvino") is not None:
        openvino: Any = importlib.import_module("openvino")
        # the library goes by the ending of a name
        compiled = openvino.compile_model(
            openvino.Core().read_model(path.read_bytes(), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        return np.asarray(compiled([pictures])[0])
    return None
