"""Cuts of one cell where a detector found it: by the cell's size or at physical scale, on its own ground or alone.

A cell that was cut out of a field brings along where it lies (`Found`, in the picture's `info`), so that it is not
looked for again. In other pictures the detector looks for the cell over the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo.detection.objects import WHITE
from zoo.imaging.localise import SQUARE_SCALE, LocatedCell, crop_square, deepen, empty_slide, find_cell
from zoo.lazy import lazy_module
from zoo.sources.catalogue import crop_detector

if TYPE_CHECKING:
    import cv2

    from zoo.detection.detector import Cells, Detector, FoundCell
else:
    cv2 = lazy_module("cv2")

BY_SIZE, BY_SIZE_ALONE, SCALED, SCALED_ALONE = "found", "found-alone", "scaled", "scaled-alone"
SIDE_UM = 24.0  # of the square at physical scale: the largest white cells of blood have room, with their surroundings
ROOM = 1.1  # sides of a cell that a square at physical scale leaves it at least
ALONE_MARGIN = 0.1  # of the box's sides, around the ellipse that an isolated cell keeps
SOFT = 0.02  # of the square's side: softness of that ellipse's border
INFO = "hemazoo cell"  # key of a picture's info


@dataclass(frozen=True, eq=False)
class Place:
    """Place of the cell of a cut picture.

    Attributes:
        whole: The picture that the cut was taken from.
        corner: Left and top of the cut in it.
        size: Width and height of the cut.
        box: The cell in `whole`.
        confidence: 0..1 that it is a cell.
        um_per_px: Micrometres a pixel; None where nothing tells them.
    """

    whole: Image.Image
    corner: tuple[int, int]
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    confidence: float
    um_per_px: float | None


def cut_cell(image: Image.Image, cell: FoundCell, found: Cells | None = None) -> Image.Image:
    """The square around a cell of a field, as large as the picture allows; it brings along where the cell lies."""
    left, top, right, bottom = cell.box
    half = SQUARE_SCALE * max(right - left, bottom - top) / 2
    x, y = cell.centre
    corner = max(0, round(x - half)), max(0, round(y - half))
    part = image.crop((*corner, min(image.width, round(x + half)), min(image.height, round(y + half))))
    scale = found.scale.um_per_px if found and found.scale else None
    part.info = part.info | {INFO: Place(image, corner, part.size, cell.box, cell.confidence, scale)}
    return part


def cell_box(image: Image.Image) -> tuple[float, float, float, float] | None:
    """Box of the main cell of an RGB picture: where the detector found it in a cut of `cut_cell`, else by its stain."""
    place = image.info.get(INFO)
    if not isinstance(place, Place) or place.size != image.size:
        found = find_cell(image)
        return found.box if found else None
    left, top, right, bottom = place.box
    x, y = place.corner
    return left - x, top - y, right - x, bottom - y


def cut_found(image: Image.Image, crop: str, detector: Detector | None = None) -> LocatedCell:
    """Cut the cell of an RGB picture.

    Args:
        image: A cut of `cut_cell`, or any other picture.
        crop: One of the kinds of this module.
        detector: Finds the cell of other pictures; None for the built-in one.

    Returns:
        The square, none paler than STAINED_LIGHT (see `zoo.imaging.localise`). Where no cell is found it is that of
        `crop_square`, with confidence 0.
    """
    place = image.info.get(INFO)
    if not isinstance(place, Place) or place.size != image.size:
        place = _place_of(image, detector)
    if place is None:
        found = crop_square(image)
        return LocatedCell(found.image, found.box, crop, 0.0)
    left, top, right, bottom = place.box
    longer = max(right - left, bottom - top)
    side = SQUARE_SCALE * longer
    if crop in (SCALED, SCALED_ALONE) and place.um_per_px:
        side = max(SIDE_UM / place.um_per_px, ROOM * longer)
    pixels = max(8, round(side))
    x, y = round((left + right - pixels) / 2), round((top + bottom - pixels) / 2)
    part = deepen(_square(place.whole, x, y, pixels))
    if crop in (BY_SIZE_ALONE, SCALED_ALONE):
        part = _alone(part, (left - x, top - y, right - x, bottom - y), empty_slide(part))
    x, y = x - place.corner[0], y - place.corner[1]
    return LocatedCell(part, (x, y, x + pixels, y + pixels), crop, place.confidence)


def _place_of(image: Image.Image, detector: Detector | None) -> Place | None:
    """The cell over the middle of a picture, else the nearest to it; white cells before others."""
    if detector is None:
        from zoo.api import default_detector  # noqa: PLC0415 (it serves these crops)

        detector = default_detector(crop_detector())
    found = detector.find(image)
    cells = found.of(WHITE) or list(found.cells)
    if not cells:
        return None
    middle = np.array(image.size) / 2
    cell = min(cells, key=lambda one: float(np.linalg.norm(np.array(one.centre) - middle)))
    scale = found.scale.um_per_px if found.scale else None
    return Place(image, (0, 0), image.size, cell.box, cell.confidence, scale)


def _square(image: Image.Image, x: int, y: int, side: int) -> Image.Image:
    """A square of the picture; what lies outside of it has the colour of the empty slide."""
    if x >= 0 and y >= 0 and x + side <= image.width and y + side <= image.height:
        return image.crop((x, y, x + side, y + side))
    part = Image.new("RGB", (side, side), empty_slide(image))
    part.paste(image, (-x, -y))
    return part


def _alone(part: Image.Image, box: tuple[float, float, float, float], slide: tuple[int, int, int]) -> Image.Image:
    """The cell with the empty slide around it, within a soft ellipse: cells are round."""
    left, top, right, bottom = box
    axes = (1 / 2 + ALONE_MARGIN) * (right - left), (1 / 2 + ALONE_MARGIN) * (bottom - top)
    mask = np.zeros((part.height, part.width), np.uint8)
    middle = ((left + right) / 2, (top + bottom) / 2)
    cv2.ellipse(mask, (middle, (2 * axes[0], 2 * axes[1]), 0), 255, -1)
    soft = cv2.GaussianBlur(mask, (0, 0), max(0.5, SOFT * part.width))
    return Image.composite(part, Image.new("RGB", part.size, slide), Image.fromarray(soft))
