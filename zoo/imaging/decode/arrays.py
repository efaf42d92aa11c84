"""Arrays of samples become pictures: range, channels, orientation."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps

from zoo.imaging.decode.errors import PictureError
from zoo.imaging.decode.ranges import find_range, to_8bit

ORIENTATION = 274  # tag of TIFF 6.0 and of EXIF
EXIF_KEYS = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # of Pillow's `info`
DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")


def array_image(pixels: np.ndarray, stated: float | None = None) -> tuple[Image.Image, list[str]]:
    """Make an 8-bit Pillow picture of samples; returns it with notes.

    Args:
        pixels: (H, W), or (H, W, C): grey, grey + alpha, RGB or RGB + alpha; any real type.
        stated: Full scale that the file states.

    Raises:
        PictureError: The shape or type is another, or no sample is finite.
    """
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if not pixels.size:
        raise ValueError("no samples")
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (2, 3, 4)):
        shape = "×".join(map(str, pixels.shape))
        raise PictureError(f"An array of the shape {shape} is no picture. It should be height × width × 3, or grey.")
    alpha = pixels.ndim == 3 and pixels.shape[-1] in (2, 4)
    found = find_range(pixels[..., :-1] if alpha else pixels, stated)
    image = Image.fromarray(np.ascontiguousarray(to_8bit(pixels, found, alpha)))
    return image, [found.words] if found.words else []


def shallow(image: Image.Image, stated: float | None = None) -> tuple[Image.Image, list[str]]:
    """A Pillow picture with 8 bits a sample, and notes; pictures of 16- and 32-bit modes are rescaled."""
    if image.mode not in DEEP_MODES:
        return image, []
    made, notes = array_image(np.asarray(image), stated)
    made.info = image.info
    return made, notes


def oriented(image: Image.Image) -> Image.Image:
    """The picture as its EXIF orientation says; an unreadable EXIF block changes nothing."""
    if not image.info.keys() & EXIF_KEYS:
        return image
    with suppress(Exception):  # damaged EXIF raises nearly anything
        ImageOps.exif_transpose(image, in_place=True)
    return image


def turned(image: Image.Image, orientation: object) -> Image.Image:
    """The picture turned by a value of the tag `ORIENTATION`; anything but 2 to 8 leaves it."""
    if not isinstance(orientation, int) or orientation not in range(2, 9):
        return image
    image.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)
