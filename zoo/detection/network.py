"""A heat-map detector of cells on the features of a timm network.

Objects as points (Zhou et al. 2019) with boxes as distances to four sides (TTFNet, Liu et al. 2020), on a feature
pyramid (Lin et al. 2017) of stride 4, so that touching red cells stay apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import timm
import torch
from torch import nn
from torch.nn import functional

BOX_UNIT = 16.0  # pixels: distance to a side that an output of 0 means
PRIOR = 0.02  # confidence everywhere at the start of training
LEVELS = (1, 2, 3, 4)  # features of strides 4, 8, 16 and 32


class CellDetector(nn.Module):
    """Backbone, top-down pyramid, and two small heads.

    Args:
        objects: Number of kinds of objects.
        backbone: timm's name of the network whose features are used.
        width: Channels of the pyramid.
    """

    def __init__(self, objects: int = 3, backbone: str = "tf_efficientnet_lite0", width: int = 64) -> None:
        super().__init__()
        features: Any = timm.create_model(backbone, pretrained=False, features_only=True, out_indices=LEVELS)
        channels: list[int] = features.feature_info.channels()
        self.backbone = features
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.smooth = nn.ModuleList(_separable(width) for _ in channels)
        self.heat = _head(width, objects, float(torch.logit(torch.tensor(PRIOR))))
        self.sides = _head(width, 4, 0.0)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Find cells in pictures (B, 3, H, W), H and W multiples of 32.

        Returns:
            Logits (B, objects, H/4, W/4), and the distances in pixels from each place to the left, top, right and
            bottom of the box around it, (B, 4, H/4, W/4).
        """
        found: torch.Tensor | None = None
        levels = zip(self.backbone(x), self.lateral, self.smooth, strict=True)
        for features, lateral, smooth in reversed(list(levels)):
            here = lateral(features)
            found = smooth(
                here if found is None else here + functional.interpolate(found, scale_factor=2.0, mode="nearest")
            )
        assert found is not None
        return self.heat(found), BOX_UNIT * torch.exp(self.sides(found).clamp(-5, 5))


def run_network(network: nn.Module, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run a network in torch on a normalised batch, float32 (B, 3, H, W)."""
    with torch.inference_mode():
        logits, sides = network(torch.from_numpy(batch).contiguous(memory_format=torch.channels_last))
    return logits.numpy(), sides.numpy()


def _head(width: int, outputs: int, start: float) -> nn.Sequential:
    """Two layers and a 1×1 convolution whose outputs begin near `start`."""
    last = nn.Conv2d(width, outputs, 1)
    if last.bias is not None:
        nn.init.constant_(last.bias, start)
    return nn.Sequential(_separable(width), _separable(width), last)


def _separable(width: int) -> nn.Sequential:
    """A 5×5 convolution a channel and a 1×1 convolution over channels, each with batch norm."""
    return nn.Sequential(
        nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )
