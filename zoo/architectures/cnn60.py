"""`cnn60`: system C's network for 60×60 pictures, 306,948 parameters with four classes."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from zoo.architectures._layers import PlainNetwork, check_options, default_cfg, dense

WIDTHS = (32, 64, 128)
GRID = 5  # side of the last feature map: ((60-2)/2-2)/2-2)/2, rounded down each time


class Cnn60(PlainNetwork):
    """Three valid 3×3 convolutions with max pooling and dropout, then dense 64, 128 and the classes."""

    def __init__(
        self,
        num_classes: int = 4,
        in_chans: int = 3,
        drop_rate: float = 0.25,
        global_pool: str = "",
        **kwargs: Any,
    ) -> None:
        check_options("cnn60", kwargs)
        blocks: list[nn.Module] = []
        for inside, outside in zip((in_chans, *WIDTHS), WIDTHS, strict=False):
            blocks += [nn.Conv2d(inside, outside, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(drop_rate)]
        hidden = dense(WIDTHS[-1] * GRID * GRID, (64, 128))
        super().__init__(nn.Sequential(*blocks), hidden, WIDTHS[-1], 128, num_classes, 12)


default_cfgs = generate_default_cfgs({"cnn60": default_cfg(60, "features.0")})


@register_model
def cnn60(pretrained: bool = False, **kwargs: Any) -> Cnn60:
    """Build system C's network; `pretrained` needs an entry's folder, as there are no general weights."""
    return build_model_with_cfg(Cnn60, "cnn60", pretrained, **kwargs)
