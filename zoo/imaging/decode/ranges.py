"""Bit depth: which sample value is white, and rescaling to 8 bits.

Cameras store 10, 12 or 14 bits in 16. A shift by 8 would make such pictures black, and scaling by the brightest pixel
would let one hot pixel darken the rest. White is therefore what the file states if that fits the samples, else the
smallest usual full scale that the 99.9th percentile of the samples fits in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from zoo.imaging.decode.errors import PictureError

BIT_DEPTHS = (8, 10, 12, 14, 16, 24, 32)
PERCENTILES = (0.1, 99.9)  # of the samples; what lies beyond is clipped
SAMPLE_SIZE = 2_000_000  # samples that the percentiles are taken from
OVERSHOOT = 1.05  # how far float samples may lie above a full scale (interpolation rings)
UNIT_OVERSHOOT = 1.5  # the same for full scale 1: nothing is stored in 0..1.5
SPREAD = 16  # a stated full scale that the samples use less than a 16th of is not believed
NEGATIVE = 0.05  # share of the brightest sample below zero that counts as noise, not as a signed range
CHUNK_SAMPLES = 4_000_000  # rescaled at a time: floats of a whole picture would take gigabytes


@dataclass(frozen=True)
class Range:
    """The samples that become black and white, and how to say it to the user ("" where there is nothing to say)."""

    low: float
    high: float
    words: str = ""


EIGHT_BIT = Range(0.0, 255.0)


def find_range(pixels: np.ndarray, stated: float | None = None) -> Range:
    """Find the range of samples of any real type; an array of many pictures has one range.

    Args:
        pixels: Samples, any shape.
        stated: Full scale that the file states; None if it states none.

    Raises:
        PictureError: The samples are complex or no numbers, or none is finite.
    """
    if pixels.dtype == np.bool_:
        return Range(0.0, 1.0)
    if pixels.dtype == np.uint8:
        return EIGHT_BIT
    if not np.issubdtype(pixels.dtype, np.number) or np.iscomplexobj(pixels):
        raise PictureError(f"Samples of type {pixels.dtype} are not supported. Export the picture as 8- or 16-bit.")
    floating = bool(np.issubdtype(pixels.dtype, np.floating))
    low, high = _percentiles(pixels)
    if stated is not None and _believable(stated, high, pixels.dtype) and low >= -NEGATIVE * stated:
        return Range(0.0, stated, f"read as {_depth_words(stated, floating)}, as the file states")
    if low < -NEGATIVE * abs(high):
        return _signed(low, high, floating)
    if floating and high <= UNIT_OVERSHOOT:
        return Range(0.0, 1.0, "read as floats from 0 to 1")
    slack = OVERSHOOT if floating else 1.0
    top = next((2.0**bits - 1 for bits in BIT_DEPTHS if high <= slack * (2.0**bits - 1)), high)
    return Range(0.0, top, f"read as {_depth_words(top, floating)}")


def to_8bit(pixels: np.ndarray, found: Range, alpha: bool = False) -> np.ndarray:
    """Rescale samples (…, H, W) or (H, W, C) to uint8; with `alpha`, the last channel has the whole range of its type.

    What is not finite becomes black.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if alpha:
        colours = to_8bit(pixels[..., :-1], found)
        return np.concatenate([colours, to_8bit(pixels[..., -1:], _alpha_range(pixels[..., -1], found))], axis=-1)
    table = _scaled(np.arange(65536, dtype=np.uint16), found) if pixels.dtype == np.uint16 else None
    made = np.empty(pixels.shape, np.uint8)
    rows = max(1, CHUNK_SAMPLES // max(1, pixels[0].size))
    for start in range(0, len(pixels), rows):
        part = pixels[start : start + rows]
        made[start : start + rows] = _scaled(part, found) if table is None else table[part]
    return made


def _scaled(samples: np.ndarray, found: Range) -> np.ndarray:
    kind = np.float64 if samples.dtype.itemsize > 4 or samples.dtype.kind in "iu" else np.float32
    with np.errstate(all="ignore"):
        values = np.subtract(samples, found.low, dtype=kind)
        np.multiply(values, 255 / (found.high - found.low or 1.0), out=values)
    np.nan_to_num(values, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return np.rint(values.clip(0, 255, out=values)).astype(np.uint8)


def _percentiles(pixels: np.ndarray) -> tuple[float, float]:
    flat = pixels.reshape(-1)
    step = max(1, flat.size // SAMPLE_SIZE)
    while any(size > 1 and math.gcd(step, size) > 1 for size in pixels.shape):  # else one channel or column would do
        step += 1
    sample = flat[::step]
    if np.issubdtype(pixels.dtype, np.floating):
        sample = sample[np.isfinite(sample)].astype(np.float64)
    if not sample.size:
        raise PictureError("The picture holds no finite value.")
    low, high = np.percentile(sample, PERCENTILES, method="nearest")
    return float(low), float(high)


def _believable(stated: float, high: float, dtype: np.dtype) -> bool:
    """Whether a stated full scale fits the samples; that of the type itself is what writers state without thinking."""
    if not np.isfinite(stated) or stated <= 0:
        return False
    if np.issubdtype(dtype, np.integer) and stated >= np.iinfo(dtype).max:
        return False
    return stated / SPREAD < high <= stated


def _signed(low: float, high: float, floating: bool) -> Range:
    """The range of samples around zero."""
    if floating and max(-low, high) <= OVERSHOOT:
        return Range(-1.0, 1.0, "read as floats from -1 to 1")
    for bits in BIT_DEPTHS if not floating else ():
        half = 2.0 ** (bits - 1)
        if low >= -half and high <= half - 1:
            return Range(-half, half - 1, f"read as signed {bits} bit")
    return Range(low, max(high, low + 1e-9), "read from the lowest to the highest sample, as the range is unknown")


def _alpha_range(alpha: np.ndarray, found: Range) -> Range:
    if not np.issubdtype(alpha.dtype, np.integer):
        return Range(0.0, 1.0)
    return Range(0.0, found.high if alpha.max(initial=0) <= found.high else float(np.iinfo(alpha.dtype).max))


def _depth_words(top: float, floating: bool) -> str:
    bits = np.log2(top + 1)
    if not floating and float(bits).is_integer():
        return f"{int(bits)} bit"
    return f"{'floats' if floating else 'samples'} from 0 to {top:g}"
