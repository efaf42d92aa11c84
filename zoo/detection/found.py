"""Boxes from the detector's maps."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from zoo.detection.objects import OBJECTS, STRIDE, WHITE

MAX_OBJECTS = 3000  # of one pass
NEAR = np.ones((3, 3), np.uint8)  # places among which only the strongest is an object
SAME_CELL = 0.6  # IoU of two boxes of one object from which the weaker is dropped
PART = 0.75  # share of a white cell's box within a surer one from which it is a part of that cell, such as a lobe


@dataclass(frozen=True)
class Found:
    """Objects found: boxes (n, 4) in pixels, confidences (n,) falling, and numbers of objects (n,)."""

    boxes: np.ndarray
    confidences: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def where(self, kept: np.ndarray) -> Found:
        """Those that `kept` (n,) names."""
        return Found(self.boxes[kept], self.confidences[kept], self.numbers[kept])


def read_maps(logits: np.ndarray, sides: np.ndarray, least: float) -> list[Found]:
    """Objects of each picture of a batch whose confidence is at least `least`; see `CellDetector` for the maps."""
    limit = float(np.log(least / (1 - least)))
    return [_read(one, box, limit) for one, box in zip(logits, sides, strict=True)]


def _read(logits: np.ndarray, sides: np.ndarray, limit: float) -> Found:
    strongest = np.stack([cv2.dilate(one, NEAR) for one in logits])
    numbers, y, x = np.nonzero((logits >= strongest) & (logits >= limit))
    confidences = 1 / (1 + np.exp(-logits[numbers, y, x]))
    if len(confidences) > MAX_OBJECTS:
        order = np.argsort(-confidences, kind="stable")[:MAX_OBJECTS]
        numbers, y, x, confidences = numbers[order], y[order], x[order], confidences[order]
    left, top, right, bottom = sides[:, y, x]
    middle_x, middle_y = (x + 0.5) * STRIDE, (y + 0.5) * STRIDE
    boxes = np.stack([middle_x - left, middle_y - top, middle_x + right, middle_y + bottom], axis=1)
    return suppress(Found(boxes.astype(np.float32), confidences, numbers))


def suppress(found: Found) -> Found:
    """Drop weaker boxes of the same cell and parts of white cells, and sort by confidence."""
    if not len(found):
        return found
    left_top, size = found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]
    kept = cv2.dnn.NMSBoxesBatched(
        np.concatenate([left_top, size], axis=1).astype(np.float64).tolist(),
        found.confidences.tolist(),
        found.numbers.tolist(),
        score_threshold=0.0,
        nms_threshold=SAME_CELL,
    )
    chosen = np.array(kept, np.int64)
    return _without_parts(found.where(chosen[np.argsort(-found.confidences[chosen], kind="stable")]))


def _without_parts(found: Found) -> Found:
    """Drop boxes of white cells that lie within a surer one; `found` is sorted by confidence."""
    rows = np.flatnonzero(found.numbers == OBJECTS.index(WHITE))
    boxes = found.boxes[rows].astype(np.float64)
    corners = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.prod(np.clip(corners[1] - corners[0], 0, None), axis=2)  # (n, n)
    areas = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-9)
    within = np.tril(shared / areas[:, None] >= PART, -1)  # row within column, which is surer
    kept = np.ones(len(found), bool)
    kept[rows[within.any(axis=1)]] = False
    return found.where(kept)
