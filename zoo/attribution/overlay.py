"""Drawing of a map over a picture: as colours, more opaque where it is stronger, or as lines of equal strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import cv2
    import matplotlib
else:
    cv2 = lazy_module("cv2")
    matplotlib = lazy_module("matplotlib")

COLOURS = {  # colour map → how to read it; the first looks the same to the colour-blind
    "viridis": "Yellow marks most evidence, violet little",
    "turbo": "Red marks most evidence, blue little",
}
FIRST = next(iter(COLOURS))
LEVELS = (0.25, 0.5, 0.75)  # strengths at which lines are drawn
PARTS = (  # colours that the colour-blind can tell apart (Okabe & Ito 2008)
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#cc79a7",
    "#f0e442",
    "#0072b2",
)


def overlay(image: Image.Image, values: np.ndarray, opacity: float = 0.5, colours: str = FIRST) -> Image.Image:
    """Draw a map over a picture as colours.

    Args:
        image: RGB picture (H, W).
        values: map (H, W) in 0..1.
        opacity: of the map's maximum, 0..1.
        colours: a key of COLOURS.

    Returns:
        RGB picture of the same size.
    """
    base = np.asarray(image, np.float32)
    drawn = matplotlib.colormaps[colours](values)[..., :3].astype(np.float32) * 255
    # the square root keeps weak evidence visible without hiding the cell
    alpha = opacity * np.sqrt(values)[..., None]
    return Image.fromarray(np.rint(base * (1 - alpha) + drawn * alpha).astype(np.uint8))


def contours(image: Image.Image, values: np.ndarray, colours: str = FIRST) -> Image.Image:
    """Draw lines on an RGB picture where the map (H, W), 0..1, crosses LEVELS: no part is hidden by colour."""
    drawn = np.array(image)
    width = max(1, round(min(image.size) / 120))
    for level in LEVELS:
        lines, _ = cv2.findContours((values >= level).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        colour = tuple(int(255 * v) for v in matplotlib.colormaps[colours](level)[:3])
        # a white rim keeps dark lines visible on a nucleus
        cv2.drawContours(drawn, lines, -1, (255, 255, 255), width + 2, cv2.LINE_AA)
        cv2.drawContours(drawn, lines, -1, colour, width, cv2.LINE_AA)
    return Image.fromarray(drawn)


def parts(image: Image.Image, maps: np.ndarray, opacity: float = 0.6) -> Image.Image:
    """Tint each pixel of an RGB picture in the colour (PARTS) of the strongest of the maps (k, H, W) there."""
    base = np.asarray(image, np.float32)
    palette = np.array([_rgb(PARTS[n % len(PARTS)]) for n in range(len(maps))], np.float32)
    strongest = maps.argmax(0)
    alpha = opacity * maps.max(0)[..., None]
    return Image.fromarray(np.rint(base * (1 - alpha) + palette[strongest] * alpha).clip(0, 255).astype(np.uint8))


def scale_bar(width: int = 256, height: int = 10, colours: str = FIRST) -> Image.Image:
    """Draw the colours of `overlay` from 0 to 1, left to right."""
    row = matplotlib.colormaps[colours](np.linspace(0, 1, width))[..., :3]
    return Image.fromarray(np.rint(np.tile(row, (height, 1, 1)) * 255).astype(np.uint8))


def _rgb(colour: str) -> Sequence[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
