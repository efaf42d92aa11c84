"""Quick methods: formulas that turn the feature map and its gradient into maps of evidence, for whole batches.

Formulas (features A, gradient G, both (B, C, h, w)) as in pytorch-grad-cam, with which tests compare them. Each returns
maps (B, h, w), ≥ 0 and not scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.attribution.features import FeatureMap
from zoo.attribution.registry import DEFAULT, register_method
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")


@register_method(DEFAULT, "Grad-CAM", "parts whose features raise the class's score")
def grad_cam(features: FeatureMap) -> torch.Tensor:
    """Weight channels by their mean gradient (Selvaraju et al. 2017, arXiv:1610.02391)."""
    return _weighted(features.gradient.mean((2, 3)), features)


@register_method("grad-cam++", "Grad-CAM++", "as Grad-CAM, kinder to several objects")
def grad_cam_plus_plus(features: FeatureMap) -> torch.Tensor:
    """Weight channels by positive gradients, more where the score curves (Chattopadhay 2018, arXiv:1710.11063)."""
    square = features.gradient**2
    total = features.features.sum((2, 3), keepdim=True)
    share = square / (2 * square + total * square * features.gradient + 1e-6)
    return _weighted((features.gradient.relu() * share).sum((2, 3)), features)


@register_method("hires-cam", "HiResCAM", "exactly what the last layer adds up, place by place")
def hires_cam(features: FeatureMap) -> torch.Tensor:
    """Multiply gradient and features place by place (Draelos & Carin 2020, arXiv:2011.08891)."""
    return (features.gradient * features.features).sum(1).relu()


@register_method("layer-cam", "LayerCAM", "only what speaks for the class, place by place")
def layer_cam(features: FeatureMap) -> torch.Tensor:
    """Multiply positive gradient and features place by place (Jiang et al. 2021, doi:10.1109/TIP.2021.3089943)."""
    return (features.gradient.relu() * features.features).sum(1).relu()


@register_method("x-grad-cam", "XGradCAM", "as Grad-CAM, weighted by activation")
def x_grad_cam(features: FeatureMap) -> torch.Tensor:
    """Weight channels by gradients in proportion to activation (Fu et al. 2020, arXiv:2008.02312)."""
    total = features.features.sum((2, 3))
    return _weighted((features.gradient * features.features).sum((2, 3)) / (total + 1e-7), features)


@register_method("finer-cam", "FinerCAM", "what tells the class from the three most like it", compares=True)
def finer_cam(features: FeatureMap) -> torch.Tensor:
    """Apply Grad-CAM to the score compared with similar classes' (Zhang et al. 2025, arXiv:2501.11309)."""
    return grad_cam(features)


@register_method(
    "eigen-cam", "EigenCAM", "what stands out to the network, whatever the class", gradient=False, by_class=False
)
def eigen_cam(features: FeatureMap) -> torch.Tensor:
    """Project on the first principal component of the features (Muhammad & Yeasin 2020, arXiv:2008.00299)."""
    return _first_component(features.features)


@register_method("eigen-grad-cam", "EigenGradCAM", "what stands out among what matters to the class")
def eigen_grad_cam(features: FeatureMap) -> torch.Tensor:
    """Project on the first principal component of features times gradient."""
    return _first_component(features.features * features.gradient)


def _weighted(weights: torch.Tensor, features: FeatureMap) -> torch.Tensor:
    return (weights[:, :, None, None] * features.features).sum(1).relu()


def _first_component(values: torch.Tensor) -> torch.Tensor:
    """Places (B, h, w) along the first principal component of (B, C, h, w); negative ones are set to 0.

    The sign of a component is arbitrary. It is chosen so that the largest deviation is positive (Chung & Ying 2025,
    doi:10.3390/app15137562); otherwise half the maps would show what is not there.
    """
    places = values.flatten(2).transpose(1, 2)
    centred = places - places.mean(1, keepdim=True)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[:, 0]
    along = (centred @ direction[..., None])[..., 0]
    flipped = along.amin(1).abs() > along.amax(1).abs()
    along = torch.where(flipped[:, None], -along, along)
    return along.relu().unflatten(1, values.shape[2:])
