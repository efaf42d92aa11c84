"""A trained network as timm's own, so that plain timm loads what training writes.

A `transfer` network whose head only pools and drops out computes what the backbone's own head computes. It is written
as the backbone, after a comparison of answers; other heads need layers of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from training.recipe import Model
from zoo.architectures.transfer import GlobalAverage, Transfer

TOLERANCE = 1e-4  # largest difference of a logit


def plain_network(model: Model, trained: nn.Module) -> tuple[nn.Module, dict[str, Any]] | None:
    """Build timm's own network with the weights of a trained one.

    Args:
        model: The recipe's [model].
        trained: The trained network, on the CPU in evaluation mode.

    Returns:
        The network and its arguments for `timm.create_model`; None where timm's own would not give the same answers,
        or the trained one is no `transfer` network.
    """
    if not isinstance(trained, Transfer) or not isinstance(next(trained.fixed.children(), None), GlobalAverage):
        return None
    if not all(isinstance(layer, nn.Dropout) for layer in trained.head):
        return None
    arguments = dict(model.args)
    known = timm.get_pretrained_cfg(model.architecture)
    if known and known.fixed_input_size:
        arguments.setdefault("img_size", list(model.input_size))
    classes = trained.num_classes
    network: nn.Module = timm.create_model(model.architecture, num_classes=classes, **arguments).eval()
    name = classifier_name(network)
    if name is None:
        return None
    weights = {key.removeprefix("backbone."): value for key, value in trained.state_dict().items()}
    body = {key: value for key, value in weights.items() if not key.startswith("classifier.")}
    last = {f"{name}.{key}": value for key, value in trained.classifier.state_dict().items()}
    pictures = torch.randn(2, 3, *model.input_size, generator=torch.Generator().manual_seed(0))
    try:
        network.load_state_dict(body | last)
        with torch.no_grad():
            difference = float((network(pictures) - trained(pictures)).abs().max())
    except RuntimeError:  # its own head has other layers
        return None
    return (network, arguments) if difference <= TOLERANCE else None


def classifier_name(network: nn.Module) -> str | None:
    """Name of a timm network's last layer among its modules; None if it is not one linear layer."""
    get_classifier = getattr(network, "get_classifier", None)
    last = get_classifier() if get_classifier else None
    if not isinstance(last, nn.Linear):
        return None
    return next((name for name, module in network.named_modules() if module is last), None)


def as_transfer(weights: Mapping[str, torch.Tensor], classifier: str) -> dict[str, torch.Tensor]:
    """Rename the weights of timm's own network to those of a `transfer` network with it as the backbone."""
    renamed = {}
    for key, value in weights.items():
        own = key.startswith(f"{classifier}.")
        renamed[f"classifier{key.removeprefix(classifier)}" if own else f"backbone.{key}"] = value
    return renamed
