"""One strong shift of a picture in every respect at once, for a test of models under distribution shift.

In the spirit of the hidden test set on which a published system fell from 98 to 51 %: the cell is turned, mirrored,
scaled and moved, laid over a drawn slide of another colour, and the whole is stained, lit, blurred and grained
differently. What a cell is recognised by, its own shape and texture, stays. Strengths were set before any model was
scored, and follow from the picture's name: every model sees the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo.imaging.localise import find_cell
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import cv2
else:
    cv2 = lazy_module("cv2")

MIN_SCALE, MAX_SCALE = 0.65, 1.15  # times its size
MAX_MOVE = 0.08  # of the side
EDGE = 0.04  # of the side over which the cell fades into the slide
SLIDE = ((205, 190, 185), (252, 246, 245))  # darkest and brightest empty slide, RGB
RED_CELLS = (3, 9)
HUE, SATURATION, GAIN, GAMMA = 0.06, (0.5, 1.6), (0.8, 1.2), (0.7, 1.4)
BLUR, NOISE = (0.3, 2.2), (0.0, 0.05)  # sigma in pixels of a side of 224; of a range of 0..1


def shift(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """A square RGB picture of the same shorter side, strongly changed; all but the cell becomes slide."""
    side = min(image.size)
    cell = find_cell(image)
    pixels = np.asarray(image, np.float32) / 255
    mask: np.ndarray = np.ones(pixels.shape[:2], np.float32)
    centre = (image.width / 2, image.height / 2)
    if cell is not None:
        mask = cv2.resize(cell.mask.astype(np.float32), image.size, interpolation=cv2.INTER_LINEAR)
        left, top, right, bottom = cell.box
        centre = ((left + right) / 2, (top + bottom) / 2)
    turn = _turn(side, centre, random)
    # what lies outside of the picture is slide: the mask is 0 there
    cell_pixels = cv2.warpAffine(pixels, turn, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    soft = cv2.GaussianBlur(cv2.warpAffine(mask, turn, (side, side)), (0, 0), EDGE * side / 2)[..., None]
    soft = np.clip(2 * soft, 0, 1)  # all of the cell is kept, its surroundings fade
    found = soft * cell_pixels + (1 - soft) * _slide(side, random)
    return Image.fromarray((255 * _grained(_coloured(found, random), side, random)).round().astype(np.uint8))


def _turn(side: int, centre: tuple[float, float], random: np.random.Generator) -> np.ndarray:
    """Affine matrix (2, 3) that brings the cell's centre to the middle, turned, mirrored, scaled and moved."""
    angle, scale = random.uniform(0, 2 * np.pi), random.uniform(MIN_SCALE, MAX_SCALE)
    mirror = random.choice([-1.0, 1.0])
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cosine * mirror, -sine], [sine * mirror, cosine]])
    target = side / 2 + random.uniform(-MAX_MOVE, MAX_MOVE, 2) * side
    return np.column_stack([linear, target - linear @ np.array(centre)])


def _slide(side: int, random: np.random.Generator) -> np.ndarray:
    """A drawn slide (side, side, 3) in 0..1 with red cells."""
    darkest, brightest = np.array(SLIDE) / 255
    empty = np.asarray(random.uniform(darkest, brightest))
    drawn = np.ones((side, side, 3), np.float32) * empty.astype(np.float32)
    red = np.array([1.0, random.uniform(0.72, 0.85), random.uniform(0.7, 0.88)]) * random.uniform(0.85, 0.98)
    for _ in range(int(random.integers(*RED_CELLS, endpoint=True))):
        middle = tuple(int(v) for v in random.integers(0, side, 2))
        radius = int(side * random.uniform(0.1, 0.17))
        disc, pale = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
        cv2.circle(disc, middle, radius, 1.0, -1, cv2.LINE_AA)
        cv2.circle(pale, middle, radius // 2, 0.5, -1, cv2.LINE_AA)
        depth = (disc - cv2.GaussianBlur(pale, (0, 0), radius / 5)).clip(0, 1)[..., None]
        drawn *= 1 - depth * (1 - red.astype(np.float32))
    return drawn


def _coloured(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Another stain, white balance and exposure."""
    hsv = cv2.cvtColor(pixels.clip(0, 1).astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * random.uniform(-HUE, HUE)) % 360
    hsv[..., 1] = (hsv[..., 1] * random.uniform(*SATURATION)).clip(0, 1)
    stained = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) ** random.uniform(*GAMMA)
    return (stained * random.uniform(*GAIN, 3)).clip(0, 1)


def _grained(pixels: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """Out of focus, with noise."""
    blurred = cv2.GaussianBlur(pixels, (0, 0), random.uniform(*BLUR) * side / 224)
    return (blurred + random.normal(0, random.uniform(*NOISE), pixels.shape)).clip(0, 1)
