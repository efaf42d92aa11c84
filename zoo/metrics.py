"""How good is a model, and how sure are we? Pure numpy on stored predictions; the same for pages and training.

Intervals are 95 % percentile intervals of a bootstrap over source cells, not images: copies of one cell are one
observation (Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

RESAMPLES = 2000
LEVEL = 0.95
BINS = 15
TINY = 1e-7  # below half precision's smallest number: a stored zero is not certain

# what `evaluate` gives, by its name for people
SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "cell_accuracy": "accuracy by source cell",
    "expected_calibration_error": "expected calibration error",
    "log_loss": "log loss",
    "brier": "Brier score",
}


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes) int64 from label numbers (n,): row is the true label, column the predicted one."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Scalar scores of confusion counts (..., K, K), each of shape (...).

    Balanced accuracy averages recall over the classes that occur; macro precision and F1 over those that occur in truth
    or prediction (undefined precision counts as 0), as scikit-learn does.
    """
    per_class = class_scores(counts)
    total = counts.sum((-1, -2))
    occurs = counts.sum(-1) > 0
    seen = occurs | (counts.sum(-2) > 0)
    return {
        "accuracy": _divide(np.trace(counts, axis1=-2, axis2=-1), total),
        "balanced_accuracy": _mean(per_class["recall"], occurs),
        "macro_precision": _mean(per_class["precision"], seen),
        "macro_recall": _mean(per_class["recall"], seen),
        "macro_f1": _mean(per_class["f1"], seen),
    }


def class_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class from confusion counts (..., K, K), each (..., K); 0 where undefined."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    true, called = counts.sum(-1), counts.sum(-2)
    return {
        "precision": _divide(right, called),
        "recall": _divide(right, true),
        "f1": _divide(2 * right, true + called),
    }


def evaluate(table: pd.DataFrame, labels: Sequence[str], seed: int = 0) -> dict[str, Interval]:
    """Scores with intervals of a prediction table (columns cell, label and one a label).

    Besides `scores`: log_loss, brier and expected_calibration_error (15 equal bins), by image; cell_accuracy, of the
    mean probability of each source cell whose frame is known.
    """
    truth, probabilities = arrays(table, labels)
    cells, n_cells = _numbers(table["cell"])
    weights = resampled(n_cells, seed)
    counts = cell_confusions(truth, probabilities.argmax(1), cells, len(labels), n_cells)
    value = scores(counts.sum(0))
    drawn = scores((weights @ counts.reshape(n_cells, -1)).reshape(-1, len(labels), len(labels)))
    found = {name: _interval(value[name], drawn[name]) for name in value}
    per_image = {"log_loss": log_losses(truth, probabilities), "brier": briers(truth, probabilities)}
    for name, losses in per_image.items():
        sums, sizes = np.bincount(cells, losses, n_cells), np.bincount(cells, minlength=n_cells)
        found[name] = _interval(losses.mean(), (weights @ sums) / (weights @ sizes))
    found["expected_calibration_error"] = _calibration_interval(truth, probabilities, cells, weights)
    found["cell_accuracy"] = cell_accuracy(table, labels, seed)
    return found


