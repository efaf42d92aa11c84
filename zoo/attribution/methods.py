"""Running of attribution methods: whole batches by the quick ones, one picture step by step by the slow ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.attribution import cams, stepwise  # noqa: F401 (fills the table of methods, in this order)
from zoo.attribution.features import ExplanationError, capture
from zoo.attribution.network import Model, Objective
from zoo.attribution.objectives import contrast, finer, score
from zoo.attribution.registry import DEFAULT, Method, Steps, method_of
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy_module("torch")
    nn = lazy_module("torch.nn")


@dataclass(frozen=True, eq=False)
class Cams:
    """Maps of a batch.

    Attributes:
        logits: float32 (B, classes).
        maps: float32 (B, h, w), ≥ 0 and not scaled.
        features: the backbone's output, where that is the layer that was explained.
    """

    logits: torch.Tensor
    maps: torch.Tensor
    features: torch.Tensor | None = None


def explain_batch(
    model: Model,
    batch: torch.Tensor,
    targets: torch.Tensor,
    method: str = DEFAULT,
    layer: str | None = None,
    against: torch.Tensor | None = None,
) -> Cams:
    """Compute the maps of a batch by a quick method.

    Args:
        model: a timm model, or a network behind a backend.
        batch: normalised (B, 3, H, W).
        targets: label numbers (B,), or PREDICTED.
        method: a key of METHODS.
        layer: as in `zoo.attribution.features.capture`.
        against: label numbers (B,) to set `targets` off from; None for all.

    Raises:
        ExplanationError: the method is slow or cannot compare two classes, or there is no such layer.
    """
    chosen = method_of(method)
    if chosen.formula is None:
        raise ExplanationError(f"{chosen.title} goes step by step.")
    features = capture(model, batch, _objective(chosen, targets, against), layer)
    with torch.autocast(batch.device.type, enabled=False):  # the network may run in bf16, the map must not
        maps = chosen.formula(features)
    is_last = layer is None and features.native.ndim == 4
    return Cams(features.logits, maps, features.native if is_last else None)


def steps(model: Model, picture: torch.Tensor, target: int, method: str, layer: str | None = None) -> Steps:
    """Start a slow method on one picture (1, 3, H, W), to be run step by step.

    Raises:
        ExplanationError: the method is quick.
    """
    chosen = method_of(method)
    if chosen.steps is None:
        raise ExplanationError(f"{chosen.title} is quick.")
    return chosen.steps(model, picture, target, layer)


def _objective(method: Method, targets: torch.Tensor, against: torch.Tensor | None) -> Objective | None:
    """The score whose gradient a method needs; None where it needs none."""
    if against is not None:
        if not method.contrasts:
            raise ExplanationError(f"{method.title} cannot set one class against another; choose Grad-CAM.")
        return contrast(targets, against)
    if not method.gradient:
        return None
    return finer(targets) if method.compares else score(targets)
