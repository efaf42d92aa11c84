"""`minicnn`, `miniresnet`, `miniinception`: the networks that system D trains from scratch on 96×96 pictures.

The kinds of blocks, the dense layers of `minicnn`, the residual blocks' 32 → 128 filters and that the dense layers of
the other two get smaller are published; the other widths are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from zoo.architectures._layers import PlainNetwork, check_options, default_cfg, dense, initialise_glorot

SIDE = 96  # pixels


class MiniCnn(PlainNetwork):
    """Five convolutions with ReLU and max pooling, then dense 512, 256, 128, 64, 32."""

    def __init__(
        self, num_classes: int = 8, in_chans: int = 3, drop_rate: float = 0.0, global_pool: str = "", **kwargs: Any
    ) -> None:
        check_options("minicnn", kwargs)
        widths = (32, 64, 128, 256, 256)
        blocks: list[nn.Module] = []
        for inside, outside in zip((in_chans, *widths), widths, strict=False):
            blocks += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        hidden = dense(widths[-1] * (SIDE // 32) ** 2, (512, 256, 128, 64, 32), drop_rate)
        super().__init__(nn.Sequential(*blocks), hidden, widths[-1], 32, num_classes, 32)
        initialise_glorot(self)


class Residual(nn.Module):
    """Two 3×3 convolutions with batch norm around a shortcut (He et al. 2016), then 2×2 max pooling."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut = nn.Conv2d(inside, outside, 1, bias=False) if inside != outside else nn.Identity()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block: (B, inside, h, w) → (B, outside, h/2, w/2)."""
        return self.pool(torch.relu(self.body(x) + self.shortcut(x)))


class MiniResNet(PlainNetwork):
    """A stem and three residual blocks of 32, 64 and 128 filters, then dense layers (`hidden`) with dropout."""

    def __init__(
        self,
        num_classes: int = 8,
        in_chans: int = 3,
        drop_rate: float = 0.5,
        global_pool: str = "",
        hidden: Sequence[int] = (128,),
        **kwargs: Any,
    ) -> None:
        check_options("miniresnet", kwargs)
        stem = [nn.Conv2d(in_chans, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)]
        features = nn.Sequential(*stem, Residual(32, 32), Residual(32, 64), Residual(64, 128))
        super().__init__(
            features, dense(128 * (SIDE // 16) ** 2, tuple(hidden), drop_rate), 128, hidden[-1], num_classes, 16
        )


class Inception(nn.Module):
    """Four branches side by side, 1×1, 3×3, 5×5 and pooling (Szegedy et al. 2015), with batch norm; 2×2 max pooling."""

    def __init__(self, inside: int, width: int) -> None:
        super().__init__()
        self.one = _unit(inside, width, 1)
        self.three = nn.Sequential(_unit(inside, width, 1), _unit(width, width, 3))
        self.five = nn.Sequential(_unit(inside, width // 2, 1), _unit(width // 2, width // 2, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _unit(inside, width // 2, 1))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block: (B, inside, h, w) → (B, 3·width, h/2, w/2)."""
        return self.pool(torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1))


def _unit(inside: int, outside: int, side: int) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, side, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU())


class MiniInception(PlainNetwork):
    """Four inception blocks, then dense layers (`hidden`) with dropout."""

    def __init__(
        self,
        num_classes: int = 8,
        in_chans: int = 3,
        drop_rate: float = 0.5,
        global_pool: str = "",
        hidden: Sequence[int] = (128,),
        **kwargs: Any,
    ) -> None:
        check_options("miniinception", kwargs)
        widths = (16, 32, 48, 64)
        before = (in_chans, *(3 * width for width in widths))
        features = nn.Sequential(*(Inception(i, w) for i, w in zip(before, widths, strict=False)))
        last = 3 * widths[-1]
        super().__init__(
            features, dense(last * (SIDE // 16) ** 2, tuple(hidden), drop_rate), last, hidden[-1], num_classes, 16
        )


default_cfgs = generate_default_cfgs(
    {
        "minicnn": default_cfg(SIDE, "features.0", 8),
        "miniresnet": default_cfg(SIDE, "features.0", 8),
        "miniinception": default_cfg(SIDE, "features.0.one.0", 8),
    }
)


@register_model
def minicnn(pretrained: bool = False, **kwargs: Any) -> MiniCnn:
    """Build system D's plain network."""
    return build_model_with_cfg(MiniCnn, "minicnn", pretrained, **kwargs)


@register_model
def miniresnet(pretrained: bool = False, **kwargs: Any) -> MiniResNet:
    """Build system D's residual network."""
    return build_model_with_cfg(MiniResNet, "miniresnet", pretrained, **kwargs)


@register_model
def miniinception(pretrained: bool = False, **kwargs: Any) -> MiniInception:
    """Build system D's inception network."""
    return build_model_with_cfg(MiniInception, "miniinception", pretrained, **kwargs)
