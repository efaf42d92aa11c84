"""Training crops of fields: at a random scale, turned and mirrored, with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from zoo.detection.objects import OBJECTS, RED, WHITE

RED_SIDES = (13.0, 56.0)  # pixels: size of a red cell in a crop
WHITE_TO_RED = 1.7  # usual size of a white cell, in red cells, where a field has too few of these
SCALES = (0.1, 4.0)
MIN_RED = 3  # red cells that a field's scale is taken from
MIN_VISIBLE = 0.3  # share of a box that a crop's edge must leave, or the cell is neither wanted nor wrong
WARPED_FROM = 0.6  # scale; below, the picture is reduced first, so that nothing aliases
MIN_SIDE = 3.0  # pixels: smaller boxes are neither wanted nor wrong


@dataclass(frozen=True)
class Marked:
    """Pixels (h, w, 3), uint8 RGB, and their cells: boxes (n, 4) in pixels, numbers of their objects (n,).

    `unsure` (m, 4) are regions where the detector may answer anything.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    numbers: np.ndarray
    unsure: np.ndarray

    @property
    def red_side(self) -> float:
        """Median size of its red cells in pixels; estimated from its white cells where red ones are few."""
        sides = np.sqrt(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1))
        red = sides[self.numbers == OBJECTS.index(RED)]
        if len(red) >= MIN_RED:
            return float(np.median(red))
        white = sides[self.numbers == OBJECTS.index(WHITE)]
        return float(np.median(white)) / WHITE_TO_RED if len(white) else float(max(self.pixels.shape)) / 8


def marked(pixels: np.ndarray, boxes: np.ndarray, numbers: np.ndarray) -> Marked:
    """Pixels with cells, all of which are sure."""
    return Marked(pixels, boxes.astype(np.float32), numbers, np.zeros((0, 4), np.float32))


def random_red_side(random: np.random.Generator) -> float:
    """Size of red cells for a crop, in pixels."""
    return float(np.exp(random.uniform(*np.log(RED_SIDES))))


def scale_for(field: Marked, red_side: float) -> float:
    """Factor by which a field's red cells get the size `red_side`, within reason."""
    return float(np.clip(red_side / field.red_side, *SCALES))


def random_crop(field: Marked, side: int, scale: float, random: np.random.Generator) -> Marked:
    """A square of `side` pixels of the scaled field, turned by quarters and mirrored.

    What lies outside of the field is filled with its brightest colour, as an empty slide is.
    """
    height, width = field.pixels.shape[:2]
    left, top = (_start(length * scale, side, random) for length in (width, height))
    matrix = np.array([[scale, 0, -left], [0, scale, -top]], np.float32)
    pixels = field.pixels
    if scale < WARPED_FROM:
        small = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
        matrix[:, :2] = np.eye(2)
    empty = np.percentile(field.pixels[::8, ::8].reshape(-1, 3), 90, axis=0)
    cut = cv2.warpAffine(pixels, matrix, (side, side), flags=cv2.INTER_LINEAR, borderValue=empty.tolist())
    shift = np.array([left, top, left, top], np.float32)
    boxes, unsure = _clip(field.boxes * scale - shift, side)
    kept = ~unsure & _has_area(boxes)
    regions = np.concatenate([boxes[unsure], np.clip(field.unsure * scale - shift, 0, side)])
    return _turned(
        Marked(cut, boxes[kept], field.numbers[kept], regions[_has_area(regions)]), side, int(random.integers(8))
    )


def join_quarters(quarters: Sequence[Marked]) -> Marked:
    """One square of four squares of equal sides."""
    side = len(quarters[0].pixels)
    shifts = [np.array([x, y, x, y], np.float32) * side for y in (0, 1) for x in (0, 1)]
    rows = [np.concatenate([quarters[n].pixels, quarters[n + 1].pixels], axis=1) for n in (0, 2)]
    return Marked(
        np.concatenate(rows),
        np.concatenate([one.boxes + shift for one, shift in zip(quarters, shifts, strict=True)]),
        np.concatenate([one.numbers for one in quarters]),
        np.concatenate([one.unsure + shift for one, shift in zip(quarters, shifts, strict=True)]),
    )


def _start(length: float, side: int, random: np.random.Generator) -> float:
    """Start of a crop along one axis; a field that is smaller than the crop lies anywhere in it."""
    room = length - side
    return float(random.uniform(min(0, room), max(0, room)))


def _clip(boxes: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes clipped to the crop, and which of them show too little of their cell."""
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    clipped = np.clip(boxes, 0, side)
    size = clipped[:, 2:] - clipped[:, :2]
    return clipped, (np.prod(size, axis=1) < MIN_VISIBLE * area) | (size.min(axis=1, initial=np.inf) < MIN_SIDE)


def _has_area(boxes: np.ndarray) -> np.ndarray:
    size = boxes[:, 2:] - boxes[:, :2]
    return (size > 0).all(axis=1)


def _turned(crop: Marked, side: int, turn: int) -> Marked:
    """One of the eight turns and mirrors of a square."""

    def place(boxes: np.ndarray) -> np.ndarray:
        left, top, right, bottom = boxes.T
        if turn & 1:
            left, right = side - right, side - left
        if turn & 2:
            top, bottom = side - bottom, side - top
        if turn & 4:
            left, top, right, bottom = top, left, bottom, right
        return np.stack([left, top, right, bottom], axis=1)

    pixels = crop.pixels
    pixels = pixels[:, ::-1] if turn & 1 else pixels
    pixels = pixels[::-1] if turn & 2 else pixels
    pixels = pixels.transpose(1, 0, 2) if turn & 4 else pixels
    return Marked(np.ascontiguousarray(pixels), place(crop.boxes), crop.numbers, place(crop.unsure))
