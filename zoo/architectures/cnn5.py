"""`cnn5_224` (system A) and `cnn5_128` (system E): five convolutions with batch norm, then wide dense layers.

`cnn5_128` has 36,752,644 trainable parameters and 2,432 batch-norm statistics with four classes, as published; of
`cnn5_224` no figure was published; its first convolution is described as "valid", the others keep the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from zoo.architectures._layers import PlainNetwork, check_options, default_cfg, dense


@dataclass(frozen=True)
class Shape:
    """Sizes of the layers: filters of each convolution, whether a 2×2 max pooling follows it, units of dense layers."""

    filters: tuple[int, ...]
    pooled: tuple[bool, ...]
    first_valid: bool
    grid: int  # side of the last feature map
    units: tuple[int, ...]


SHAPES = {
    "cnn5_224": Shape((64, 128, 256, 256, 256), (True, True, False, True, True), True, 13, (512,)),
    "cnn5_128": Shape((64, 128, 256, 256, 512), (True, True, False, True, True), False, 8, (1024, 1024)),
}


class Cnn5(PlainNetwork):
    """3×3 convolution, ReLU, batch norm and pooling five times, then dense layers with dropout and the classes."""

    def __init__(
        self,
        shape: Shape,
        num_classes: int = 4,
        in_chans: int = 3,
        drop_rate: float = 0.5,
        global_pool: str = "",
        **kwargs: Any,
    ) -> None:
        check_options("cnn5", kwargs)
        blocks = _blocks(shape, in_chans)
        last = shape.filters[-1]
        hidden = dense(last * shape.grid**2, shape.units, drop_rate)
        super().__init__(nn.Sequential(*blocks), hidden, last, shape.units[-1], num_classes, 16)


def _blocks(shape: Shape, in_chans: int) -> Sequence[nn.Module]:
    blocks: list[nn.Module] = []
    before = (in_chans, *shape.filters)
    for number, (inside, outside, pooled) in enumerate(zip(before, shape.filters, shape.pooled, strict=False)):
        padding = 0 if shape.first_valid and number == 0 else 1
        blocks += [nn.Conv2d(inside, outside, 3, padding=padding), nn.ReLU(), nn.BatchNorm2d(outside)]
        blocks += [nn.MaxPool2d(2)] if pooled else []
    return blocks


default_cfgs = generate_default_cfgs(
    {"cnn5_224": default_cfg(224, "features.0"), "cnn5_128": default_cfg(128, "features.0")}
)


@register_model
def cnn5_224(pretrained: bool = False, **kwargs: Any) -> Cnn5:
    """Build system A's network."""
    return build_model_with_cfg(Cnn5, "cnn5_224", pretrained, shape=SHAPES["cnn5_224"], **kwargs)


@register_model
def cnn5_128(pretrained: bool = False, **kwargs: Any) -> Cnn5:
    """Build system E's network."""
    return build_model_with_cfg(Cnn5, "cnn5_128", pretrained, shape=SHAPES["cnn5_128"], **kwargs)
