"""Cuts of cells that a detector found in drawn fields: place, size, physical scale, and what is around the cell."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from zoo.detection.cut import SIDE_UM, cut_cell, cut_found
from zoo.detection.detector import Cells, describe
from zoo.detection.found import Found
from zoo.detection.objects import OBJECTS, RED, WHITE
from zoo.detection.ruler import RED_DIAMETER
from zoo.imaging.decode import Picture
from zoo.imaging.localise import SQUARE_SCALE, crop_square
from zoo.serving.fields import ask_about

GROUND, PURPLE, PINK = (232, 222, 214), (90, 40, 130), (222, 170, 165)
WHITE_SIDE = 2.0  # in red cells


class Known:
    """A detector that knows where the cells lie."""

    def __init__(self, boxes: list[tuple[str, tuple[float, ...]]]) -> None:
        self.boxes, self.asked = boxes, 0

    def find(self, image: Image.Image, um_per_px: float | None = None, file_um_per_px: float | None = None) -> Cells:
        self.asked += 1
        numbers = np.array([OBJECTS.index(name) for name, _ in self.boxes], np.int64)
        boxes = np.array([box for _, box in self.boxes], np.float32).reshape(-1, 4)
        return describe(Found(boxes, np.full(len(boxes), 0.9), numbers), image.size, um_per_px, file_um_per_px)


def field(red: float, reds: int = 9) -> tuple[Image.Image, Known]:
    """A field whose red cells are `red` pixels across, with a white cell in the middle and another at the left edge."""
    image = Image.new("RGB", (round(14 * red), round(10 * red)), GROUND)
    pen, half, y = ImageDraw.Draw(image), WHITE_SIDE * red / 2, 4 * red
    boxes = [(RED, (n * 1.4 * red + 4, 8 * red, n * 1.4 * red + 4 + red, 9 * red)) for n in range(reds)]
    boxes += [(WHITE, (x - half, y - half, x + half, y + half)) for x in (6 * red, 1.2 * half)]
    for name, box in boxes:
        pen.ellipse(box, fill=PURPLE if name == WHITE else PINK)
    return image, Known(boxes)


def cuts(red: float, crop: str, reds: int = 9) -> list[Image.Image]:
    """The white cells of a field as a classifier with this crop sees them."""
    image, detector = field(red, reds)
    return [cut_found(part, crop).image for part in ask_about(Picture(image), detector).parts]


def purple(image: Image.Image) -> np.ndarray:
    return (np.abs(np.asarray(image, int) - PURPLE).max(axis=2) < 40).any(axis=0).nonzero()[0]


@pytest.mark.parametrize("crop", ["found", "found-alone"])
@pytest.mark.parametrize("red", [12.0, 40.0])
def test_cells_have_one_size_and_lie_in_the_middle(crop, red):
    for part in cuts(red, crop):
        columns = purple(part)
        assert part.width == part.height == pytest.approx(SQUARE_SCALE * WHITE_SIDE * red, abs=1)
        assert len(columns) / part.width == pytest.approx(1 / SQUARE_SCALE, abs=0.04)
        assert columns.mean() == pytest.approx(part.width / 2, abs=2)


@pytest.mark.parametrize("red", [12.0, 40.0])
def test_cells_are_cut_at_one_physical_scale(red):
    for part in cuts(red, "scaled"):
        assert part.width == pytest.approx(SIDE_UM / RED_DIAMETER * red, abs=1)
        assert len(purple(part)) / part.width == pytest.approx(WHITE_SIDE * RED_DIAMETER / SIDE_UM, abs=0.04)


def test_without_a_ruler_cells_are_cut_by_their_size():
    without = cuts(20, "scaled", reds=7)[0]
    assert without.size == cuts(20, "found")[0].size != cuts(20, "scaled")[0].size


def test_what_is_around_a_cell_is_kept_or_is_empty_slide():
    image, detector = field(40)
    pen = ImageDraw.Draw(image)
    pen.rectangle((6 * 40 + 50, 4 * 40 + 50, 6 * 40 + 70, 4 * 40 + 70), fill=PINK)
    (_, kept), (_, alone) = (
        [cut_found(part, crop).image for part in ask_about(Picture(image), detector).parts]
        for crop in ("found", "found-alone")
    )
    middle, corner = kept.width // 2, kept.width // 2 + 60
    assert kept.getpixel((middle, middle)) == alone.getpixel((middle, middle)) == PURPLE
    assert kept.getpixel((corner, corner)) == PINK
    assert np.abs(np.subtract(alone.getpixel((corner, corner)), GROUND)).max() <= 2


def test_the_place_of_a_cut_cell_is_known_and_lies_in_the_cut():
    image, detector = field(30)
    cells = detector.find(image)
    cell = cells.of(WHITE)[1]  # the first lies at the edge
    part = cut_cell(image, cell, cells)
    asked = detector.asked
    located = cut_found(part, "found", detector)
    assert detector.asked == asked
    assert located.confidence == pytest.approx(0.9)
    assert (located.box[0] + located.box[2]) / 2 == pytest.approx(part.width / 2, abs=1)
    turned = part.resize((part.width // 2, part.height // 2))
    cut_found(turned, "found", detector)
    assert detector.asked == asked + 1  # what is known of the cut does not hold for the smaller picture


def test_other_pictures_are_searched_and_without_a_cell_the_stain_decides():
    image, detector = field(30)
    located = cut_found(image, "scaled", detector)
    left, top, right, bottom = located.box
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((6 * 30, 4 * 30), abs=1)
    nothing = cut_found(image, "found", Known([]))
    assert (nothing.confidence, nothing.box) == (0.0, crop_square(image).box)
