"""Quality of a field in words: focus, stain, crowding, magnification.

Each measure is a number a stranger can compute again; the limits beside it were taken from the fields that detectors
and classifiers learn from (docs/fields.md has their distributions).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from zoo.detection.detector import Cells, FoundCell
from zoo.detection.matching import iou
from zoo.detection.objects import RED, WHITE
from zoo.detection.ruler import MAX_SHARED, MIN_CELLS, RED_DIAMETER

MAX_MEASURED = 48  # cells whose edges are looked at
AROUND = 0.15  # of a cell's side, around its box
SMOOTHING = 0.8  # pixels: noise is no edge
GROUND_PERCENTILE, DARK_PERCENTILE = 90, 5  # of green: empty slide in a field, and nucleus in a white cell's box


@dataclass(frozen=True)
class Measures:
    """What is measured in a field; None where it holds too few cells for it.

    Attributes:
        edge: Width of the cells' edges, in diameters of a red cell: the step of brightness over the steepest slope.
        stain: Share of the empty slide's green light that the nuclei of white cells let through.
        ground: Green light of the empty slide, 0..1.
        overlapping: Share of the red cells that lie over another.
        um_per_px: Micrometres a pixel.
    """

    edge: float | None
    stain: float | None
    ground: float
    overlapping: float | None
    um_per_px: float | None


def measure(image: Image.Image, found: Cells) -> Measures:
    """Measure a field, an RGB picture, with its cells."""
    green = np.asarray(image)[..., 1]
    ground = float(np.percentile(green[:: max(1, green.shape[0] // 256), :: max(1, green.shape[1] // 256)], 90))
    red, white = found.of(RED), found.of(WHITE)
    boxes = np.array([cell.box for cell in red], np.float32).reshape(-1, 4)
    shared = iou(boxes, boxes)
    np.fill_diagonal(shared, 0)
    enough = len(red) >= MIN_CELLS
    return Measures(
        _edge(green, found),
        float(np.median([_darkest(green, cell) for cell in white])) / max(ground, 1) if white else None,
        ground / 255,
        float((shared.max(axis=1) > MAX_SHARED).mean()) if enough else None,
        found.scale and found.scale.um_per_px,
    )


def _edge(green: np.ndarray, found: Cells) -> float | None:
    """Median width of the edges of cells, in diameters of a red cell; None without a scale."""
    cells = [cell for cell in found.cells if cell.object in (RED, WHITE) and not cell.cut]
    if found.scale is None or not cells:
        return None
    chosen = cells[:: -(-len(cells) // MAX_MEASURED)]
    widths = [width for cell in chosen if (width := _edge_width(green, cell)) is not None]
    return float(np.median(widths)) * found.scale.um_per_px / RED_DIAMETER if widths else None


def _edge_width(green: np.ndarray, cell: FoundCell) -> float | None:
    part = _part(green, cell, AROUND)
    if min(part.shape) < 6:
        return None
    smooth = cv2.GaussianBlur(part.astype(np.float32), (0, 0), SMOOTHING)
    slope = np.hypot(cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1)) / 32
    step = float(np.percentile(smooth, 97) - np.percentile(smooth, 3))
    return step / max(float(np.percentile(slope, 98)), 1e-3)


def _darkest(green: np.ndarray, cell: FoundCell) -> float:
    return float(np.percentile(_part(green, cell, 0), DARK_PERCENTILE))


def _part(green: np.ndarray, cell: FoundCell, margin: float) -> np.ndarray:
    left, top, right, bottom = cell.box
    room = margin * max(right - left, bottom - top)
    rows = slice(max(0, round(top - room)), max(1, round(bottom + room)))
    columns = slice(max(0, round(left - room)), max(1, round(right + room)))
    return green[rows, columns]
