"""How do a feature map and its gradient become a map of evidence? One formula a method, for whole batches.

Formulas (features A, gradient G, both (B, C, h, w)) as in pytorch-grad-cam, with which tests compare them.
"""

from __future__ import annotations

import torch

from zoo.attribution.features import Seen


def grad_cam(seen: Seen) -> torch.Tensor:
    """Channels weighted by their mean gradient (Selvaraju et al. 2017, arXiv:1610.02391)."""
    return _weighted(seen.gradient.mean((2, 3)), seen)


def grad_cam_plus_plus(seen: Seen) -> torch.Tensor:
    """Channels weighted by positive gradients, places of high curvature more (Chattopadhay 2018, arXiv:1710.11063)."""
    square = seen.gradient**2
    total = seen.features.sum((2, 3), keepdim=True)
    share = square / (2 * square + total * square * seen.gradient + 1e-6)
    return _weighted((seen.gradient.relu() * share).sum((2, 3)), seen)


def hires_cam(seen: Seen) -> torch.Tensor:
    """Gradient times features, place by place (Draelos & Carin 2020, arXiv:2011.08891)."""
    return (seen.gradient * seen.features).sum(1).relu()


def layer_cam(seen: Seen) -> torch.Tensor:
    """Positive gradient times features, place by place (Jiang et al. 2021, doi:10.1109/TIP.2021.3089943)."""
    return (seen.gradient.relu() * seen.features).sum(1).relu()


def x_grad_cam(seen: Seen) -> torch.Tensor:
    """Channels weighted by gradients in proportion to activation (Fu et al. 2020, arXiv:2008.02312)."""
    total = seen.features.sum((2, 3))
    return _weighted((seen.gradient * seen.features).sum((2, 3)) / (total + 1e-7), seen)


def eigen_cam(seen: Seen) -> torch.Tensor:
    """First principal component of the features, whatever the class (Muhammad & Yeasin 2020, arXiv:2008.00299)."""
    return _first_component(seen.features)


def eigen_grad_cam(seen: Seen) -> torch.Tensor:
    """First principal component of features times gradient."""
    return _first_component(seen.features * seen.gradient)


def _weighted(weights: torch.Tensor, seen: Seen) -> torch.Tensor:
    return (weights[:, :, None, None] * seen.features).sum(1).relu()


def _first_component(values: torch.Tensor) -> torch.Tensor:
    """Places (B, h, w) along the first principal component of (B, C, h, w); negative ones are cut off.

    The sign of a component is chance. It is chosen so that the largest deviation is positive (Chung & Ying 2025,
    doi:10.3390/app15137562), else half the maps would show what is not there.
    """
    places = values.flatten(2).transpose(1, 2)
    centred = places - places.mean(1, keepdim=True)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[:, 0]
    found = (centred @ direction[..., None])[..., 0]
    flipped = found.amin(1).abs() > found.amax(1).abs()
    found = torch.where(flipped[:, None], -found, found)
    return found.relu().unflatten(1, values.shape[2:])
