"""Resizing and cropping of a picture to a network's input size, equal to timm's evaluation transform.

timm takes seconds to import. A test compares every crop mode and interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

# what timm takes for a key that a configuration lacks
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "input_size": (3, 224, 224),
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": 0.875,
        "crop_mode": "center",
    }
)


def data_config(pretrained_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a data configuration in timm's layout: input_size, interpolation, mean, std, crop_pct, crop_mode."""
    return {name: pretrained_cfg.get(name) or default for name, default in DEFAULTS.items()}


def resize_and_crop(image: Image.Image, config: Mapping[str, Any]) -> np.ndarray:
    """Bring an RGB picture to a network's input size.

    Args:
        image: the picture, of any size.
        config: as `data_config` gives it.

    Returns:
        uint8 (3, H, W).
    """
    _, height, width = config["input_size"]
    size = _resized(image.size, (width, height), config["crop_pct"], config["crop_mode"])
    if size != image.size:
        image = image.resize(size, _resampling(config["interpolation"]))
    image = _padded(image, (width, height), tuple(round(255 * value) for value in config["mean"]))
    left, top = (round((have - want) / 2) for have, want in zip(image.size, (width, height), strict=True))
    return np.ascontiguousarray(np.asarray(image.crop((left, top, left + width, top + height))).transpose(2, 0, 1))


def _resized(size: tuple[int, int], target: tuple[int, int], crop_pct: float, mode: str) -> tuple[int, int]:
    """Size (width, height) before the middle is cut out; of the target it shows `crop_pct` on each side."""
    across, down = (math.floor(side / crop_pct) for side in target)
    if mode == "squash":
        return across, down
    width, height = size
    if mode != "border" and across == down:
        short, long = min(size), max(size)
        other = int(across * long / short)
        return (across, other) if width <= height else (other, across)
    ratios = (height / down, width / across)
    ratio = max(ratios) if mode == "border" else min(ratios)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _padded(image: Image.Image, target: tuple[int, int], fill: tuple[int, ...]) -> Image.Image:
    """The picture, with a border where it is smaller than the target."""
    width, height = (max(have, want) for have, want in zip(image.size, target, strict=True))
    if (width, height) == image.size:
        return image
    canvas = Image.new("RGB", (width, height), fill)
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def _resampling(interpolation: str) -> Image.Resampling:
    """Pillow's filter; bicubic for "random", by which timm's training draws one."""
    return Image.Resampling.__members__.get(interpolation.upper(), Image.Resampling.BICUBIC)
