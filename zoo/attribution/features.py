"""What does a network see where, and what of it speaks for a class? Feature maps and gradients, without a trace left.

The last feature map needs no hook and no backward pass through the backbone: `forward_features` and `forward_head` of
timm are two halves of the model. Other layers need a hook, which is gone before anything is returned. Must only be
called from the one thread that owns the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

PREDICTED = -1  # in place of a label number
TOKENS = "blocks.-1.norm1"  # of token models: after the last block only the class token speaks

Objective = Callable[[torch.Tensor], torch.Tensor]  # logits (B, classes) → what is explained (B,)


class ExplanationError(ValueError):
    """A model, or a layer, that a method cannot explain; the message is a sentence for the user."""


@dataclass(frozen=True)
class Seen:
    """Of a batch: logits (B, classes) float32, feature map (B, C, h, w) and its gradient, or None where none was asked.

    `native` is the feature map as the layer gives it.
    """

    logits: torch.Tensor
    features: torch.Tensor
    gradient: torch.Tensor | None
    native: torch.Tensor


def split_forward(model: nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of the backbone and logits (B, classes) for a batch (B, 3, H, W); keeps no graph."""
    with torch.no_grad():
        features = model.forward_features(batch)
        return features, model.forward_head(features)


def look(model: nn.Module, batch: torch.Tensor, objective: Objective | None, layer: str | None = None) -> Seen:
    """Feature map of a batch (B, 3, H, W) at `layer`, and the objective's gradient there unless it is None.

    `layer` is a dotted path whose numbers may be negative; None stands for the last feature map, or TOKENS for token
    models. Raises ExplanationError if there is no such layer or its output is no feature map.
    """
    if layer is None:
        native, logits = split_forward(model, batch)
        if native.ndim == 4:
            gradient = None
            if objective is not None:
                with torch.enable_grad():
                    native = native.detach().requires_grad_()
                    (gradient,) = torch.autograd.grad(objective(model.forward_head(native)).sum(), native)
            return _seen(model, logits, native.detach(), gradient)
    return _at_layer(model, batch, objective, find_layer(model, layer or TOKENS))


def answers_to(model: nn.Module, batch: torch.Tensor, native: torch.Tensor, layer: str | None) -> torch.Tensor:
    """Logits (B, classes) of a batch (B, 3, H, W) whose feature map at `layer` is taken to be `native`."""
    with torch.no_grad():
        if layer is None and native.ndim == 4:
            return model.forward_head(native)
        with _hooked(find_layer(model, layer or TOKENS), lambda *_: native):
            return model(batch)


def find_layer(model: nn.Module, path: str) -> nn.Module:
    """Module by dotted path, whose numbers may be negative. Raises ExplanationError if there is none."""
    place: nn.Module = model
    for part in path.split("."):
        try:
            place = place[int(part)] if part.lstrip("-").isdigit() else getattr(place, part)
        except (AttributeError, IndexError, TypeError, KeyError) as error:
            raise ExplanationError(f"This model has no layer {path} to explain; choose another.") from error
    if not isinstance(place, nn.Module):
        raise ExplanationError(f"{path} is no layer of this model; choose another.")
    return place


def layers_of(model: nn.Module, size: tuple[int, int, int]) -> list[str]:
    """Paths of layers whose output can be explained, from the input on, for pictures of `size` (3, H, W).

    Of every resolution the last end of a stage, or all blocks of a token model. Tried on one picture: what gives no
    feature map is not named.
    """
    blocks = getattr(model, "blocks", None)
    tokens = isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) and hasattr(blocks[0], "norm1")
    names = [f"blocks.{number}.norm1" for number in range(len(blocks))] if tokens else _stages(model)
    batch = torch.zeros(1, *size, device=next(model.parameters()).device)
    found: dict[object, str] = {}
    for name in names:
        with contextlib.suppress(ExplanationError):
            seen = look(model, batch, None, name)
            if min(seen.features.shape[2:]) > 1:
                # of stages that see as many places the last; blocks all see as many
                found[name if tokens else tuple(seen.features.shape[2:])] = name
    return list(found.values())


def _stages(model: nn.Module) -> list[str]:
    """Ends of a network's stages: as timm names them, its backbone's, or the steps of its `features`."""
    infos = [info for info in getattr(model, "feature_info", []) if isinstance(info, dict)]
    if len(infos) > 1:
        return [info["module"] for info in infos if "module" in info]
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        return [f"backbone.{name}" for name in _stages(backbone)]
    features = getattr(model, "features", None)
    return [f"features.{n}" for n in range(len(features))] if isinstance(features, nn.Sequential) else []


def feature_grid(values: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """Feature map as (B, C, h, w), whatever the model's own layout. Raises ExplanationError if it is none."""
    axis = channel_axis(values, model)
    if values.ndim == 4:
        return values.movedim(axis, 1)
    tokens = values[:, getattr(model, "num_prefix_tokens", 0) :]
    height, width = model.patch_embed.grid_size
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def channel_axis(values: torch.Tensor, model: nn.Module) -> int:
    """Where the channels of a layer's output are. Raises ExplanationError if it is no feature map."""
    if values.ndim == 4:
        known = {getattr(model, "num_features", 0), *_widths(model)}
        return 3 if values.shape[1] not in known and values.shape[3] in known else 1
    if values.ndim == 3 and hasattr(model, "patch_embed"):
        height, width = model.patch_embed.grid_size
        if values.shape[1] - getattr(model, "num_prefix_tokens", 0) == height * width:
            return 2
    raise ExplanationError("This layer gives no feature map that could be laid over the picture; choose another.")


def _widths(model: nn.Module) -> list[int]:
    return [info["num_chs"] for info in getattr(model, "feature_info", []) if isinstance(info, dict)]


def _at_layer(model: nn.Module, batch: torch.Tensor, objective: Objective | None, layer: nn.Module) -> Seen:
    kept: list[torch.Tensor] = []

    def cut(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        if not isinstance(output, torch.Tensor):
            raise ExplanationError("This layer gives no feature map that could be laid over the picture.")
        # the graph starts here: everything before runs without gradients
        kept.append(output.detach().requires_grad_(objective is not None))
        return kept[-1]

    gradient = None
    with _hooked(layer, cut), torch.set_grad_enabled(objective is not None):
        logits = model(batch)
        if not kept:
            raise ExplanationError("The layer to explain takes no part in this model's answer.")
        if objective is not None:
            total = objective(logits).sum()
            if total.requires_grad:
                (gradient,) = torch.autograd.grad(total, kept[-1], allow_unused=True)
            if gradient is None:
                raise ExplanationError("The layer to explain takes no part in this model's answer.")
    return _seen(model, logits.detach(), kept[-1].detach(), gradient)


@contextlib.contextmanager
def _hooked(layer: nn.Module, hook: Callable) -> Iterator[None]:
    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _seen(model: nn.Module, logits: torch.Tensor, native: torch.Tensor, gradient: torch.Tensor | None) -> Seen:
    grid = feature_grid(native, model).float()
    return Seen(logits.float(), grid, None if gradient is None else feature_grid(gradient, model).float(), native)