def per_class(table: pd.DataFrame, labels: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Precision, recall and F1 of each class with intervals, and its number of images and cells: one row a label."""
    truth, probabilities = arrays(table, labels)
    cells, n_cells = _numbers(table["cell"])
    counts = cell_confusions(truth, probabilities.argmax(1), cells, len(labels), n_cells)
    value = class_scores(counts.sum(0))
    drawn = class_scores((resampled(n_cells, seed) @ counts.reshape(n_cells, -1)).reshape(-1, *counts.shape[1:]))
    rows = []
    for number, label in enumerate(labels):
        row: dict[str, object] = {"label": label}
        for name in value:
            interval = _interval(value[name][number], drawn[name][:, number])
            row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        mine = table[table["label"] == label]
        rows.append(row | {"images": len(mine), "cells": mine["cell"].nunique()})
    return pd.DataFrame(rows)


def cell_accuracy(table: pd.DataFrame, labels: Sequence[str], seed: int = 0) -> Interval:
    """Accuracy over source cells, each called by its images' mean probability; cells of unknown source are left out."""
    known = table[~table["cell"].str.startswith("unknown-")]
    if known.empty:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = known.groupby("cell", sort=True)[list(labels)].mean()
    truth = known.groupby("cell", sort=True)["label"].first()
    right = np.array([labels[i] for i in mean.to_numpy().argmax(1)]) == truth.to_numpy()
    return _interval(right.mean(), resampled(len(right), seed) @ right / len(right))


def accuracy_difference(first: pd.DataFrame, second: pd.DataFrame, labels: Sequence[str], seed: int = 0) -> Interval:
    """Accuracy of `first` minus that of `second` on the files both hold, paired bootstrap over source cells."""
    both = first.merge(second, on="file", suffixes=("", "/second"))
    truth, one = arrays(both, labels)
    two = both[[f"{label}/second" for label in labels]].to_numpy(np.float64)
    gain = (one.argmax(1) == truth).astype(float) - (two.argmax(1) == truth)
    cells, n_cells = _numbers(both["cell"])
    weights = resampled(n_cells, seed)
    sums, sizes = np.bincount(cells, gain, n_cells), np.bincount(cells, minlength=n_cells)
    return _interval(gain.mean(), (weights @ sums) / (weights @ sizes))


def arrays(table: pd.DataFrame, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Label numbers (n,) and probabilities (n, K) float64 of a prediction table, labels joined by name."""
    return pd.Index(labels).get_indexer(table["label"]), table[list(labels)].to_numpy(np.float64)


def cell_confusions(
    truth: np.ndarray, predicted: np.ndarray, cells: np.ndarray, classes: int, n_cells: int
) -> np.ndarray:
    """Confusion counts of each source cell, float64 (n_cells, classes, classes)."""
    flat = (cells * classes + truth) * classes + predicted
    return np.bincount(flat, minlength=n_cells * classes * classes).reshape(n_cells, classes, classes).astype(float)


def resampled(n_cells: int, seed: int = 0) -> np.ndarray:
    """How often each cell is drawn in each bootstrap resample, float64 (RESAMPLES, n_cells)."""
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, n_cells, (RESAMPLES, n_cells)) + np.arange(RESAMPLES)[:, None] * n_cells
    return np.bincount(draws.ravel(), minlength=RESAMPLES * n_cells).reshape(RESAMPLES, n_cells).astype(float)


def log_losses(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log of each image's true-label probability, nats (n,)."""
    return -np.log(np.clip(probabilities[np.arange(len(truth)), truth], TINY, 1))


def briers(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Brier score of each image over all classes, 0..2 (n,). Brier 1950."""
    return ((probabilities - np.eye(probabilities.shape[1])[truth]) ** 2).sum(1)


def calibration_bins(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bin number 0..14 of each image's confidence, and confidence minus correctness (n,)."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    return np.minimum((confidence * BINS).astype(int), BINS - 1), confidence - right


def proportion_interval(count: int, total: int) -> Interval:
    """Wilson's 95 % interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    interval = binomtest(count, total).proportion_ci(LEVEL, "wilson")
    return Interval(count / total, interval.low, interval.high)


def differential_count(called: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Count, share and its 95 % Wilson interval of every label among the labels `called`; one row a label."""
    rows = []
    for label in labels:
        count = sum(name == label for name in called)
        share = proportion_interval(count, len(called))
        rows.append({"label": label, "count": count, "share": share.value, "low": share.low, "high": share.high})
    return pd.DataFrame(rows)


def fit_temperature(truth: np.ndarray, logits: np.ndarray) -> float:
    """Temperature that minimises log loss of logits (n, K) on validation data (Guo et al. 2017, arXiv:1706.04599)."""
    # a network that memorised its few cells, or one nearest neighbour, is sure of itself beyond measure
    grid = np.geomspace(0.25, 32, 601)
    scaled = logits[None] / grid[:, None, None]
    top = scaled.max(-1, keepdims=True)
    normal = np.log(np.exp(scaled - top).sum(-1)) + top[..., 0]
    losses = (normal - scaled[:, np.arange(len(truth)), truth]).mean(1)
    return float(grid[losses.argmin()])


def _calibration_interval(
    truth: np.ndarray, probabilities: np.ndarray, cells: np.ndarray, weights: np.ndarray
) -> Interval:
    bins, gaps = calibration_bins(truth, probabilities)
    n_cells = weights.shape[1]
    sums = np.bincount(cells * BINS + bins, gaps, n_cells * BINS).reshape(n_cells, BINS)
    sizes = np.bincount(cells, minlength=n_cells)
    drawn = np.abs(weights @ sums).sum(1) / (weights @ sizes)
    return _interval(np.abs(sums.sum(0)).sum() / len(truth), drawn)


def _interval(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))


def _numbers(cells: pd.Series) -> tuple[np.ndarray, int]:
    codes, names = pd.factorize(cells, sort=True)
    return codes, len(names)


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    return _divide((values * where).sum(-1), where.sum(-1))


def as_dict(found: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Intervals as evaluation.json keeps them; scores that are undefined are left out."""
    return {name: {"value": i.value, "low": i.low, "high": i.high} for name, i in found.items() if np.isfinite(i.value)}
