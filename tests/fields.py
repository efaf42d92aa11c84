"""Drawn fields of several cells, and a detector that knows where they lie: the pages are tested without weights.

`python -m tests.fields run app.py …` starts Streamlit with this detector.
"""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from tests.making import LABELS, LOOKS, draw_cell
from training.detection.loop import Fitted, build
from training.detection.recipe import load_detector_recipe
from training.detection.train import write_detector
from zoo.detection.detector import Cells, Detector, describe
from zoo.detection.found import Found
from zoo.detection.objects import OBJECTS

SEEDS, SIZE, WHITE_SIDE, RED_SIDE = range(4), (480, 360), 70, 40
Boxes = list[tuple[str, tuple[float, float, float, float]]]


@cache
def draw_field(seed: int, white: int = 4) -> tuple[Image.Image, Boxes]:
    """A field with white cells of all kinds, ten red cells and two platelets, one red cell at the bottom edge."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", SIZE, (232, 222, 214))
    pen, boxes = ImageDraw.Draw(image), []
    for number in range(10):
        x, y = 20 + 46 * number, SIZE[1] - RED_SIDE / 2 if number else SIZE[1] - 10
        box = (
            (x - RED_SIDE / 2, y - RED_SIDE - 5, x + RED_SIDE / 2, y - 5) if number else (0, SIZE[1] - 30, 40, SIZE[1])
        )
        pen.ellipse(box, fill=(222, 170, 165))
        boxes.append(("red cell", tuple(map(float, box))))
    for number in range(white):
        cell = draw_cell(LABELS[number % 4], seed, (110, 110))
        left, top = 10 + 115 * (number % 4), 20 + 120 * (number // 4) + int(random.integers(0, 20))
        image.paste(cell, (left, top))
        boxes.append(("white cell", (left + 20.0, top + 20.0, left + 90.0, top + 90.0)))
    for number in range(2):
        box = (100.0 + 90 * number, 280.0, 112.0 + 90 * number, 292.0)
        pen.ellipse(box, fill=LOOKS["neutrophil"][1])
        boxes.append(("platelet", box))
    return image, boxes


@cache
def draw_crowd(columns: int = 20, rows: int = 15) -> tuple[Image.Image, Boxes]:
    """A large field with white cells in rows and columns."""
    side, boxes = 100, []
    image = Image.new("RGB", (columns * side, rows * side), (232, 222, 214))
    for number in range(columns * rows):
        left, top = side * (number % columns), side * (number // columns)
        image.paste(draw_cell(LABELS[number % 4], number % 16, (side, side)), (left, top))
        boxes.append(("white cell", (left + 15.0, top + 15.0, left + 85.0, top + 85.0)))
    return image, boxes


def empty_ground() -> Image.Image:
    """A field without any cell."""
    noise = np.random.default_rng(0).normal(0, 4, (300, 300, 3))
    return Image.fromarray((np.array((232, 222, 214)) + noise).clip(0, 255).astype(np.uint8))


def find(
    _self: Detector, image: Image.Image, um_per_px: float | None = None, file_um_per_px: float | None = None
) -> Cells:
    """Stand-in for `Detector.find`: the cells of drawn fields, none on an empty ground, else one in the middle."""
    boxes = _known().get(digest(image))
    if boxes is None:
        width, height = image.size
        side = min(width, height)
        boxes = [
            (
                "white cell",
                ((width - side / 2) / 2, (height - side / 2) / 2, (width + side / 2) / 2, (height + side / 2) / 2),
            )
        ]
    numbers = np.array([OBJECTS.index(name) for name, _ in boxes], np.int64)
    found = Found(np.array([box for _, box in boxes], np.float32).reshape(-1, 4), np.full(len(boxes), 0.9), numbers)
    return describe(found, image.size, um_per_px, file_um_per_px)


def digest(image: Image.Image) -> str:
    """Hash of a picture's pixels."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


@cache
def _known() -> dict[str, Boxes]:
    without_white = [draw_field(seed, white=0) for seed in SEEDS]
    fields = [(empty_ground(), []), draw_crowd(), *map(draw_field, SEEDS), *without_white]
    return {digest(image): boxes for image, boxes in fields}


def make_detector(folder: Path) -> Path:
    """Write a tiny detector of random weights into a zoo."""
    changes = ("model.backbone=test_efficientnet", "model.pretrained=false", "model.width=8")
    recipe = load_detector_recipe("cells", changes)
    torch.manual_seed(0)
    write_detector(recipe, Fitted(build(recipe).eval(), [1.0]), dict.fromkeys(OBJECTS, 0.5), folder)
    return folder


if __name__ == "__main__":
    from streamlit.web.cli import main

    replaced: Any = Detector
    replaced.find = find
    sys.argv[0] = "streamlit"
    main()
