"""How is a map laid over a picture? Colours by strength, more opaque where stronger."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from PIL import Image

COLOURS = "turbo"


def overlay(image: Image.Image, values: np.ndarray, opacity: float = 0.5) -> Image.Image:
    """RGB picture of the same size with the H×W map (0..1) drawn over it; `opacity` in 0..1 is that of the maximum."""
    base = np.asarray(image, np.float32)
    colours = colormaps[COLOURS](values)[..., :3].astype(np.float32) * 255
    # the square root keeps weak evidence visible without hiding the cell
    alpha = opacity * np.sqrt(values)[..., None]
    return Image.fromarray(np.rint(base * (1 - alpha) + colours * alpha).astype(np.uint8))


def scale_bar(width: int = 256, height: int = 10) -> Image.Image:
    """The colours of `overlay` from 0 to 1, left to right."""
    row = colormaps[COLOURS](np.linspace(0, 1, width))[..., :3]
    return Image.fromarray(np.rint(np.tile(row, (height, 1, 1)) * 255).astype(np.uint8))
