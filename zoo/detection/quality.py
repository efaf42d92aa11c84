"""Quality of a field in words: focus, stain, crowding, magnification.

Each is a number that can be measured again. The limits were taken from the fields that detectors and classifiers learn
and are chosen by: docs/fields.md says how many of those, and of blurred ones, are called poor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from zoo.detection.matching import iou
from zoo.detection.objects import RED, WHITE
from zoo.detection.ruler import MAX_SHARED, MIN_CELLS

if TYPE_CHECKING:
    from zoo.detection.detector import Cells, FoundCell

MAX_EDGE = 0.16  # diameters of a red cell that an edge in focus is wide, at most
MAX_EDGE_PIXELS = 3.0  # pixels: edges of small cells are never sharper than the picture
MAX_STAIN = 0.7  # share of light that well stained nuclei let through, at most
MAX_OVERLAPPING = 0.8  # share of red cells whose boxes overlap, above which counts are less sure
USUAL_SCALES = (0.05, 0.3)  # µm a pixel, of the data sets that classifiers learn from

MIN_RED = 3  # whole red cells by which edges are measured
MAX_MEASURED = 24  # cells whose edges are looked at
AROUND = 0.15  # of a cell's side, around its box
SMOOTHING = 0.8  # pixels: noise is no edge
GROUND_PERCENTILE, DARK_PERCENTILE = 90, 5  # of green: empty slide in a field, and nucleus in a white cell's box
SAMPLED = 256  # rows and columns that the empty slide's light is taken from


@dataclass(frozen=True)
class Measures:
    """Measures of a field; None where it holds too few cells for it.

    Attributes:
        edge: Width of the edges of cells in diameters of a red cell: the step of brightness over the steepest slope.
        edge_pixels: The same in pixels; 0 where it is not measured.
        stain: Share of the empty slide's green light that the nuclei of white cells let through.
        overlapping: Share of the red cells that lie over another.
        um_per_px: Micrometres a pixel.
    """

    edge: float | None
    edge_pixels: float
    stain: float | None
    overlapping: float | None
    um_per_px: float | None


def measure(image: Image.Image, found: Cells) -> Measures:
    """Measure a field, an RGB picture, by its cells."""
    green = np.asarray(image)[..., 1]
    rows, columns = (max(1, length // SAMPLED) for length in green.shape)
    ground = float(np.percentile(green[::rows, ::columns], GROUND_PERCENTILE))
    red, white = found.of(RED), found.of(WHITE)
    boxes = np.array([cell.box for cell in red], np.float32).reshape(-1, 4)
    shared = iou(boxes, boxes)
    np.fill_diagonal(shared, 0)
    edge = _edge(green, found)
    return Measures(
        edge[0] / edge[1] if edge else None,
        edge[0] if edge else 0.0,
        float(np.median([_darkest(green, cell) for cell in white])) / max(ground, 1) if white else None,
        float((shared.max(axis=1) > MAX_SHARED).mean()) if len(red) >= MIN_CELLS else None,
        found.scale.um_per_px if found.scale else None,
    )


def complaints(measured: Measures) -> Iterator[str]:
    """Sentences on what is poor, and what it does to the answers."""
    edge, scale = measured.edge, measured.um_per_px
    if edge is not None and edge > MAX_EDGE and measured.edge_pixels > MAX_EDGE_PIXELS:
        yield f"Out of focus: the edges of cells are {100 * edge:.0f} % of a red cell wide."
    if measured.stain is not None and measured.stain > MAX_STAIN:
        yield f"Weak stain: nuclei let {100 * measured.stain:.0f} % of the light through."
    if measured.overlapping is not None and measured.overlapping > MAX_OVERLAPPING:
        yield f"Crowded: {100 * measured.overlapping:.0f} % of the red cells overlap, so their count is less sure."
    if scale and not USUAL_SCALES[0] <= scale <= USUAL_SCALES[1]:
        usual = " to ".join(f"{one:.2f}" for one in USUAL_SCALES)
        yield f"Unusual magnification: {scale:.2f} µm a pixel; the models have seen {usual}."


def _edge(green: np.ndarray, found: Cells) -> tuple[float, float] | None:
    """Median width of the edges of cells, and of red cells, in pixels; None where too few of these are whole."""
    red = [cell for cell in found.of(RED) if not cell.cut]
    if len(red) < MIN_RED:
        return None
    sides = [(right - left + bottom - top) / 2 for left, top, right, bottom in (cell.box for cell in red)]
    cells = [*red, *(cell for cell in found.of(WHITE) if not cell.cut)]
    chosen = cells[:: -(-len(cells) // MAX_MEASURED)]
    widths = [width for cell in chosen if (width := _edge_width(green, cell)) is not None]
    return (float(np.median(widths)), float(np.median(sides))) if widths else None


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
