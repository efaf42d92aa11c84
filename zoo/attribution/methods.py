"""Where in the picture is the evidence for a class? All methods behind one table; a new one is a line in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from zoo.attribution import cams, stepwise
from zoo.attribution.features import PREDICTED, ExplanationError, Seen, look
from zoo.attribution.objectives import contrast, finer, score
from zoo.attribution.stepwise import Steps

__all__ = [
    "DEFAULT",
    "METHODS",
    "PREDICTED",
    "Cams",
    "ExplanationError",
    "Method",
    "explain_batch",
    "method_of",
    "steps",
]

DEFAULT, MODEL_FREE = "grad-cam", "occlusion"


@dataclass(frozen=True)
class Method:
    """A method: `formula` for whole batches, or `steps` for the slow ones. `about` is a line for people.

    `gradient` says whether the objective's gradient is needed, `by_class` whether the map depends on the class at all.
    """

    title: str
    about: str
    formula: Callable[[Seen], torch.Tensor] | None = None
    steps: Callable[[nn.Module, torch.Tensor, int, str | None], Steps] | None = None
    gradient: bool = True
    by_class: bool = True
    compares: bool = False
    any_model: bool = False

    @property
    def contrasts(self) -> bool:
        """Whether it can set one class against another."""
        return self.quick and self.gradient and not self.compares

    @property
    def quick(self) -> bool:
        """Whether whole batches are explained at about the cost of classifying them."""
        return self.formula is not None


@dataclass(frozen=True)
class Cams:
    """Logits (B, classes) and maps (B, h, w), both float32; maps are ≥ 0 and not scaled.

    `features` is what the backbone gave, where that is what was explained.
    """

    logits: torch.Tensor
    maps: torch.Tensor
    features: torch.Tensor | None = None


METHODS = {
    DEFAULT: Method("Grad-CAM", "parts whose features raise the class's score", cams.grad_cam),
    "grad-cam++": Method("Grad-CAM++", "as Grad-CAM, kinder to several objects", cams.grad_cam_plus_plus),
    "hires-cam": Method("HiResCAM", "exactly what the last layer adds up, place by place", cams.hires_cam),
    "layer-cam": Method("LayerCAM", "only what speaks for the class, place by place", cams.layer_cam),
    "x-grad-cam": Method("XGradCAM", "as Grad-CAM, weighted by activation", cams.x_grad_cam),
    "finer-cam": Method("FinerCAM", "what tells the class from the three most like it", cams.grad_cam, compares=True),
    "eigen-cam": Method(
        "EigenCAM", "what stands out to the network, whatever the class", cams.eigen_cam, gradient=False, by_class=False
    ),
    "eigen-grad-cam": Method("EigenGradCAM", "what stands out among what matters to the class", cams.eigen_grad_cam),
    "score-cam": Method(
        "ScoreCAM", "without gradients: the picture seen through each channel; slow", steps=stepwise.score_cam
    ),
    "ablation-cam": Method(
        "AblationCAM", "without gradients: each channel taken away; slow", steps=stepwise.ablation_cam
    ),
    "integrated-gradients": Method(
        "Integrated gradients", "pixels, from a blurred picture to the sharp one", steps=stepwise.integrated_gradients
    ),
    MODEL_FREE: Method(
        "Occlusion", "what is lost when a patch hides the picture; any model", steps=stepwise.occlusion, any_model=True
    ),
}


def method_of(name: str) -> Method:
    """A method by its name. Raises ExplanationError if there is none."""
    if name not in METHODS:
        raise ExplanationError(f"There is no method {name!r}. Choose one of {', '.join(METHODS)}.")
    return METHODS[name]


def explain_batch(
    model: nn.Module,
    batch: torch.Tensor,
    targets: torch.Tensor,
    method: str = DEFAULT,
    layer: str | None = None,
    against: torch.Tensor | None = None,
) -> Cams:
    """Maps of a batch (B, 3, H, W) by a quick method, for `targets` (B,): label numbers, or PREDICTED.

    With `against` (B,), for what tells these from those. Raises ExplanationError if the method cannot do that, or as
    `features.look`.
    """
    found = method_of(method)
    if found.formula is None:
        raise ExplanationError(f"{found.title} goes step by step.")
    objective = None
    if found.gradient:
        objective = finer(targets) if found.compares else score(targets)
    if against is not None and found.contrasts:
        objective = contrast(targets, against)
    elif against is not None:
        raise ExplanationError(f"{found.title} cannot set one class against another; choose Grad-CAM.")
    seen = look(model, batch, objective, layer)
    with torch.autocast(batch.device.type, enabled=False):  # the network may run in bf16, the map must not
        maps = found.formula(seen)
    return Cams(seen.logits, maps, seen.native if layer is None and seen.native.ndim == 4 else None)


def steps(model: nn.Module, picture: torch.Tensor, target: int, method: str, layer: str | None = None) -> Steps:
    """A slow method on one picture (1, 3, H, W), to be run step by step. Raises ExplanationError."""
    found = method_of(method)
    if found.steps is None:
        raise ExplanationError(f"{found.title} is quick.")
    return found.steps(model, picture, target, layer)
