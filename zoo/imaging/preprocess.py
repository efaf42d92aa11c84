"""How does a picture become the tensor a model sees? One function, fed by the entry's `pretrained_cfg`.

The transform is timm's own, so that anyone who loads an entry with plain timm gets the same tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from zoo.imaging.localise import cut


@dataclass(frozen=True)
class Region:
    """The part of a W×H picture a model sees, in pixels; it reaches outside the picture where the model pads."""

    left: float
    top: float
    width: float
    height: float


def data_config(pretrained_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Timm's data configuration (input_size, interpolation, mean, std, crop_pct, crop_mode) of a `pretrained_cfg`."""
    return resolve_data_config(pretrained_cfg=dict(pretrained_cfg))


@dataclass(frozen=True)
class Preprocessor:
    """From an RGB picture to what a model sees, in two steps: geometry on the CPU, normalisation batched anywhere."""

    fit: Callable[[Image.Image], torch.Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: str = "none"

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """Picture of any size → uint8 (3, H, W), cut as the entry asks, resized and cropped to the model's input."""
        return self.look(image)[0]

    def look(self, image: Image.Image) -> tuple[torch.Tensor, float]:
        """`pixels`, and how sure it is (0..1) that the picture shows a cell; 1 where the entry looks for none."""
        part = cut(image, self.crop)
        return self.fit(part.image), part.confidence

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (..., 3, H, W) → float32 of the same shape, zero mean and unit variance by the entry's figures."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return pixels.float().div(255).sub(mean).div(std)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Picture → float32 (3, H, W), equal to timm's own evaluation transform."""
        return self.normalise(self.pixels(image))


def preprocessor(pretrained_cfg: Mapping[str, Any], crop: str = "none") -> Preprocessor:
    """The one way from a picture to a model's input; training, command line and pages all use it.

    `crop` is what the entry's config says, one of `zoo.imaging.localise.CROPS`.
    """
    config = data_config(pretrained_cfg)
    # with use_prefetcher timm's transform ends in uint8, a quarter of the memory to keep in a queue
    fit = create_transform(**config, is_training=False, use_prefetcher=True)
    return Preprocessor(fit, tuple(config["mean"]), tuple(config["std"]), crop)


def augmented_views(pixels: torch.Tensor, count: int) -> torch.Tensor:
    """Views (count, 3, H, W) of pixels (3, H, W): plain, turned by halves and quarters, mirrored; a cell has no upside.

    A picture that is not square cannot be turned by a quarter: it has four views, at the most.
    """
    made = [pixels, pixels.flip(1, 2)]
    if pixels.shape[1] == pixels.shape[2]:
        made += [view.rot90(1, (1, 2)) for view in made]
    made += [view.flip(2) for view in made]
    return torch.stack(made[:count])


def region_of(image: Image.Image, pretrained_cfg: Mapping[str, Any], crop: str = "none") -> Region:
    """The part of a picture that `preprocessor` keeps, cut included."""
    left, top, right, bottom = cut(image, crop).box
    seen = seen_region((right - left, bottom - top), pretrained_cfg)
    return Region(left + seen.left, top + seen.top, seen.width, seen.height)


def seen_region(size: tuple[int, int], pretrained_cfg: Mapping[str, Any]) -> Region:
    """The part of a picture of `size` (width, height) that `preprocessor` keeps.

    Follows timm's crop modes: squash stretches to the input, border fits the long side and pads, center fits the
    short side and cuts the rest off; each keeps the middle `crop_pct` of what it fitted.
    """
    config = data_config(pretrained_cfg)
    width, height = size
    _, in_height, in_width = config["input_size"]
    scaled = (in_width / config["crop_pct"], in_height / config["crop_pct"])
    ratios = (width / scaled[0], height / scaled[1])  # picture pixels per resized pixel
    if config["crop_mode"] == "squash":
        across, down = ratios
    else:
        across = down = max(ratios) if config["crop_mode"] == "border" else min(ratios)
    seen = (in_width * across, in_height * down)
    return Region((width - seen[0]) / 2, (height - seen[1]) / 2, *seen)


def place_map(values: np.ndarray, size: tuple[int, int], region: Region) -> np.ndarray:
    """Lay an h×w map of the model's input over a picture of `size` (width, height).

    Returns H×W float32 at the picture's own resolution, bilinear, zero where the model saw nothing.
    """
    width, height = size
    left, top = math.floor(region.left), math.floor(region.top)
    across, down = max(1, round(region.width)), max(1, round(region.height))
    scaled = np.asarray(Image.fromarray(values.astype(np.float32)).resize((across, down), Image.Resampling.BILINEAR))
    canvas = np.zeros((height, width), np.float32)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + across, width), min(top + down, height)
    canvas[y0:y1, x0:x1] = scaled[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas
