"""`efficientnet_lite0_gn`: EfficientNet-Lite0 whose norms are of a picture's own groups of channels, not of a batch.

What a laboratory's light and stain make of a channel is then taken out picture by picture, and there are no statistics
that fit one laboratory alone. Group normalisation: Wu and He, 2018.
"""

from __future__ import annotations

from functools import partial
from inspect import signature

from timm.layers import GroupNormAct
from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet, efficientnet_lite0

from zoo.architectures._layers import check_options

NAME = "efficientnet_lite0_gn"
KNOWN = {*signature(EfficientNet).parameters, "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}

default_cfgs = generate_default_cfgs(
    {
        NAME: {
            "input_size": (3, 224, 224),
            "num_classes": 8,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "first_conv": "conv_stem",
            "classifier": "classifier",
        }
    }
)


@register_model
def efficientnet_lite0_gn(pretrained: bool = False, group_size: int = 4, **kwargs: object) -> EfficientNet:
    """EfficientNet-Lite0 with groups of `group_size` channels; few, or little is left of ImageNet's weights.

    Those are of batch norm: where one norm is over many channels, few of them outweigh what pictures differ by.
    """
    check_options(NAME, {key: value for key, value in kwargs.items() if key not in KNOWN})
    # timm's tf_ networks, whose weights these are, take no other norm; "same" is their padding
    norm = partial(GroupNormAct, group_size=group_size)
    given = {"pretrained_cfg": default_cfgs[NAME].default, **{k: v for k, v in kwargs.items() if v is not None}}
    model = efficientnet_lite0(pretrained, norm_layer=norm, pad_type="same", **given)
    model.pretrained_cfg = model.default_cfg = {**model.pretrained_cfg, "architecture": NAME}
    return model
