"""Quality of drawn fields in words: each fault is told, and a sound field has none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from zoo.detection.detector import Cells, describe
from zoo.detection.found import Found
from zoo.detection.objects import OBJECTS, RED, WHITE
from zoo.detection.quality import complaints, measure

SIDE = 60  # pixels across a red cell: 0.12 µm a pixel


def field(side: float = SIDE, step: float = 1.3, nucleus: int = 40) -> tuple[Image.Image, Cells]:
    """Twelve red cells `step` diameters apart, and a white cell whose nucleus has this brightness."""
    image = Image.new("RGB", (round(8 * side), round(8 * side)), (225, 225, 225))
    pen, boxes = ImageDraw.Draw(image), []
    for number in range(12):
        x, y = (0.3 + number % 4 * step) * side, (0.3 + number // 4 * step) * side
        boxes.append((RED, (x, y, x + side, y + side)))
    boxes.append((WHITE, (5.5 * side, 5.5 * side, 7.5 * side, 7.5 * side)))
    for name, box in boxes:
        pen.ellipse(box, fill=(90, nucleus, 120) if name == WHITE else (210, 150, 150))
    numbers = np.array([OBJECTS.index(name) for name, _ in boxes])
    found = Found(np.array([box for _, box in boxes], np.float32), np.full(len(boxes), 0.9), numbers)
    return image, describe(found, image.size)


def told(image: Image.Image, cells: Cells) -> list[str]:
    return [sentence.partition(":")[0] for sentence in complaints(measure(image, cells))]


def test_a_sound_field_has_no_fault():
    assert told(*field()) == []


def test_each_fault_is_told():
    image, cells = field()
    assert told(image.filter(ImageFilter.GaussianBlur(0.15 * SIDE)), cells) == ["Out of focus"]
    assert told(*field(nucleus=200)) == ["Weak stain"]
    assert "Crowded" in told(*field(step=0.8))


@pytest.mark.parametrize("side", [9.0, 260.0])
def test_a_scale_that_classifiers_never_saw_is_told(side):
    assert "Unusual magnification" in told(*field(side))


def test_nothing_is_said_of_what_cannot_be_measured():
    image = Image.new("RGB", (300, 200), "white")
    assert told(image, describe(Found(np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, int)), image.size)) == []
