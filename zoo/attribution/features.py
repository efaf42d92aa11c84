"""Feature maps of a network and gradients of a class's score there, leaving no hook or gradient behind.

The last feature map needs no hook and no backward pass through the backbone: timm's `forward_features` and
`forward_head` are two halves of the model, and the gradient of a linear head is known. Other layers need a hook, which
is removed before anything is returned. Only the thread that owns the model may call these functions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy_module("torch")
    nn = lazy_module("torch.nn")


from zoo.attribution.network import Model, Objective, linear_head_of, module_of, run

PREDICTED = -1  # in place of a label number: the predicted class
TOKEN_LAYER = "blocks.-1.norm1"  # layer explained in token models: after the last block only the class token counts


class ExplanationError(ValueError):
    """A model, or a layer, that a method cannot explain; the message is a sentence for the user."""


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """The feature map of a batch at one layer.

    Attributes:
        logits: float32 (B, classes).
        features: float32 (B, C, h, w).
        gradient: of the objective, float32 (B, C, h, w); empty where no objective was given.
        native: the feature map in the layer's own layout and type.
    """

    logits: torch.Tensor
    features: torch.Tensor
    gradient: torch.Tensor
    native: torch.Tensor


def forward_features(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Run a timm model's backbone on a batch (B, 3, H, W)."""
    network: Any = model  # nn.Module does not declare timm's methods
    return network.forward_features(batch)


