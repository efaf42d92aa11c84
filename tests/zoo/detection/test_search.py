"""Search of pictures by a stand-in network that finds drawn squares exactly, at any scale and in tiles."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from zoo.detection.detector import describe, without_dark_red_cells
from zoo.detection.found import Found, suppress
from zoo.detection.objects import OBJECTS, RED, STRIDE, WHITE
from zoo.detection.ruler import RED_DIAMETER, chosen_scale, red_cell_scale
from zoo.detection.scan import search

DARK = 0.0  # of the network's input, below which a pixel is a cell


def sees_squares(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stand-in for a detector: every dark patch of 12 to 64 pixels is a red cell."""
    height, width = (length // STRIDE for length in batch.shape[2:])
    logits = np.full((1, 3, height, width), -20.0, np.float32)
    sides = np.ones((1, 4, height, width), np.float32)
    for rows, columns in ndimage.find_objects(ndimage.label(batch[0, 0] < DARK)[0]):
        box = columns.start, rows.start, columns.stop, rows.stop
        if not 12 <= max(box[2] - box[0], box[3] - box[1]) <= 64:
            continue
        x, y = (min(int((box[n] + box[n + 2]) / 2 / STRIDE), limit - 1) for n, limit in ((0, width), (1, height)))
        logits[0, 1, y, x] = 5.0
        middle_x, middle_y = (x + 0.5) * STRIDE, (y + 0.5) * STRIDE
        sides[0, :, y, x] = middle_x - box[0], middle_y - box[1], box[2] - middle_x, box[3] - middle_y
    return logits, sides


def field(width: int, height: int, side: int) -> tuple[Image.Image, np.ndarray]:
    """Grid of squares on white, and their boxes."""
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    places = [(x, y) for y in range(side, height - 2 * side, 2 * side) for x in range(side, width - 2 * side, 2 * side)]
    for x, y in places:
        pen.rectangle((x, y, x + side - 1, y + side - 1), fill="black")
    return image, np.array([(x, y, x + side, y + side) for x, y in places], float)


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [(640, 480, 14), (640, 480, 30), (640, 480, 110), (400, 400, 100), (3000, 2000, 60), (2600, 300, 33), (90, 90, 28)],
)
def test_cells_are_found_at_every_scale_once(width, height, side):
    image, boxes = field(width, height, side)
    found = search(image, sees_squares).found
    assert len(found) == len(boxes)
    order = np.lexsort((found.boxes[:, 0].round(), found.boxes[:, 1].round()))
    assert np.abs(found.boxes[order] - boxes).max() <= 0.1 * side


@pytest.mark.parametrize("size", [(640, 480), (30, 30), (39, 8)])
def test_a_blank_picture_has_no_cells(size):
    assert len(search(Image.new("RGB", size, "white"), sees_squares).found) == 0


def test_cells_at_the_edge_are_cut_and_have_no_diameter():
    image, boxes = field(640, 480, 30)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 200, 19, 229), fill="black")
    cells = describe(search(image, sees_squares).found, image.size)
    assert cells.counts[RED] == len(boxes) + 1
    (cut,) = (cell for cell in cells.cells if cell.cut)
    assert cut.diameter_um is None
    assert cells.scale is not None
    assert cells.scale.um_per_px == pytest.approx(RED_DIAMETER / 30, rel=0.05)
    assert cells.scale.low < cells.scale.um_per_px < cells.scale.high
    assert np.mean([cell.diameter_um for cell in cells.cells if not cell.cut]) == pytest.approx(RED_DIAMETER, rel=0.05)


def test_few_or_misshapen_red_cells_give_no_scale():
    few = np.array([[0, 0, 10, 10]] * 7) + 20.0 * np.arange(7)[:, None]
    assert red_cell_scale(few, np.ones(7), np.zeros(7, bool)) is None
    long = np.array([[0, 0, 10, 20]] * 9) + 40.0 * np.arange(9)[:, None]
    assert red_cell_scale(long, np.ones(9), np.zeros(9, bool)) is None
    heap = np.array([[0, 0, 10, 10]] * 9, float)
    assert red_cell_scale(heap, np.ones(9), np.zeros(9, bool)) is None


@pytest.mark.parametrize(("file", "given", "scale", "source"), [(0.2, None, 0.2, "file"), (0.2, 0.3, 0.3, "given")])
def test_what_a_person_or_the_file_says_goes_first_and_is_compared(file, given, scale, source):
    cells = np.array([[0, 0, 72, 72]] * 9) + 100.0 * np.arange(9)[:, None]
    chosen = chosen_scale(red_cell_scale(cells, np.ones(9), np.zeros(9, bool)), file, given)
    assert (chosen.um_per_px, chosen.source) == (scale, source)
    assert chosen.contradicts == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("side", "sure", "reds", "kept"), [(30, 0.5, 9, 0), (30, 0.9, 9, 1), (45, 0.5, 9, 1), (30, 0.5, 3, 1)]
)
def test_unsure_white_cells_of_the_size_of_red_cells_are_none(side, sure, reds, kept):
    boxes = np.array([[40 * n, 0, 40 * n + 30, 30] for n in range(reds)] + [[0, 90, side, 90 + side]], np.float32)
    found = Found(boxes, np.array([0.9] * reds + [sure]), np.array([1] * reds + [0]))
    assert (without_dark_red_cells(found).numbers == 0).sum() == kept


def test_a_part_of_a_white_cell_is_no_cell():
    cell, lobe, neighbour, within_red = (0, 0, 100, 100), (40, 2, 98, 60), (90, 10, 190, 110), (300, 300, 330, 330)
    boxes = np.array([cell, neighbour, lobe, (290, 290, 350, 350), within_red, lobe], np.float32)
    numbers = np.array([OBJECTS.index(name) for name in (WHITE, WHITE, WHITE, RED, RED, RED)])
    found = suppress(Found(boxes, np.array([0.9, 0.8, 0.5, 0.9, 0.6, 0.7]), numbers))
    assert sorted(found.boxes[found.numbers == OBJECTS.index(WHITE)].tolist()) == [list(cell), list(neighbour)]
    assert (found.numbers == OBJECTS.index(RED)).sum() == 3
    # the surer one is kept, whichever is larger
    turned = suppress(Found(boxes[[0, 2]], np.array([0.5, 0.9]), numbers[:2]))
    assert len(turned) == 2
