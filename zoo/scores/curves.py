"""ROC, precision–recall, reliability and risk–coverage curves, and their areas in every bootstrap resample.

Areas are weighted sums over the distinct scores of the positive images, so that all resamples are computed at once and
exactly: ties count half (Hanley & McNeil 1982), average precision is the sum over thresholds (scikit-learn's
`average_precision_score`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    from scipy import sparse
else:
    sparse = lazy_module("scipy.sparse")

N_BINS = 15  # of confidence
CHUNK = 256  # resamples at a time: their sums stay in the processor's cache


@dataclass(frozen=True)
class Curve:
    """Points of a curve, the thresholds they belong to, all (m,), and the area under the curve."""

    x: np.ndarray
    y: np.ndarray
    thresholds: np.ndarray
    area: float


@dataclass(frozen=True)
class Reliability:
    """Equal bins of confidence (N_BINS,): number of images, mean confidence and accuracy, nan in empty bins."""

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def roc(positive: np.ndarray, score: np.ndarray) -> Curve:
    """ROC curve of one class against the rest.

    Args:
        positive: Whether each image belongs to the class, bool (n,).
        score: Its score, (n,).

    Returns:
        x the false positive rate, y the true positive rate; the area is nan if all images are of one class.
    """
    true, false, thresholds = _cumulative(positive, score)
    x, y = _normalised(false), _normalised(true)
    area = float(np.trapezoid(y, x)) if true[-1] and false[-1] else float("nan")
    return Curve(x, y, thresholds, area)


def precision_recall(positive: np.ndarray, score: np.ndarray) -> Curve:
    """Precision–recall curve of one class against the rest.

    Args:
        positive: Whether each image belongs to the class, bool (n,).
        score: Its score, (n,).

    Returns:
        x the recall, y the precision; the area is the average precision, nan without a positive image.
    """
    true, false, thresholds = _cumulative(positive, score)
    predicted = true + false
    precision = np.divide(true, predicted, out=np.ones_like(true), where=predicted > 0)
    recall = _normalised(true)
    area = float((np.diff(recall) * precision[1:]).sum()) if true[-1] else float("nan")
    return Curve(recall, precision, thresholds, area)


def reliability(truth: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Confidence against accuracy in equal bins (Guo et al. 2017, arXiv:1706.04599).

    Args:
        truth: Label numbers, (n,).
        probabilities: One row an image, (n, K).

    Returns:
        The bins.
    """
    bins, gaps = calibration_bins(truth, probabilities)
    images = np.bincount(bins, minlength=N_BINS)
    sums = np.bincount(bins, probabilities.max(1), N_BINS)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Reliability(images, sums / images, (sums - np.bincount(bins, gaps, N_BINS)) / images)


def calibration_bins(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bin number 0..N_BINS-1 of each image's confidence (n,), and confidence minus correctness (n,)."""
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == truth
    return np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1), confidence - correct


def risk_coverage(truth: np.ndarray, probabilities: np.ndarray) -> Curve:
    """Accuracy of the images that are answered, when only the most confident part of them is.

    Args:
        truth: Label numbers, (n,).
        probabilities: One row an image, (n, K).

    Returns:
        x the part of the images that is answered, y their accuracy. Images of one confidence are answered together. The
        area is the mean accuracy over all coverages: 1 minus AURC (Geifman & El-Yaniv 2017, arXiv:1705.08500).
    """
    correct = (probabilities.argmax(1) == truth).astype(float)
    confidence = probabilities.max(1)
    order = np.argsort(-confidence, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1)
    answered = (ends + 1) / len(order)
    accuracy = correct[order].cumsum()[ends] / (ends + 1)
    area = float((np.diff(answered, prepend=0) * accuracy).sum())
    return Curve(answered, accuracy, confidence[order][ends], area)


@dataclass(frozen=True)
class _Marks:
    """Images of each cell at the distinct scores (marks) of a class's positives, highest first.

    Attributes:
        hits: Positives at each mark, (marks, n_cells).
        false: Negatives at each mark or between it and the mark above, (marks, n_cells).
        ties: Negatives at exactly each mark, (marks, n_cells).
        negatives: All negatives, (n_cells,).
    """

    hits: sparse.csr_array
    false: sparse.csr_array
    ties: sparse.csr_array
    negatives: np.ndarray


def resampled_areas(
    positives: np.ndarray, scores: np.ndarray, cells: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of each class in each resample.

    Args:
        positives: Whether each image belongs to each class, bool (K, n).
        scores: Its score for each class, (K, n).
        cells: Cell numbers, (n,).
        weights: Draws of each cell, (resamples, n_cells).

    Returns:
        Both areas, each (K, resamples); nan where a resample has no positive or no negative image.
    """
    marks = [
        _marks(positive, score, cells, weights.shape[1]) for positive, score in zip(positives, scores, strict=True)
    ]
    roc_area, precision_area = np.empty((2, len(marks), len(weights)))
    for start in range(0, len(weights), CHUNK):
        part = slice(start, start + CHUNK)
        drawn = np.ascontiguousarray(weights[part].T)
        for k, mark in enumerate(marks):
            roc_area[k, part], precision_area[k, part] = _areas(mark, drawn)
    return roc_area, precision_area


def _marks(positive: np.ndarray, score: np.ndarray, cells: np.ndarray, n_cells: int) -> _Marks:
    marks, group = np.unique(-score[positive], return_inverse=True)
    negatives, negative_cells = -score[~positive], cells[~positive]
    place = np.searchsorted(marks, negatives)  # first mark that is not above the negative
    ranked = place < len(marks)  # the rest lie below every positive, so that every positive beats them
    tied = ranked.copy()
    tied[ranked] = marks[place[ranked]] == negatives[ranked]
    return _Marks(
        _sums(group, cells[positive], len(marks), n_cells),
        _sums(place[ranked], negative_cells[ranked], len(marks), n_cells),
        _sums(place[tied], negative_cells[tied], len(marks), n_cells),
        np.bincount(negative_cells, minlength=n_cells).astype(np.float32),
    )


def _areas(marks: _Marks, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both areas (resamples,) for weights (n_cells, resamples)."""
    if not marks.hits.shape[0]:
        undefined = np.full(drawn.shape[1], np.nan)
        return undefined, undefined
    hits = marks.hits @ drawn
    true, false = hits.cumsum(0), (marks.false @ drawn).cumsum(0)
    total, negatives = true[-1], marks.negatives @ drawn
    beaten = (hits * (negatives - false)).sum(0)
    if marks.ties.nnz:
        beaten += (hits * (marks.ties @ drawn)).sum(0) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
        return beaten / (total * negatives), (hits * precision).sum(0) / total


def _sums(groups: np.ndarray, cells: np.ndarray, n_groups: int, n_cells: int) -> sparse.csr_array:
    """Number of images of each cell in each group (n_groups, n_cells)."""
    ones = np.ones(len(groups), np.float32)
    return sparse.coo_array((ones, (groups, cells)), shape=(n_groups, n_cells)).tocsr()


def _cumulative(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positives and negatives at or above each distinct score, from none to all, and the scores, infinity first."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    true = np.concatenate([[0.0], positive[order].astype(float).cumsum()[ends]])
    return true, np.concatenate([[0.0], ends + 1.0]) - true, np.concatenate([[np.inf], score[order][ends]])


def _normalised(counts: np.ndarray) -> np.ndarray:
    return counts / counts[-1] if counts[-1] else np.zeros_like(counts)
