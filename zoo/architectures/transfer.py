"""`transfer`: any timm backbone with another head: pooled or flattened features, then a stack of layers.

The head is a list of words, in the order in which they are applied: `gap` (global average pooling), `flatten`,
`batchnorm`, `relu`, `dense N` and `dropout P`; the classifier is added to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from zoo.architectures._layers import check_options, default_cfg
from zoo.attribution.features import feature_grid, forward_features

# attributes of timm's backbones that hold a part of their own head, which is not used
UNUSED = ("pre_logits", "head", "fc", "classifier", "last_linear", "global_pool", "head_drop", "fc_norm", "attn_pool")


class Transfer(nn.Module):
    """A backbone (feature map (B, C, h, w)), a head (vector) and a classifier.

    `fixed` is the part of the head that has no parameters and comes first, so that its output can be stored when the
    backbone is frozen.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        head: Sequence[str] = ("gap",),
        input_size: Sequence[int] = (224, 224),
        num_classes: int = 4,
        in_chans: int = 3,
        global_pool: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        names = ("drop_path_rate", "img_size", "pad_type")
        options: dict[str, Any] = {key: kwargs.pop(key) for key in names if key in kwargs}
        check_options("transfer", kwargs)
        known = timm.get_pretrained_cfg(backbone)
        if known and known.fixed_input_size:  # position embeddings are made for one size
            options.setdefault("img_size", tuple(input_size))
        self.backbone = timm.create_model(backbone, num_classes=0, in_chans=in_chans, **options)
        for name in UNUSED:
            if isinstance(getattr(self.backbone, name, None), nn.Module):
                setattr(self.backbone, name, nn.Identity())
        shape = self._shape(input_size, in_chans)
        self.fixed, self.head, width = build_head(head, shape)
        self.num_classes = num_classes
        self.num_features, self.head_hidden_size = shape[0], width
        self.feature_info = [{"num_chs": shape[0], "reduction": input_size[0] // shape[1], "module": "backbone"}]
        self.classifier: nn.Module = nn.Linear(width, num_classes) if num_classes > 0 else nn.Identity()

    @torch.no_grad()
    def _shape(self, input_size: Sequence[int], in_chans: int) -> tuple[int, int, int]:
        """Compute channels, height and width of the feature map."""
        self.backbone.eval()
        _, channels, height, width = self.forward_features(torch.zeros(1, in_chans, *input_size)).shape
        self.backbone.train()
        return channels, height, width

    def get_classifier(self) -> nn.Module:
        """Return the last dense layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last dense layer by a fresh one of `num_classes` outputs (0: none)."""
        self.num_classes = num_classes
        self.classifier = nn.Linear(self.head_hidden_size, num_classes) if num_classes > 0 else nn.Identity()

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the backbone's feature map: (B, 3, H, W) → (B, C, h, w), whatever its own layout."""
        return feature_grid(forward_features(self.backbone, x), self.backbone)

    def forward_fixed(self, x: torch.Tensor) -> torch.Tensor:
        """Compute what depends on the backbone alone: its map of (B, 3, H, W), after the head's fixed layers."""
        return self.fixed(self.forward_features(x))

    def forward_rest(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, num_classes) of what `forward_fixed` returns."""
        return self.classifier(self.head(x))

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Compute logits (B, num_classes), or the vectors before them, of a feature map (B, C, h, w)."""
        vector = self.head(self.fixed(x))
        return vector if pre_logits else self.classifier(vector)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits: (B, 3, H, W) → (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


class GlobalAverage(nn.Module):
    """Mean over height and width."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average: (B, C, h, w) → (B, C)."""
        return x.mean((2, 3))


def build_head(words: Sequence[str], shape: tuple[int, int, int]) -> tuple[nn.Sequential, nn.Sequential, int]:
    """Build a head.

    Args:
        words: its layers, as the module describes them.
        shape: (channels, height, width) of the feature map.

    Returns:
        The layers without parameters at its beginning, the others, and the number of units they end with.

    Raises:
        ValueError: a word is unknown, or the map is neither pooled nor flattened.
    """
    channels, height, width = shape
    size, flat = channels, False
    layers: list[nn.Module] = []
    for word in words:
        name, _, number = word.partition(" ")
        if name in ("gap", "flatten") and not flat:
            layers.append(GlobalAverage() if name == "gap" else nn.Flatten())
            size, flat = (channels if name == "gap" else channels * height * width), True
        elif name == "batchnorm":
            layers.append(nn.BatchNorm1d(size) if flat else nn.BatchNorm2d(size))
        elif name == "relu":
            layers.append(nn.ReLU())
        elif name == "dropout":
            layers.append(nn.Dropout(float(number)))
        elif name == "dense" and flat:
            layers.append(nn.Linear(size, int(number)))
            size = int(number)
        else:
            raise ValueError(
                f"{word!r} is no layer of a head here: gap or flatten once, batchnorm, relu, dense N, dropout P"
            )
    if not flat:
        raise ValueError("the head must pool (gap) or flatten the feature map")
    fixed = 1 if isinstance(layers[0], GlobalAverage | nn.Flatten) else 0
    return nn.Sequential(*layers[:fixed]), nn.Sequential(*layers[fixed:]), size


default_cfgs = generate_default_cfgs({"transfer": default_cfg(224, "backbone")})


@register_model
def transfer(pretrained: bool = False, **kwargs: Any) -> Transfer:
    """Build a timm backbone with a head of words; `pretrained` needs an entry's folder."""
    return build_model_with_cfg(Transfer, "transfer", pretrained, **kwargs)
