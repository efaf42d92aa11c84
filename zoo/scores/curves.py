"""What lies behind a single number? Operating points: ROC, precision–recall, reliability, risk–coverage. Pure numpy.

Areas are weighted sums over the distinct scores of the positive images, so that all bootstrap resamples are computed
at once, and exactly: ties count half (Hanley & McNeil 1982), average precision is the sum over thresholds
(scikit-learn's `average_precision_score`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

BINS = 15
CHUNK = 256  # resamples at a time: their sums stay in the processor's cache


@dataclass(frozen=True)
class Curve:
    """Points of a curve with the thresholds they belong to, all (m,), and the area under it."""

    x: np.ndarray
    y: np.ndarray
    thresholds: np.ndarray
    area: float


@dataclass(frozen=True)
class Reliability:
    """Equal bins of confidence (BINS,): images, mean confidence and accuracy; the last two are nan in empty bins."""

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def roc(positive: np.ndarray, score: np.ndarray) -> Curve:
    """False against true positive rate of `positive` (n,) bool by `score` (n,); the area is nan for one class."""
    right, wrong, thresholds = _cumulative(positive, score)
    x, y = _share(wrong), _share(right)
    area = float(np.trapezoid(y, x)) if right[-1] and wrong[-1] else float("nan")
    return Curve(x, y, thresholds, area)


def precision_recall(positive: np.ndarray, score: np.ndarray) -> Curve:
    """Recall against precision of `positive` (n,) bool by `score` (n,); the area is the average precision."""
    right, wrong, thresholds = _cumulative(positive, score)
    called = right + wrong
    precision = np.divide(right, called, out=np.ones_like(right), where=called > 0)
    recall = _share(right)
    area = float((np.diff(recall) * precision[1:]).sum()) if right[-1] else float("nan")
    return Curve(recall, precision, thresholds, area)


def reliability(truth: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Confidence against accuracy in equal bins (Guo et al. 2017, arXiv:1706.04599)."""
    bins, gaps = calibration_bins(truth, probabilities)
    images = np.bincount(bins, minlength=BINS)
    sums = np.bincount(bins, probabilities.max(1), BINS)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Reliability(images, sums / images, (sums - np.bincount(bins, gaps, BINS)) / images)


def calibration_bins(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bin number 0..BINS-1 of each image's confidence, and confidence minus correctness (n,)."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1), confidence - right


def risk_coverage(truth: np.ndarray, probabilities: np.ndarray) -> Curve:
    """Share of images answered against the share of these that are right, the surest first.

    The area is the mean accuracy over all coverages: 1 minus AURC (Geifman & El-Yaniv 2017, arXiv:1705.08500). Images
    of one confidence are answered together.
    """
    right = (probabilities.argmax(1) == truth).astype(float)
    confidence = probabilities.max(1)
    order = np.argsort(-confidence, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1)
    answered = (ends + 1) / len(order)
    accuracy = right[order].cumsum()[ends] / (ends + 1)
    area = float((np.diff(answered, prepend=0) * accuracy).sum())
    return Curve(answered, accuracy, confidence[order][ends], area)


@dataclass(frozen=True)
class _Marks:
    """The distinct scores of a class's positives, from the top down, as places to count at; each (marks, n_cells).

    `hits` positives at each mark, `false` negatives at it or between it and the mark above, `ties` those at it.
    """

    hits: sparse.csr_array
    false: sparse.csr_array
    ties: sparse.csr_array
    negatives: np.ndarray  # of each cell


def areas(
    positives: np.ndarray, scores: np.ndarray, cells: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of K classes in each resample, both (K, RESAMPLES).

    `positives` is bool (K, n), `scores` (K, n), `cells` the images' cell numbers (n,), `weights` (RESAMPLES, n_cells).
    Where a resample has no positive or no negative, an area is nan.
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
    others, whose = -score[~positive], cells[~positive]
    place = np.searchsorted(marks, others)  # first mark that is not above the negative
    seen = place < len(marks)  # the rest lie below every positive: they are beaten by all
    tied = seen.copy()
    tied[seen] = marks[place[seen]] == others[seen]
    return _Marks(
        _sums(group, cells[positive], len(marks), n_cells),
        _sums(place[seen], whose[seen], len(marks), n_cells),
        _sums(place[tied], whose[tied], len(marks), n_cells),
        np.bincount(whose, minlength=n_cells).astype(np.float32),
    )


def _areas(marks: _Marks, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both areas for weights (n_cells, resamples)."""
    if not marks.hits.shape[0]:
        nothing = np.full(drawn.shape[1], np.nan)
        return nothing, nothing
    hits = marks.hits @ drawn
    true, false = hits.cumsum(0), (marks.false @ drawn).cumsum(0)
    total, rest = true[-1], marks.negatives @ drawn
    beaten = (hits * (rest - false)).sum(0)
    if marks.ties.nnz:
        beaten += (hits * (marks.ties @ drawn)).sum(0) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
        return beaten / (total * rest), (hits * precision).sum(0) / total


def _sums(groups: np.ndarray, cells: np.ndarray, n_groups: int, n_cells: int) -> sparse.csr_array:
    """How many images of each cell are in each group (n_groups, n_cells)."""
    ones = np.ones(len(groups), np.float32)
    return sparse.coo_array((ones, (groups, cells)), shape=(n_groups, n_cells)).tocsr()


def _cumulative(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positives and negatives at or above each distinct score, from none to all, and the scores, infinity first."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    right = np.concatenate([[0.0], positive[order].astype(float).cumsum()[ends]])
    return right, np.concatenate([[0.0], ends + 1.0]) - right, np.concatenate([[np.inf], score[order][ends]])


def _share(counts: np.ndarray) -> np.ndarray:
    return counts / counts[-1] if counts[-1] else np.zeros_like(counts)