def forward_head(model: nn.Module, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
    """Run a timm model's head on what its backbone gives: logits (B, classes), or the vectors (B, d) before them."""
    network: Any = model
    return network.forward_head(features, pre_logits=True) if pre_logits else network.forward_head(features)


def pooled_features(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Compute the vectors before the last layer, float32 (B, d), of a normalised batch (B, 3, H, W)."""
    return forward_head(model, forward_features(model, batch), pre_logits=True).float()


def capture(model: Model, batch: torch.Tensor, objective: Objective | None, layer: str | None = None) -> FeatureMap:
    """Compute the feature map of a batch, and the gradient of an objective there.

    Args:
        model: a timm model, or a network behind a backend.
        batch: normalised (B, 3, H, W).
        objective: score whose gradient is wanted, or None.
        layer: dotted path, whose numbers may be negative; None for the last feature map, or TOKEN_LAYER for token
            models.

    Raises:
        ExplanationError: there is no such layer, or its output is no feature map.
    """
    if layer is None:
        outputs, head = run(model, batch), linear_head_of(model)
        native, logits = outputs.features, outputs.logits
        if head is not None:
            known = torch.empty(0) if objective is None else head.gradient(native, logits, objective)
            return FeatureMap(logits, native.float(), known, native)
        if native.ndim == 4:
            module, gradient = module_of(model), None
            if objective is not None:
                with torch.enable_grad():
                    native = native.detach().requires_grad_()
                    (gradient,) = torch.autograd.grad(objective(forward_head(module, native)).sum(), native)
            return _feature_map(module, logits, native.detach(), gradient)
    module = module_of(model)
    return _capture_at_layer(module, batch, objective, find_layer(module, layer or TOKEN_LAYER))


def forward_from(model: Model, batch: torch.Tensor, native: torch.Tensor, layer: str | None) -> torch.Tensor:
    """Compute logits (B, classes) with the feature map at `layer` replaced by `native`.

    Args:
        model: a timm model, or a network behind a backend.
        batch: normalised (B, 3, H, W); not used where the replaced map is the last one.
        native: (B, …) in the layer's own layout.
        layer: as in `capture`.
    """
    head = linear_head_of(model)
    if layer is None and head is not None:
        return head.logits(native)
    module = module_of(model)
    with torch.no_grad():
        if layer is None and native.ndim == 4:
            return forward_head(module, native)
        with _hooked(find_layer(module, layer or TOKEN_LAYER), lambda *_: native):
            return module(batch)


def find_layer(model: nn.Module, path: str) -> nn.Module:
    """Find a module by its dotted path, whose numbers may be negative.

    Raises:
        ExplanationError: there is no such module.
    """
    place: object = model
    for part in path.split("."):
        try:
            if part.lstrip("-").isdigit() and isinstance(place, nn.Sequential | nn.ModuleList):
                place = place[int(part)]
            else:
                place = getattr(place, part)
        except (AttributeError, IndexError) as error:
            raise ExplanationError(f"This model has no layer {path} to explain; choose another.") from error
    if not isinstance(place, nn.Module):
        raise ExplanationError(f"{path} is no layer of this model; choose another.")
    return place


def layers_of(model: nn.Module, size: tuple[int, int, int]) -> list[str]:
    """List the layers whose output can be explained, from the input on.

    Args:
        model: a timm model.
        size: (3, H, W) of its input.

    Returns:
        Paths: of every resolution the end of the last stage, or all blocks of a token model. Each is tried on one
        picture; layers that give no feature map are not listed.
    """
    blocks = getattr(model, "blocks", None)
    tokens = isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) > 0 and hasattr(blocks[0], "norm1")
    names = [f"blocks.{number}.norm1" for number in range(len(blocks))] if tokens and blocks else _stages(model)
    batch = torch.zeros(1, *size, device=next(model.parameters()).device)
    layers: dict[object, str] = {}
    for name in names:
        with contextlib.suppress(ExplanationError):
            features = capture(model, batch, None, name).features
            if min(features.shape[2:]) > 1:
                # of stages with one resolution the last; all blocks have one resolution
                layers[name if tokens else tuple(features.shape[2:])] = name
    return list(layers.values())


def feature_grid(values: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """Bring a layer's output into the layout (B, C, h, w). Raises ExplanationError if it is no feature map."""
    axis = channel_axis(values, model)
    if values.ndim == 4:
        return values.movedim(axis, 1)
    tokens = values[:, _prefix_tokens(model) :]
    return tokens.transpose(1, 2).unflatten(2, _token_grid(model))


def channel_axis(values: torch.Tensor, model: nn.Module) -> int:
    """Find the axis of the channels in a layer's output. Raises ExplanationError if it is no feature map."""
    if values.ndim == 4:
        known = {getattr(model, "num_features", 0), *_widths(model)}
        return 3 if values.shape[1] not in known and values.shape[3] in known else 1
    if values.ndim == 3 and hasattr(model, "patch_embed"):
        height, width = _token_grid(model)
        if values.shape[1] - _prefix_tokens(model) == height * width:
            return 2
    raise ExplanationError("This layer gives no feature map that could be laid over the picture; choose another.")


def _prefix_tokens(model: nn.Module) -> int:
    """Tokens before those of the picture, such as the class token."""
    return int(getattr(model, "num_prefix_tokens", 0))


def _token_grid(model: nn.Module) -> tuple[int, int]:
    height, width = getattr(model.patch_embed, "grid_size", (0, 0))
    return int(height), int(width)


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


def _widths(model: nn.Module) -> list[int]:
    return [info["num_chs"] for info in getattr(model, "feature_info", []) if isinstance(info, dict)]


def _capture_at_layer(
    model: nn.Module, batch: torch.Tensor, objective: Objective | None, layer: nn.Module
) -> FeatureMap:
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        if not isinstance(output, torch.Tensor):
            raise ExplanationError("This layer gives no feature map that could be laid over the picture.")
        # the graph starts here: everything before runs without gradients
        kept.append(output.detach().requires_grad_(objective is not None))
        return kept[-1]

    gradient = None
    with _hooked(layer, keep), torch.set_grad_enabled(objective is not None):
        logits = model(batch)
        if not kept:
            raise ExplanationError("The layer to explain takes no part in this model's answer.")
        if objective is not None:
            total = objective(logits).sum()
            if total.requires_grad:
                (gradient,) = torch.autograd.grad(total, kept[-1], allow_unused=True)
            if gradient is None:
                raise ExplanationError("The layer to explain takes no part in this model's answer.")
    return _feature_map(model, logits.detach(), kept[-1].detach(), gradient)


@contextlib.contextmanager
def _hooked(layer: nn.Module, hook: Callable) -> Iterator[None]:
    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _feature_map(
    model: nn.Module, logits: torch.Tensor, native: torch.Tensor, gradient: torch.Tensor | None
) -> FeatureMap:
    grid = feature_grid(native, model).float()
    known = torch.empty(0) if gradient is None else feature_grid(gradient, model).float()
    return FeatureMap(logits.float(), grid, known, native)
