"""What does a model see in a picture, before it decides? Its pooled features: near each other for what looks alike."""

from __future__ import annotations

import torch
from torch import nn


def embed(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Pooled features (n, d), float32, of a normalised batch (n, 3, H, W), for any timm model."""
    return model.forward_head(model.forward_features(batch), pre_logits=True).float()
