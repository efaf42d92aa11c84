"""`inception_v3_keras`: timm's Inception-v3 whose average pools leave out the padding, as TensorFlow's and Keras's do.

Weights that were trained there answer here as they did there; with timm's own pools, features differ by a sixth.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.inception_v3 import InceptionA, InceptionC, InceptionE, InceptionV3
from torch import nn

from zoo.architectures._layers import check_options, default_cfg

WINDOW, STRIDE, PADDING = 3, 1, 1  # of all average pools inside the blocks


class KerasInceptionV3(InceptionV3):
    """Inception-v3 (Szegedy et al. 2016); names and shapes of its weights are those of timm's `inception_v3`."""

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        **kwargs: Any,
    ) -> None:
        check_options("inception_v3_keras", kwargs)
        super().__init__(num_classes, in_chans, drop_rate, global_pool)
        for block in self.modules():
            if isinstance(block, InceptionA | InceptionC | InceptionE):
                block.branch_pool.register_forward_pre_hook(_leave_out_padding)


def _leave_out_padding(_: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """Turn means that count the padding as zeros, (B, C, h, w), into means over the picture alone."""
    (means,) = inputs
    # share of each window that lies in the picture
    inside = F.avg_pool2d(torch.ones_like(means[:1, :1]), WINDOW, STRIDE, PADDING)
    return means / inside


_cfg = {**default_cfg(299, "Conv2d_1a_3x3.conv", 1000), "classifier": "fc", "pool_size": (8, 8)}
default_cfgs = generate_default_cfgs({"inception_v3_keras": _cfg})


@register_model
def inception_v3_keras(pretrained: bool = False, **kwargs: Any) -> KerasInceptionV3:
    """Build Inception-v3 as Keras computes it; `pretrained` needs an entry's folder or weights from a package."""
    return build_model_with_cfg(KerasInceptionV3, "inception_v3_keras", pretrained, **kwargs)
