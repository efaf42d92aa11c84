"""Shared parts of our own networks: features, hidden layers and classifier, with the methods of timm's networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class PlainNetwork(nn.Module):
    """A network of a feature map, a hidden vector and a classifier, with the methods that timm and the zoo expect.

    Attributes:
        num_classes: number of outputs.
        num_features: channels of the feature map.
        head_hidden_size: length of the hidden vector.
        feature_info: timm's description of the feature map.
    """

    def __init__(
        self,
        features: nn.Module,
        hidden: nn.Module,
        channels: int,
        width: int,
        num_classes: int,
        reduction: int,
    ) -> None:
        """Put the parts together.

        Args:
            features: (B, 3, H, W) → (B, channels, h, w).
            hidden: (B, channels, h, w) → (B, width).
            channels: of the feature map.
            width: of the hidden vector.
            num_classes: number of outputs; 0 for none.
            reduction: H / h.
        """
        super().__init__()
        self.num_classes = num_classes
        self.num_features = channels
        self.head_hidden_size = width
        self.feature_info = [{"num_chs": channels, "reduction": reduction, "module": "features"}]
        self.features = features
        self.hidden = hidden
        self.classifier: nn.Module = _classes(width, num_classes)

    def get_classifier(self) -> nn.Module:
        """Return the last dense layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last dense layer by a fresh one of `num_classes` outputs (0: none)."""
        self.num_classes = num_classes
        self.classifier = _classes(self.head_hidden_size, num_classes)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the feature map: (B, 3, H, W) → (B, channels, h, w)."""
        return self.features(x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Compute logits (B, num_classes), or the hidden vectors (B, width) before them, of a feature map."""
        hidden = self.hidden(x)
        return hidden if pre_logits else self.classifier(hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits: (B, 3, H, W) → (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


def _classes(width: int, num_classes: int) -> nn.Module:
    return nn.Linear(width, num_classes) if num_classes > 0 else nn.Identity()


def check_options(name: str, options: dict[str, object]) -> None:
    """Refuse options that the network `name` does not have. Raises TypeError."""
    if options:
        raise TypeError(f"{name} has no option {', '.join(sorted(options))}.")


def dense(inside: int, widths: Sequence[int], drop_rate: float = 0.0) -> nn.Sequential:
    """Make a flattening layer and dense layers of `widths` units with ReLU, each followed by dropout at `drop_rate`."""
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in zip((inside, *widths), widths, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU(), *([nn.Dropout(drop_rate)] if drop_rate else [])]
    return nn.Sequential(*layers)


def initialise_glorot(model: nn.Module) -> None:
    """Initialise all convolutions and dense layers as Glorot & Bengio (2010), normally distributed; biases are 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def default_cfg(side: int, first_conv: str, classes: int = 4) -> dict[str, object]:
    """Make timm's default configuration of a network for pictures that are squashed to side × side pixels.

    Args:
        side: of the input, in pixels.
        first_conv: path of the first convolution.
        classes: number of outputs.
    """
    return {
        "input_size": (3, side, side),
        "num_classes": classes,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "first_conv": first_conv,
        "classifier": "classifier",
    }
