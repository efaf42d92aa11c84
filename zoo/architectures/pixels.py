"""`pixels`: the identity; its features are the picture's own values, for classical classifiers on raw pixels."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from zoo.architectures._layers import PlainNetwork, check_options, default_cfg


class Pixels(PlainNetwork):
    """Input as features (B, 3, H, W), flattened as hidden vector. Without classes it has no parameters."""

    def __init__(
        self,
        num_classes: int = 0,
        in_chans: int = 3,
        input_size: tuple[int, int] = (128, 128),
        global_pool: str = "",
        **kwargs: Any,
    ) -> None:
        check_options("pixels", kwargs)
        width = in_chans * input_size[0] * input_size[1]
        super().__init__(nn.Identity(), nn.Flatten(), in_chans, width, num_classes, 1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the batch (B, 3, H, W) as it is."""
        return x


default_cfgs = generate_default_cfgs({"pixels": default_cfg(128, "features")})


@register_model
def pixels(pretrained: bool = False, **kwargs: Any) -> Pixels:
    """Build the input of system E's random forest."""
    return build_model_with_cfg(Pixels, "pixels", pretrained, **kwargs)
