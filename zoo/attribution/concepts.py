"""Parts that a network distinguishes in a picture: deep feature factorisation (Collins et al. 2018, arXiv:1806.10206).

Non-negative factors of the feature map by pytorch-grad-cam; each is classified by the network's own head.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.attribution.features import forward_from
from zoo.attribution.network import Model
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

PARTS = 4


@dataclass(frozen=True, eq=False)
class Concepts:
    """Parts of one picture.

    Attributes:
        maps: float32 (k, h, w) in 0..1.
        probabilities: what the head answers to each part alone, (k, classes); (k, 0) where there is no head.
    """

    maps: np.ndarray
    probabilities: np.ndarray


def factorise(features: torch.Tensor, parts: int = PARTS) -> tuple[np.ndarray, np.ndarray]:
    """Factorise one picture's feature map (1, C, h, w) into non-negative parts.

    Returns:
        Maps (k, h, w) in 0..1, and vectors (k, C).
    """
    # imported here because it takes seconds: it brings scikit-learn and matplotlib
    from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff  # noqa: PLC0415
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    count = min(parts, features.shape[1], features[0, 0].numel())
    with warnings.catch_warnings():
        # the factors are for looking at: their last decimals do not matter
        warnings.simplefilter("ignore", ConvergenceWarning)
        vectors, maps = dff(features.cpu().numpy().copy(), count)
    scaled = maps[0] / np.maximum(maps[0].max((1, 2), keepdims=True), 1e-9)
    return scaled.astype(np.float32), vectors.T.astype(np.float32)


def classify_parts(model: Model, native: torch.Tensor, vectors: np.ndarray, layer: str | None) -> np.ndarray:
    """Classify feature maps that hold nothing but one vector.

    Args:
        model: a timm model, or a network behind a backend.
        native: the picture's feature map in the layer's own layout.
        vectors: (k, C), as `factorise` gives them.
        layer: path of the layer; None for the last.

    Returns:
        Probabilities (k, classes); (k, 0) where the layer is not the last, for which there is no head.
    """
    count, channels = vectors.shape
    if layer is not None or native.ndim != 4:
        return np.zeros((count, 0), np.float32)
    values = torch.from_numpy(vectors).to(native.device, native.dtype)
    shape = [count, 1, 1, 1]
    shape[1 if native.shape[1] == channels else 3] = channels
    spread = values.reshape(shape).expand(count, *native.shape[1:]).contiguous()
    return forward_from(model, spread, spread, layer).float().softmax(1).cpu().numpy()
