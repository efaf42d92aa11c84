"""Conversion of a picture into a network's input tensor, and of the network's map back onto the picture.

The entry's `pretrained_cfg` sets it, so that anyone who loads an entry with plain timm gets the same tensor (`resize`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from zoo.imaging.localise import LocatedCell, locate_cell
from zoo.imaging.resize import data_config, resize_and_crop
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")


@dataclass(frozen=True)
class Region:
    """The part of a picture that a network sees, in pixels; it reaches outside the picture where the model pads."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """A picture as one network sees it.

    Attributes:
        pixels: uint8 (3, H, W), the network's input size.
        region: the part of the picture that `pixels` shows.
        size: (width, height) of the picture.
        confidence: 0..1 that there is a cell, as it was located; see `LocatedCell`.
    """

    pixels: np.ndarray
    region: Region
    size: tuple[int, int]
    confidence: float = 1.0

    def place(self, values: np.ndarray) -> np.ndarray:
        """Lay a map (h, w) of this input over the picture: see `place_map`."""
        return place_map(values, self.size, self.region)


@dataclass(frozen=True)
class Preprocessor:
    """Conversion of RGB pictures into network inputs: geometry on the CPU, normalisation in batches on any device."""

    fit: Callable[[Image.Image], np.ndarray]
    pretrained_cfg: Mapping[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: str = "none"

    def input(self, image: Image.Image, cell: LocatedCell | None = None) -> NetworkInput:
        """Prepare a picture of any size.

        Args:
            image: RGB picture.
            cell: what `locate_cell(image, self.crop)` returned, where that is known; None to locate it now.

        Returns:
            Cut as the entry asks, resized and cropped to the network's input size.
        """
        cell = cell or locate_cell(image, self.crop)
        left, top, right, bottom = cell.box
        seen = seen_region((right - left, bottom - top), self.pretrained_cfg)
        region = Region(left + seen.left, top + seen.top, seen.width, seen.height)
        return NetworkInput(self.fit(cell.image), region, image.size, cell.confidence)

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Prepare a picture of any size: uint8 (3, H, W)."""
        return self.fit(locate_cell(image, self.crop).image)

    def normalise(self, pixels: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Scale uint8 (..., 3, H, W) to float32 of the same shape, by the entry's mean and standard deviation."""
        pixels = torch.as_tensor(pixels)
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return pixels.float().div(255).sub(mean).div(std)

    def normalise_array(self, pixels: np.ndarray) -> np.ndarray:
        """Do the same without torch."""
        values = pixels.astype(np.float32)
        values /= 255
        values -= np.array(self.mean, np.float32)[:, None, None]
        values /= np.array(self.std, np.float32)[:, None, None]
        return values

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Prepare and normalise a picture: float32 (3, H, W), equal to timm's own evaluation transform."""
        return self.normalise(self.pixels(image))


def preprocessor(pretrained_cfg: Mapping[str, Any], crop: str = "none") -> Preprocessor:
    """Make the preprocessor that training, command line and pages all use.

    Args:
        pretrained_cfg: the entry's `pretrained_cfg`, in timm's layout.
        crop: kind of crop, a key of `zoo.imaging.localise.CROPS`.
    """
    config = data_config(pretrained_cfg)
    return Preprocessor(
        partial(resize_and_crop, config=config), dict(pretrained_cfg), tuple(config["mean"]), tuple(config["std"]), crop
    )


def augmented_views(pixels: np.ndarray, count: int) -> np.ndarray:
    """Make views for test-time augmentation; a cell has no upside.

    Args:
        pixels: (3, H, W).
        count: number of views, 1 to 8; pictures that are not square have 4 at the most.

    Returns:
        (count, 3, H, W): as it is, rotated by 180° and by 90°, and the mirror images of these.
    """
    made = [pixels, pixels[:, ::-1, ::-1]]
    if pixels.shape[1] == pixels.shape[2]:
        made += [np.rot90(view, 1, (1, 2)) for view in made]
    made += [view[:, :, ::-1] for view in made]
    return np.stack(made[:count])


def seen_region(size: tuple[int, int], pretrained_cfg: Mapping[str, Any]) -> Region:
    """Compute the part of a picture that the transform keeps.

    Follows timm's crop modes: squash stretches to the input, border fits the long side and pads, center fits the
    short side and cuts the rest off; each keeps the middle `crop_pct` of what it fitted.

    Args:
        size: (width, height) of the picture in pixels.
        pretrained_cfg: the entry's `pretrained_cfg`.
    """
    config = data_config(pretrained_cfg)
    width, height = size
    _, in_height, in_width = config["input_size"]
    scaled = (in_width / config["crop_pct"], in_height / config["crop_pct"])
    ratios = (width / scaled[0], height / scaled[1])  # picture pixels for each resized pixel
    if config["crop_mode"] == "squash":
        across, down = ratios
    else:
        across = down = max(ratios) if config["crop_mode"] == "border" else min(ratios)
    seen_width, seen_height = in_width * across, in_height * down
    return Region((width - seen_width) / 2, (height - seen_height) / 2, seen_width, seen_height)


def place_map(values: np.ndarray, size: tuple[int, int], region: Region) -> np.ndarray:
    """Lay a map of a network's input over the picture.

    Args:
        values: (h, w), at any resolution.
        size: (width, height) of the picture in pixels.
        region: the part of the picture that the network saw.

    Returns:
        float32 (height, width) at the picture's own resolution, bilinear, zero where the network saw nothing.
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
