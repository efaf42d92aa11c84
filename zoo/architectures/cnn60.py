"""`cnn60`: the 60×60 network of "CNN features with classical heads", 306,948 parameters with four classes."""

from __future__ import annotations

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

INPUT = 60  # pixels
WIDTHS = (32, 64, 128)
GRID = 5  # side of the last feature map: ((60-2)/2-2)/2-2)/2, rounded down each time


class Cnn60(nn.Module):
    """Three valid 3×3 convolutions with max pooling and dropout, then dense 64, 128 and the classes."""

    def __init__(
        self,
        num_classes: int = 4,
        in_chans: int = 3,
        drop_rate: float = 0.25,
        global_pool: str = "",
        **kwargs: object,
    ) -> None:
        super().__init__()
        if kwargs:
            raise TypeError(f"cnn60 has no option {', '.join(sorted(kwargs))}.")
        self.num_classes = num_classes
        self.num_features = WIDTHS[-1]
        self.head_hidden_size = 128
        self.feature_info = [{"num_chs": WIDTHS[-1], "reduction": 12, "module": "features"}]
        blocks: list[nn.Module] = []
        for inside, outside in zip((in_chans, *WIDTHS), WIDTHS, strict=False):
            blocks += [nn.Conv2d(inside, outside, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(drop_rate)]
        self.features = nn.Sequential(*blocks)
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(WIDTHS[-1] * GRID * GRID, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU()
        )
        self.classifier = nn.Linear(128, num_classes) if num_classes > 0 else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The last dense layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last dense layer by a fresh one of `num_classes` outputs (0: none)."""
        self.num_classes = num_classes
        self.classifier = nn.Linear(128, num_classes) if num_classes > 0 else nn.Identity()

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, 60, 60) → (B, 128, 5, 5)."""
        return self.features(x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(B, 128, 5, 5) → logits (B, num_classes), or the 128 hidden units before them."""
        hidden = self.hidden(x)
        return hidden if pre_logits else self.classifier(hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, 60, 60) → logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {
        "cnn60": {
            "input_size": (3, INPUT, INPUT),
            "num_classes": 4,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "first_conv": "features.0",
            "classifier": "classifier",
        }
    }
)


@register_model
def cnn60(pretrained: bool = False, **kwargs: object) -> Cnn60:
    """System C's network; `pretrained` needs an entry's folder, there are no general weights."""
    return build_model_with_cfg(Cnn60, "cnn60", pretrained, **kwargs)
