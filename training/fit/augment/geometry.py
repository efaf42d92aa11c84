"""Augmentations of geometry: crop, flips, tight frames, and the warp that also resizes.

torchvision draws the parameters and OpenCV changes bytes, all of the warp in one interpolation: six times as fast as
torchvision's transforms in a row, which matters on two cores.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from training.fit.augment.registry import Phase, augmentation
from zoo.imaging.localise import SQUARE_SCALE, empty_slide
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import cv2
    import torch
    from torchvision.transforms import v2
else:
    cv2 = lazy_module("cv2")
    torch = lazy_module("torch")
    v2 = lazy_module("torchvision.transforms.v2")

if TYPE_CHECKING:
    from training.recipe import Augment

TIGHT_FRAME = (1.0, 1.4)  # width of a tight frame, in sides of the cell's box
MAX_BILINEAR_REDUCTION = 1.5  # beyond this ratio of sides a bilinear warp skips pixels: average them first


@augmentation(Phase.PACKED, 0.0, "Largest share of the picture's area that a random crop removes", order=10, ge=0, lt=1)
def crop(pixels: np.ndarray, max_removed: float) -> np.ndarray:
    """Cut out a part with the picture's own aspect ratio and at least 1 - `max_removed` of its area."""
    height, width = pixels.shape[:2]
    side = math.sqrt(1 - max_removed * float(torch.rand(())))
    new_height, new_width = max(1, round(height * side)), max(1, round(width * side))
    top, left = (int(torch.randint(0, n + 1, ())) for n in (height - new_height, width - new_width))
    return np.ascontiguousarray(pixels[top : top + new_height, left : left + new_width])


@augmentation(Phase.PACKED, False, "Mirror half of the pictures left to right", order=20)
def horizontal_flip(pixels: np.ndarray, _: bool) -> np.ndarray:
    """Mirror half of the pictures left to right."""
    return cv2.flip(pixels, 1) if torch.rand(()) < 0.5 else pixels


@augmentation(Phase.PACKED, False, "Mirror half of the pictures top to bottom", order=21)
def vertical_flip(pixels: np.ndarray, _: bool) -> np.ndarray:
    """Mirror half of the pictures top to bottom."""
    return cv2.flip(pixels, 0) if torch.rand(()) < 0.5 else pixels


@augmentation(
    Phase.PACKED,
    0.0,
    "Probability of a tight frame around the middle, outside of which is empty slide",
    order=30,
    ge=0,
    le=1,
)
def frame(pixels: np.ndarray, probability: float) -> np.ndarray:
    """Cover parts of a square around a cell that a tight crop would not show: see `crop_square`."""
    if torch.rand(()) >= probability:
        return pixels
    height, width = pixels.shape[:2]
    low, high = TIGHT_FRAME[0] / SQUARE_SCALE / 2, TIGHT_FRAME[1] / SQUARE_SCALE / 2
    left, top, right, bottom = (low + (high - low) * torch.rand(4)).tolist()
    rows = slice(max(0, round(height * (0.5 - top))), round(height * (0.5 + bottom)))
    columns = slice(max(0, round(width * (0.5 - left))), round(width * (0.5 + right)))
    inside = pixels[rows, columns]
    framed = np.empty_like(pixels)
    framed[:] = empty_slide(Image.fromarray(inside))
    framed[rows, columns] = inside
    return framed


class Warp:
    """Random rotation, shift, shear and zoom about the centre, and the resizing to the network's input."""

    def __init__(self, augment: Augment, size: tuple[int, int], visible: float = 1.0) -> None:
        """Read the strengths from a recipe.

        Args:
            augment: The recipe's [augment] table.
            size: Height and width of the result, in pixels.
            visible: Middle share of the picture's sides that fills the result.
        """
        self.size, self.visible, self.fill = size, visible, augment.fill
        self.affine = None
        if augment.rotation or augment.shift or augment.zoom or augment.shear:
            self.affine = v2.RandomAffine(
                degrees=augment.rotation,
                translate=(augment.shift, augment.shift),
                scale=(1 - augment.zoom, 1 + augment.zoom),
                shear=augment.shear or None,
            )

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return the warped picture: uint8 (h, w, 3) → uint8 (*size, 3)."""
        height, width = self.size
        if self.affine is None:
            pixels = _middle(pixels, self.visible)
            smaller = pixels.shape[0] > height or pixels.shape[1] > width
            return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        if self.visible * max(pixels.shape[0] / height, pixels.shape[1] / width) > MAX_BILINEAR_REDUCTION:
            whole = (round(width / self.visible), round(height / self.visible))
            pixels = cv2.resize(pixels, whole, interpolation=cv2.INTER_AREA)
        drawn = self.affine.make_params([torch.empty(3, *pixels.shape[:2])])
        matrix = _matrix((pixels.shape[0], pixels.shape[1]), self.size, self.visible, **drawn)
        return cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=self.fill)


def _middle(pixels: np.ndarray, visible: float) -> np.ndarray:
    """Return the middle of a picture, `visible` of its sides."""
    height, width = (max(1, round(visible * side)) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _matrix(
    source: tuple[int, int],
    size: tuple[int, int],
    visible: float,
    angle: float,
    translate: list[float],
    scale: float,
    shear: list[float],
) -> np.ndarray:
    """Return the 2×3 matrix from a picture's pixels to those of `size`: torchvision's affine, then the resizing.

    `angle` and `shear` are in degrees, `translate` in pixels of the source.
    """
    turn, lean, rise = (math.radians(value) for value in (angle, *shear))
    across, down = math.cos(turn - rise) / math.cos(rise), math.sin(turn - rise) / math.cos(rise)
    linear = scale * np.array(
        [
            [across, -across * math.tan(lean) - math.sin(turn)],
            [down, -down * math.tan(lean) + math.cos(turn)],
        ]
    )
    centre = np.array([source[1] / 2, source[0] / 2])
    resize = np.diag([size[1] / source[1], size[0] / source[0]]) / visible
    # pixel centres lie at halves
    middle = np.array([size[1] / 2, size[0] / 2])
    offset = resize @ (linear @ (0.5 - centre) + np.asarray(translate, float)) + middle - 0.5
    return np.column_stack([resize @ linear, offset])
