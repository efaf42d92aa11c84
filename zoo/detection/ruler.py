"""Micrometres a pixel, from the red cells of a field or from what its file says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.detection.matching import iou

RED_DIAMETER = 7.2  # µm, of a normal adult's red cell on a smear (Turgeon, Clinical Hematology)
RED_RANGE = (6.2, 8.2)  # µm, of normal adults
MIN_CELLS = 8  # well-shaped red cells below which there is no scale
MIN_CONFIDENCE = 0.5
MAX_ASPECT = 1.25  # longer side over shorter one of a well-shaped cell
MAX_SHARED = 0.05  # IoU with another box of a single cell
CONTRADICTION = 0.25  # relative difference from the file's own scale that is said


@dataclass(frozen=True)
class Scale:
    """Micrometres a pixel.

    Attributes:
        um_per_px: The scale.
        low, high: Its 95 % interval; it holds the spread of the cells and what persons differ by.
        source: "red cells", "file" or "given".
        cells: Red cells that it was taken from.
        contradicts: Scale of the red cells, where the file says something clearly different.
    """

    um_per_px: float
    low: float
    high: float
    source: str
    cells: int = 0
    contradicts: float | None = None


def red_cell_scale(boxes: np.ndarray, confidences: np.ndarray, cut: np.ndarray) -> Scale | None:
    """Scale from the red cells of a field: their boxes (n, 4), confidences (n,) and which an edge cuts (n,).

    Returns None for fewer than `MIN_CELLS` well-shaped, single, uncut ones.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    shaped = size.max(axis=1, initial=0) <= MAX_ASPECT * size.min(axis=1, initial=np.inf)
    shared = iou(boxes, boxes)
    np.fill_diagonal(shared, 0)
    good = shaped & ~cut & (confidences >= MIN_CONFIDENCE) & (shared.max(axis=1, initial=0) <= MAX_SHARED)
    diameters = np.sqrt(np.prod(size[good], axis=1))
    if len(diameters) < MIN_CELLS:
        return None
    median = float(np.median(diameters))
    # standard error of a median, from the interquartile range
    low, high = np.percentile(diameters, [25, 75])
    error = 1.96 * 1.2533 * (high - low) / 1.349 / np.sqrt(len(diameters))
    return Scale(
        RED_DIAMETER / median,
        RED_RANGE[0] / (median + error),
        RED_RANGE[1] / max(median - error, 1e-6),
        "red cells",
        len(diameters),
    )


def chosen_scale(red_cells: Scale | None, file: float | None, given: float | None) -> Scale | None:
    """The scale that counts: what a person gives, else what the file says, else what the red cells show."""
    said = given or file
    if not said:
        return red_cells
    differs = red_cells and abs(np.log(red_cells.um_per_px / said)) > np.log(1 + CONTRADICTION)
    contradicts = red_cells.um_per_px if red_cells and differs else None
    return Scale(said, said, said, "given" if given else "file", contradicts=contradicts)
