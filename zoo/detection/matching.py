"""Scores of a detector: average precision, recall at a precision, errors of counts and diameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.detection.found import Found

IOU_LEVELS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2))
RECALL_POINTS = np.linspace(0, 1, 101)  # of the precision curve's mean, as in COCO


@dataclass(frozen=True)
class Matches:
    """Result of one object in one field.

    Attributes:
        confidences: (n,), falling.
        correct: (levels, n), whether each found object is a marked one, at each of `IOU_LEVELS`.
        marked: Number of marked objects.
    """

    confidences: np.ndarray
    correct: np.ndarray
    marked: int


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and others (m, 4), (n, m)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas, other_areas = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, others))
    return np.asarray(shared / np.maximum(areas[:, None] + other_areas[None] - shared, 1e-9))


def match(found: Found, boxes: np.ndarray, numbers: np.ndarray, number: int) -> Matches:
    """Match found objects of one kind with marked ones, the most confident first, each marked one once."""
    rows = found.numbers == number
    wanted = boxes[numbers == number]
    overlap = iou(found.boxes[rows], wanted)
    correct = np.zeros((len(IOU_LEVELS), int(rows.sum())), bool)
    for level, least in enumerate(IOU_LEVELS):
        free = np.ones(len(wanted), bool)
        for row in range(overlap.shape[0]):
            likeness = np.where(free, overlap[row], -1)
            if len(wanted) and likeness.max() >= least:
                free[likeness.argmax()] = False
                correct[level, row] = True
    return Matches(found.confidences[rows], correct, len(wanted))


def average_precision(fields: Sequence[Matches]) -> np.ndarray:
    """Average precision of one object over fields at each of `IOU_LEVELS`; NaN where none is marked.

    Mean of the interpolated precision at 101 recalls, as in COCO (Lin et al. 2014).
    """
    marked = sum(field.marked for field in fields)
    if not marked:
        return np.full(len(IOU_LEVELS), np.nan)
    order, correct = _joined(fields)
    hits = np.cumsum(correct[:, order], axis=1)
    precision = hits / np.arange(1, len(order) + 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / marked
    scores = []
    for level in range(len(IOU_LEVELS)):
        places = np.searchsorted(recall[level], RECALL_POINTS)
        scores.append(np.append(precision[level], 0.0)[places].mean())
    return np.array(scores)


def recall_at(fields: Sequence[Matches], precision: float, level: int = 0) -> tuple[float, float]:
    """Largest recall at which the precision is at least `precision`, and the confidence limit that gives it."""
    marked = sum(field.marked for field in fields)
    order, correct = _joined(fields)
    confidences = np.concatenate([field.confidences for field in fields])[order]
    hits = np.cumsum(correct[level][order])
    good = np.flatnonzero(hits >= precision * np.arange(1, len(order) + 1))
    if not marked or not len(good):
        return 0.0, 1.0
    return float(hits[good[-1]] / marked), float(confidences[good[-1]])


def _joined(fields: Sequence[Matches]) -> tuple[np.ndarray, np.ndarray]:
    """Order of all found objects by falling confidence, and which are correct."""
    confidences = np.concatenate([field.confidences for field in fields])
    return np.argsort(-confidences, kind="stable"), np.concatenate([field.correct for field in fields], axis=1)
