"""Converted backbones in the cache folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from training.backbones.table import Backbone, backbones
from zoo.cache import cache_folder


class FetchError(RuntimeError):
    """A backbone that cannot be fetched or loaded; the message says what to do."""


def stored_file(backbone: Backbone) -> Path:
    """The file of a converted backbone, which need not exist."""
    return cache_folder() / "backbones" / f"{backbone.name}-{backbone.package}-{backbone.version}.safetensors"


def load_fetched(architecture: str, network: nn.Module) -> None:
    """Load the fetched weights of an architecture into a network without its classifier. Raises FetchError."""
    path = fetched(architecture)
    try:
        fill(network, load_file(path))
    except (SafetensorError, OSError) as error:
        raise FetchError(f"{path} cannot be read: {error}. Delete it and run fetch-backbone again.") from error


def fetched(architecture: str) -> Path:
    """The file of the fetched weights of an architecture. Raises FetchError with what to do if there is none."""
    known = {one.architecture: one for one in backbones().values()}
    if architecture not in known:
        raise FetchError(f"No package is known with weights of {architecture}. There are: {', '.join(known)}.")
    backbone = known[architecture]
    path = stored_file(backbone)
    if not path.is_file():
        raise FetchError(
            f"The weights of {backbone.name} are not here. Run `python -m training fetch-backbone {backbone.name}`."
        )
    return path


def fill(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load weights into a network; what the network's own head has more is left. Raises FetchError if they differ."""
    own = network.state_dict()
    if unknown := [key for key in weights if key not in own or own[key].shape != weights[key].shape]:
        raise FetchError(f"The weights do not fit the network: {unknown[0]}.")
    network.load_state_dict(dict(weights), strict=False)
