"""Composites: cells cut from some fields and pasted into others, so that a field can hold many white cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from training.detection.pictures.crops import Marked
from zoo.detection.objects import OBJECTS, PLATELET, WHITE

MARGIN = 0.12  # of a cell's longer side, around what is cut out
MAX_SHARED = 0.08  # share of a white cell's box that other boxes may cover where it is cut out
MIN_EDGE = 2.0  # pixels between a cell that is cut out and its picture's edge
MAX_COVERED = 0.45  # share of a cell that what is pasted may cover before the cell is gone
WHITE_SIZES = (0.85, 1.2)  # factor of a pasted cell's size
CROWDED = 0.25  # probability that a cell is pasted beside another white one
EMPTY_PERCENTILE = 90  # of brightness, taken for the empty slide


@dataclass(frozen=True)
class CutCell:
    """A cell to paste.

    Attributes:
        light: Pixels (h, w, 3), relative to its slide's empty ground.
        alpha: Share of each pixel that is cell, (h, w).
        box: Its box (4,) in them.
        number: Number of its object.
        red_sides: Its size, in red cells of its field.
    """

    light: np.ndarray
    alpha: np.ndarray
    box: np.ndarray
    number: int
    red_sides: float


def cut_cells(field: Marked) -> list[CutCell]:
    """White cells and platelets of a field that lie clear of other cells and of its edges."""
    found = []
    empty = empty_ground(field.pixels)
    height, width = field.pixels.shape[:2]
    for number, (box, kind) in enumerate(zip(field.boxes, field.numbers, strict=True)):
        if kind not in (OBJECTS.index(WHITE), OBJECTS.index(PLATELET)):
            continue
        if box[:2].min() < MIN_EDGE or box[2] > width - MIN_EDGE or box[3] > height - MIN_EDGE:
            continue
        if _covered(box, np.delete(field.boxes, number, axis=0)) > MAX_SHARED:
            continue
        margin = MARGIN * float(max(box[2] - box[0], box[3] - box[1]))
        left, top = np.maximum(np.floor(box[:2] - margin), 0).astype(int)
        right, bottom = np.minimum(np.ceil(box[2:] + margin), [width, height]).astype(int)
        light = field.pixels[top:bottom, left:right] / empty
        inner = box - np.array([left, top, left, top], np.float32)
        side = float(np.sqrt(np.prod(box[2:] - box[:2])))
        found.append(
            CutCell(light.astype(np.float32), _alpha(light, inner), inner, int(kind), side / max(field.red_side, 1.0))
        )
    return found


def empty_ground(pixels: np.ndarray) -> np.ndarray:
    """Colour of the empty slide, (3,), at least 1."""
    return np.maximum(np.percentile(pixels[::4, ::4].reshape(-1, 3), EMPTY_PERCENTILE, axis=0), 1.0)


def paste_cells(field: Marked, cells: Sequence[CutCell], random: np.random.Generator) -> Marked:
    """The field with cells pasted at random places, some of them side by side; what they cover is taken out."""
    pixels = field.pixels.astype(np.float32)
    empty = empty_ground(field.pixels)
    boxes, numbers, pasted = field.boxes, field.numbers, np.zeros((0, 4), np.float32)
    height, width = pixels.shape[:2]
    own = len(boxes)  # boxes from here on are pasted ones
    for cell in cells:
        scale = cell.red_sides * field.red_side * random.uniform(*WHITE_SIZES)
        scale /= float(np.sqrt(np.prod(cell.box[2:] - cell.box[:2])))
        size = max(4, round(cell.alpha.shape[1] * scale)), max(4, round(cell.alpha.shape[0] * scale))
        if size[0] >= width or size[1] >= height:
            continue
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        light, alpha = (cv2.resize(part, size, interpolation=how) for part in (cell.light, cell.alpha))
        box = cell.box * (np.array(size * 2) / np.array(cell.alpha.shape[1::-1] * 2))
        if random.random() < 0.5:
            light, alpha = light[:, ::-1], alpha[:, ::-1]
            box = np.array([size[0] - box[2], box[1], size[0] - box[0], box[3]])
        left, top = _place(box, size, pasted, (width, height), random)
        box = box + np.array([left, top, left, top])
        if len(pasted) and _covered(box, pasted) > MAX_SHARED:
            continue
        gone = _shares(boxes, box[None]) > MAX_COVERED
        gone[own:] = False  # what was pasted before stays
        boxes, numbers, own = boxes[~gone], numbers[~gone], own - int(gone.sum())
        part = pixels[top : top + size[1], left : left + size[0]]
        part += alpha[..., None] * (light * empty - part)
        boxes = np.concatenate([boxes, box[None].astype(np.float32)])
        numbers = np.append(numbers, cell.number)
        pasted = np.concatenate([pasted, box[None].astype(np.float32)])
    return Marked(np.clip(pixels, 0, 255).astype(np.uint8), boxes, numbers, field.unsure)


def _place(
    box: np.ndarray, size: tuple[int, int], pasted: np.ndarray, whole: tuple[int, int], random: np.random.Generator
) -> tuple[int, int]:
    """Left and top of a pasted picture: anywhere, or with its cell's side touching one that was pasted before."""
    width, height = whole
    left, top = random.integers(0, width - size[0] + 1), random.integers(0, height - size[1] + 1)
    if len(pasted) and random.random() < CROWDED:
        other = pasted[random.integers(len(pasted))]
        angle = random.uniform(0, 2 * np.pi)
        reach = (other[2:] - other[:2] + box[2:] - box[:2]) / 2 * np.array([np.cos(angle), np.sin(angle)])
        middle = (other[:2] + other[2:]) / 2 + reach
        left, top = np.round(middle - (box[:2] + box[2:]) / 2).astype(int)
        left, top = np.clip(left, 0, width - size[0]), np.clip(top, 0, height - size[1])
    return int(left), int(top)


def _covered(box: np.ndarray, others: np.ndarray) -> float:
    """Largest share of a box that one of the others covers."""
    return float(_shares(box[None], others)[0]) if len(others) else 0.0


def _shares(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Largest share of each box that one of the others, at least one, covers."""
    ends = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(ends - np.maximum(boxes[:, None, :2], others[None, :, :2]), 0, None)
    area = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-6)
    return np.asarray(np.prod(shared, axis=2).max(axis=1) / area)


def _alpha(light: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Share of each pixel that is cell, (h, w): an ellipse in the box, and what is stained near it."""
    height, width = light.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    distance = np.sqrt(((x - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2)
    stained = np.abs(np.log(np.clip(light, 0.05, 2))).max(axis=2) > 0.12
    stained = cv2.morphologyEx(stained.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    mask = ((distance < 0.75) | ((distance < 1.12) & (stained > 0))).astype(np.float32)
    return cv2.GaussianBlur(mask, (0, 0), max(0.8, 0.02 * max(height, width)))
