"""`colour_granularity`: numbers that describe the colours and the granularity of a cell, for classical classifiers.

System E's authors wish for a forest on them. What a crop masked, which is black, does not count.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from zoo.architectures._layers import PlainNetwork, check_options, default_cfg

BINS = 8  # of a channel's histogram
SCALES = (1, 2, 4, 8)  # pixels: grains of these radii are told apart
MASKED = 1 / 255  # brightest channel of a pixel, 0..1, up to which a crop masked it
TINY = 1e-6


class ColourGranularity(nn.Module):
    """Colours and granularity of what is not masked: (B, C, H, W) with values 0..1 → (B, width)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = channels * (2 + BINS + len(SCALES)) + 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute, for each channel, mean, spread, histogram and energy at each scale; and the share not masked."""
        inside = (x.amax(1, keepdim=True) > MASKED).to(x.dtype)
        count = inside.sum((2, 3)) + TINY
        mean = _mean(x, inside, count)
        spread = _deviation(x - mean[..., None, None], inside, count)
        middles = (torch.arange(BINS, device=x.device, dtype=x.dtype) + 0.5) / BINS
        # a pixel counts in the two nearest bins, so that the numbers have gradients
        bins = [_mean((1 - (x - middle).abs() * BINS).clamp(min=0), inside, count) for middle in middles]
        grains, finer = [], x
        for radius in SCALES:
            coarser = F.avg_pool2d(x, 2 * radius + 1, 1, radius, count_include_pad=False)
            grains.append(_deviation(finer - coarser, inside, count))
            finer = coarser
        return torch.cat([mean, spread, *bins, *grains, inside.mean((2, 3))], 1)


def _mean(x: torch.Tensor, inside: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    return (x * inside).sum((2, 3)) / count


def _deviation(x: torch.Tensor, inside: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    return (_mean(x.square(), inside, count) + TINY).sqrt()


class ColourFeatures(PlainNetwork):
    """The picture as feature map (B, 3, H, W), colours and granularity as hidden vector; no parameters of its own."""

    def __init__(self, num_classes: int = 0, in_chans: int = 3, global_pool: str = "", **kwargs: Any) -> None:
        check_options("colour_granularity", kwargs)
        hidden = ColourGranularity(in_chans)
        super().__init__(nn.Identity(), hidden, in_chans, hidden.width, num_classes, 1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the batch (B, 3, H, W) as it is."""
        return x


_cfg = {**default_cfg(128, "features"), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
default_cfgs = generate_default_cfgs({"colour_granularity": _cfg})


@register_model
def colour_granularity(pretrained: bool = False, **kwargs: Any) -> ColourFeatures:
    """Build the input of a forest on colour and granularity."""
    return build_model_with_cfg(ColourFeatures, "colour_granularity", pretrained, **kwargs)
