"""Which parts does a network tell apart in a picture? Deep feature factorisation (arXiv:1806.10206).

Non-negative factors of the feature map by pytorch-grad-cam; each is judged by the network's own head.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

PARTS = 4


@dataclass(frozen=True)
class Concepts:
    """`maps` (k, h, w) float32 in 0..1, and what the head says of each part alone: probabilities (k, classes)."""

    maps: np.ndarray
    probabilities: np.ndarray


def factorise(features: torch.Tensor, parts: int = PARTS) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative factors of one picture's feature map (1, C, h, w): maps (k, h, w) in 0..1 and vectors (k, C)."""
    # imported where it is used: it brings scikit-learn and matplotlib, seconds that nobody else should wait
    from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff  # noqa: PLC0415
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    count = min(parts, features.shape[1], features[0, 0].numel())
    with warnings.catch_warnings():
        # the factors are looked at: their last decimals do not matter
        warnings.simplefilter("ignore", ConvergenceWarning)
        vectors, maps = dff(features.cpu().numpy().copy(), count)
    return (maps[0] / np.maximum(maps[0].max((1, 2), keepdims=True), 1e-9)).astype(np.float32), np.float32(vectors.T)


def judge(model: nn.Module, native: torch.Tensor, vectors: np.ndarray, layer: str | None) -> np.ndarray:
    """What the head says of feature maps that hold nothing but one vector: probabilities (k, classes).

    (k, 0) where the layer is not the last, for which there is no head.
    """
    count, channels = vectors.shape
    if layer is not None or native.ndim != 4:
        return np.zeros((count, 0), np.float32)
    values = torch.from_numpy(vectors).to(native.device, native.dtype)
    shape = [count, 1, 1, 1]
    shape[1 if native.shape[1] == channels else 3] = channels
    with torch.no_grad():
        spread = values.reshape(shape).expand(count, *native.shape[1:])
        return model.forward_head(spread.contiguous()).float().softmax(1).cpu().numpy()
