"""Where in the picture is the evidence for a class? Grad-CAM without hooks or a backward pass through the backbone.

Selvaraju et al. 2017, arXiv:1610.02391. Must only be called from the one thread that owns the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

PREDICTED = -1  # in place of a label number


class ExplanationError(ValueError):
    """A model that offers no feature map; the message is a sentence for the user."""


@dataclass(frozen=True)
class Cams:
    """Logits (B, classes) and Grad-CAM maps (B, h, w), both float32; maps are ≥ 0 and not scaled."""

    logits: torch.Tensor
    maps: torch.Tensor


def split_forward(model: nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of the backbone and logits (B, classes) for a batch (B, 3, H, W); keeps no graph."""
    with torch.no_grad():
        features = model.forward_features(batch)
        return features, model.forward_head(features)


def gradcam(model: nn.Module, batch: torch.Tensor, classes: torch.Tensor | None, layer: str | None = None) -> Cams:
    """Grad-CAM of each picture of a batch (B, 3, H, W) for `classes` (B,): label numbers, or PREDICTED.

    None stands for PREDICTED everywhere.
    `layer` names a module whose output is explained; by default the last feature map, or `blocks[-1].norm1` of token
    models. Raises ExplanationError if there is no such layer or its output is no feature map.
    """
    if layer is None:
        features, logits = split_forward(model, batch)
        if features.ndim == 4:
            return _from_features(model, features, logits, classes)
        layer = "blocks.-1.norm1"
    return _from_layer(model, batch, classes, find_layer(model, layer))


def find_layer(model: nn.Module, path: str) -> nn.Module:
    """Module by dotted path, whose numbers may be negative. Raises ExplanationError if there is none."""
    place: nn.Module = model
    for part in path.split("."):
        try:
            place = place[int(part)] if part.lstrip("-").isdigit() else getattr(place, part)
        except (AttributeError, IndexError, TypeError, KeyError) as error:
            raise ExplanationError(
                f"This model has no layer {path} to explain; name one in its config.json."
            ) from error
    return place


def _from_features(
    model: nn.Module, features: torch.Tensor, logits: torch.Tensor, classes: torch.Tensor | None
) -> Cams:
    chosen = _chosen(logits, classes)
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        scores = model.forward_head(leaf)
        (gradient,) = torch.autograd.grad(scores.gather(1, chosen[:, None]).sum(), leaf)
    return Cams(logits.float(), _cam(feature_grid(leaf.detach(), model), feature_grid(gradient, model)))


def _from_layer(model: nn.Module, batch: torch.Tensor, classes: torch.Tensor | None, layer: nn.Module) -> Cams:
    kept: list[torch.Tensor] = []

    def cut(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        # the graph starts here: everything before runs without gradients
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    handle = layer.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            logits = model(batch)
            if not kept or not isinstance(kept[-1], torch.Tensor):
                raise ExplanationError("The layer to explain takes no part in this model's answer.")
            chosen = _chosen(logits.detach(), classes)
            (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), kept[-1])
    finally:
        handle.remove()
    return Cams(logits.detach().float(), _cam(feature_grid(kept[-1].detach(), model), feature_grid(gradient, model)))


def _chosen(logits: torch.Tensor, classes: torch.Tensor | None) -> torch.Tensor:
    best = logits.argmax(1)
    return best if classes is None else torch.where(classes == PREDICTED, best, classes)


def _cam(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    weights = gradient.float().mean((2, 3), keepdim=True)
    return (weights * features.float()).sum(1).relu()


def feature_grid(values: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """Feature map as (B, C, h, w), whatever the model's own layout."""
    if values.ndim == 4:
        channels = getattr(model, "num_features", values.shape[1])
        if values.shape[1] != channels and values.shape[3] == channels:
            return values.permute(0, 3, 1, 2)
        return values
    if values.ndim == 3 and hasattr(model, "patch_embed"):
        tokens = values[:, getattr(model, "num_prefix_tokens", 0) :]
        height, width = model.patch_embed.grid_size
        if tokens.shape[1] == height * width:
            return tokens.transpose(1, 2).unflatten(2, (height, width))
    raise ExplanationError("This model has no feature map that could be laid over the picture.")
