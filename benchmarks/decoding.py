"""Time the reading of ordinary pictures beside plain Pillow: `python benchmarks/decoding.py`.

Both decode the same JPEG, PNG and BMP files to upright RGB in turn, and the ratio of the median times is printed for
each format. `read_picture` may take at most 10 % longer.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from zoo.imaging.decode import read_picture

SIDE = 360  # pixels, as the usual data sets have
KINDS = {"JPEG": {"quality": 92}, "PNG": {}, "BMP": {}}


def main() -> None:
    """Print the times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=500)
    options = parser.parse_args()
    totals = [0.0, 0.0]
    for kind, settings in KINDS.items():
        files = [encoded(seed, kind, settings) for seed in range(max(1, options.pictures // len(KINDS)))]
        plain, ours = side_by_side(files)
        totals = [totals[0] + plain, totals[1] + ours]
        print(f"{kind}: {len(files)} pictures, Pillow {plain:.2f} ms, read_picture {ours:.2f} ms, {ours / plain:.3f}")
    print(f"all: {totals[1] / totals[0]:.3f}")


def encoded(seed: int, kind: str, settings: dict[str, int]) -> bytes:
    """A smooth random picture with noise, as hard to compress as a stained smear."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(60, 255, (24, 24, 3), np.uint8)).resize((SIDE, SIDE))
    noise = random.normal(0, 3, (SIDE, SIDE, 3))
    pixels = np.asarray(small.filter(ImageFilter.GaussianBlur(2)), float) + noise
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, kind, **settings)
    return buffer.getvalue()


def by_pillow(raw: bytes) -> Image.Image:
    """Plain Pillow: decode, turn, convert."""
    image = Image.open(io.BytesIO(raw))
    image.load()
    return ImageOps.exif_transpose(image).convert("RGB")


def side_by_side(files: list[bytes]) -> tuple[float, float]:
    """Median milliseconds of Pillow and of `read_picture`; which comes first alternates."""
    times: dict[Callable[[bytes], object], list[float]] = {by_pillow: [], read_picture: []}
    for number, raw in enumerate(files * 2):
        for function in (by_pillow, read_picture) if number % 2 else (read_picture, by_pillow):
            started = time.perf_counter()
            function(raw)
            times[function].append(1000 * (time.perf_counter() - started))
    return statistics.median(times[by_pillow]), statistics.median(times[read_picture])


if __name__ == "__main__":
    main()
