"""Which parts does a network tell apart in a picture? Deep feature factorisation (arXiv:1806.10206).

Non-negative factors of the feature map by pytorch-grad-cam; each is judged by the network's own head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from zoo.explain.features import look

PARTS = 4


@dataclass(frozen=True)
class Concepts:
    """`maps` (k, h, w) float32 in 0..1, and what the head says of each part alone: probabilities (k, classes)."""

    maps: np.ndarray
    probabilities: np.ndarray


def factorise(model: nn.Module, picture: torch.Tensor, layer: str | None = None, parts: int = PARTS) -> Concepts:
    """Parts of one picture (1, 3, H, W). Raises ExplanationError if the layer gives no feature map."""
    # imported where it is used: it brings scikit-learn and matplotlib, seconds that nobody else should wait
    from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff  # noqa: PLC0415

    seen = look(model, picture, None, layer)
    count = min(parts, seen.features.shape[1], seen.features[0, 0].numel())
    concepts, maps = dff(seen.features.cpu().numpy().copy(), count)
    maps = maps[0] / np.maximum(maps[0].max((1, 2), keepdims=True), 1e-9)
    return Concepts(maps.astype(np.float32), _judged(model, seen.native, concepts, layer))


def _judged(model: nn.Module, native: torch.Tensor, concepts: np.ndarray, layer: str | None) -> np.ndarray:
    """What the head says of feature maps that hold nothing but one concept; nan where the layer is not the last."""
    count = concepts.shape[1]
    if layer is not None or native.ndim != 4:
        return np.full((count, 0), np.nan)
    vectors = torch.from_numpy(np.float32(concepts.T)).to(native.device, native.dtype)
    axis = 1 if native.shape[1] == vectors.shape[1] else 3
    shape = [count, *[1] * 3]
    shape[axis] = vectors.shape[1]
    with torch.no_grad():
        spread = vectors.reshape(shape).expand(count, *native.shape[1:])
        return model.forward_head(spread.contiguous()).float().softmax(1).cpu().numpy()
