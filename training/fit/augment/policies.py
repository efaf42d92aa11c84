"""Augmentation policies of torchvision: RandAugment and AugMix."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from training.fit.augment.registry import Context, Phase, augmentation
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torchvision.transforms import v2
else:
    torch = lazy_module("torch")
    v2 = lazy_module("torchvision.transforms.v2")

Colour = tuple[int, int, int]


@augmentation(
    Phase.TENSOR, 0, "Magnitude of RandAugment's two operations; 0: none", order=30, uses_context=True, ge=0, le=30
)
def randaugment(picture: torch.Tensor, magnitude: int, context: Context) -> torch.Tensor:
    """Apply two random operations (Cubuk et al. 2020, RandAugment, arXiv:1909.13719)."""
    return _randaugment(magnitude, context.fill)(picture)


@augmentation(Phase.TENSOR, 0, "Severity of AugMix; 0: none", order=40, uses_context=True, ge=0, le=10)
def augmix(picture: torch.Tensor, severity: int, context: Context) -> torch.Tensor:
    """Mix chains of random operations (Hendrycks et al. 2020, AugMix, arXiv:1912.02781)."""
    return _augmix(severity, context.fill)(picture)


@cache
def _randaugment(magnitude: int, fill: Colour) -> v2.RandAugment:
    return v2.RandAugment(magnitude=magnitude, fill=list(fill))


@cache
def _augmix(severity: int, fill: Colour) -> v2.AugMix:
    return v2.AugMix(severity=severity, fill=list(fill))
