"""A torch network with a classical classifier in place of its last layer."""

from __future__ import annotations

import torch
from torch import nn

from zoo.attribution.features import forward_features, forward_head
from zoo.serving.heads.model import ClassicalHead


class ClassicalHeadModel(nn.Module):
    """A network whose last layer is a classical classifier: used like a timm model, but without gradients."""

    def __init__(self, network: nn.Module, head: ClassicalHead) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward_features(self, batch: torch.Tensor) -> torch.Tensor:
        """Compute the network's feature map of a batch (B, 3, H, W)."""
        return forward_features(self.network, batch)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Compute log probabilities float32 (B, classes) of a feature map, or the classifier's input (B, d)."""
        vectors = forward_head(self.network, features, pre_logits=True)
        if pre_logits:
            return vectors
        return torch.from_numpy(self.head.logits(vectors.float().cpu().numpy())).to(vectors.device)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Compute log probabilities (B, classes) of a batch (B, 3, H, W)."""
        return self.forward_head(self.forward_features(batch))
