"""Pictures that show no blood cell, to measure the out-of-distribution detector.

Photographs, histology and other medical pictures come with scikit-image and scikit-learn; text, noise and plain colours
are drawn; empty regions are cut from smear fields. The same pictures are made every time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from zoo.data import FileSource, read_dataset
from zoo.data.registry import datasets
from zoo.imaging.decode import from_array

PHOTOGRAPHS = (
    "astronaut",
    "camera",
    "chelsea",
    "coffee",
    "rocket",
    "coins",
    "clock",
    "moon",
    "brick",
    "grass",
    "gravel",
    "page",
    "text",
    "horse",
    "logo",
    "colorwheel",
)
OTHER_MEDICINE = ("retina", "microaneurysms", "cell")
N_EMPTY_REGIONS = 120
NOISE_OF_A_CAMERA = 1.0  # standard deviation, of 255
TRIES = 8  # to find a region of a field without a white cell


def foreign_pictures(root: Path | None, size: int = 256) -> dict[str, list[Image.Image]]:
    """Pictures without a blood cell, by kind.

    Args:
        root: Folder that holds the data sets; empty smear regions are cut from the first one of whole fields whose
            cells have boxes. None: no empty regions.
        size: Side of most pictures, pixels.

    Returns:
        Kind → pictures.
    """
    random = np.random.default_rng(0)
    histology = _crops(_shipped("immunohistochemistry"), random, size, 40)
    pictures = {
        "photographs": [crop for name in PHOTOGRAPHS for crop in _crops(_shipped(name), random, size)]
        + [crop for image in load_sample_images().images for crop in _crops(from_array(image), random, size)],
        "histology": histology,
        "other medicine": [crop for name in OTHER_MEDICINE for crop in _crops(_shipped(name), random, size, 12)],
        "text": [_text(random, size) for _ in range(40)],
        "noise": [from_array(random.integers(0, 256, (size, size, 3), np.uint8)) for _ in range(20)],
        "smooth noise": [_smooth_noise(random, size) for _ in range(20)],
        "plain colours": [_plain_colour(random.integers(0, 256, 3), size, seed) for seed in range(40)],
    }
    fields = fields_with_boxes(root) if root is not None else None
    if fields is not None:
        pictures["empty smear"] = _empty_regions(fields, random)
    return pictures


def _shipped(name: str) -> Image.Image:
    """A picture that comes with scikit-image, as RGB."""
    pixels = np.asarray(getattr(skimage.data, name)())
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    return from_array(pixels[..., :3] if pixels.ndim == 3 else pixels)


def _crops(image: Image.Image, random: np.random.Generator, size: int, count: int = 5) -> list[Image.Image]:
    """The whole picture, and random squares of it."""
    crops = [image]
    for _ in range(count - 1):
        side = int(min(image.size) * random.uniform(0.3, 0.9))
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        crops.append(image.crop((left, top, left + side, top + side)).resize((size, size)))
    return crops


def _text(random: np.random.Generator, size: int) -> Image.Image:
    page = Image.new("RGB", (size, size), tuple(random.integers(200, 256, 3).tolist()))
    draw = ImageDraw.Draw(page)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz 0123456789"))
    for line in range(4, size - 12, int(random.integers(11, 24))):
        draw.text((6, line), "".join(random.choice(letters, 40)), fill=tuple(random.integers(0, 120, 3).tolist()))
    return page


def _plain_colour(colour: np.ndarray, size: int, seed: int) -> Image.Image:
    """One colour with a camera's faint noise: a picture of exactly one colour is refused before a model sees it."""
    noise = np.random.default_rng(seed).normal(0, NOISE_OF_A_CAMERA, (size, size, 3))
    return from_array(np.clip(np.round(colour + noise), 0, 255).astype(np.uint8))


def _smooth_noise(random: np.random.Generator, size: int) -> Image.Image:
    """Smooth noise in the colours of a smear."""
    coarse = random.uniform(120, 255, (int(random.integers(4, 24)),) * 2 + (3,)).astype(np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def fields_with_boxes(root: Path) -> Path | None:
    """Folder below `root` of the first data set of whole smear fields with boxes of cells, if we can read it."""
    for known in datasets().values():
        if known.pictures == "fields" and known.readable and (root / known.place).is_dir():
            return root / known.place
    return None


def _empty_regions(folder: Path, random: np.random.Generator, count: int = N_EMPTY_REGIONS) -> list[Image.Image]:
    """Squares of smear fields that touch no white cell's box; red cells are in them."""
    boxes: dict[Path, list[tuple[int, int, int, int]]] = {}
    for item in read_dataset(folder).items:
        if isinstance(item.source, FileSource) and item.source.box:
            boxes.setdefault(item.source.path, []).append(item.source.box)
    regions: list[Image.Image] = []
    for path in sorted(boxes):
        with Image.open(path) as opened:
            frame = opened.convert("RGB")
        for _ in range(TRIES):
            side = int(random.integers(140, 240))
            left, top = (int(random.integers(0, length - side + 1)) for length in frame.size)
            clear = all(b[0] >= left + side or b[2] <= left or b[1] >= top + side or b[3] <= top for b in boxes[path])
            if clear:
                regions.append(frame.crop((left, top, left + side, top + side)))
                break
        if len(regions) == count:
            break
    return regions
