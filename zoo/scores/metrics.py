"""How good is a model, and how sure are we? Pure numpy on stored predictions; the same for pages and training.

Intervals are 95 % intervals of a bootstrap over source cells (`zoo.scores.bootstrap`). Scores are scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from zoo.scores import bootstrap
from zoo.scores.bootstrap import UNKNOWN, Estimate, Interval, cell_numbers, percentiles, ratio, resampled
from zoo.scores.curves import BINS, areas, calibration_bins

AREAS = ("auc", "average_precision")
TINY = 1e-7  # below half precision's smallest number: a stored zero is not certain
COVERAGE = 0.8

# what `evaluate` gives, by its name for people
SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "accuracy_by_cell": "accuracy by source cell",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "weighted_precision": "weighted precision",
    "weighted_recall": "weighted recall",
    "weighted_f1": "weighted F1",
    "cohen_kappa": "Cohen's kappa",
    "mcc": "Matthews correlation coefficient",
    "macro_auc": "macro AUC (ROC)",
    "macro_average_precision": "macro average precision (PR)",
    "selective_accuracy": f"accuracy on the surest {COVERAGE:.0%}",
    "ece": "expected calibration error before scaling",
    "ece_calibrated": "expected calibration error after scaling",
    "log_loss": "log loss",
    "brier": "Brier score",
}
LOWER_IS_BETTER = frozenset({"ece", "ece_calibrated", "log_loss", "brier"})
NO_SHARES = frozenset(
    {"cohen_kappa", "mcc", "log_loss", "brier", "macro_auc", "macro_average_precision", "corruption_error_alexnet"}
)


@dataclass(frozen=True)
class Scaling:
    """Exponents that turn stored probabilities into those before and after temperature scaling.

    A temperature T that is already applied makes `before` T and `after` 1; one fitted on validation but not applied
    makes `before` 1 and `after` 1/T. `after` is None where nobody ever fitted one.
    """

    before: float = 1.0
    after: float | None = None


AS_STORED = Scaling()


@dataclass(frozen=True)
class Report:
    """All scores of a prediction table, and those of each class: one row a label."""

    scores: Mapping[str, Estimate]
    classes: pd.DataFrame


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes) int64 from label numbers (n,): row is the true label, column the predicted one."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def confusion_of(table: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Confusion counts (K, K) of a prediction table, in the order of `labels`."""
    truth, probabilities = arrays(table, labels)
    return confusion(truth, probabilities.argmax(1), len(labels))


def scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Scalar scores of confusion counts (..., K, K), each of shape (...).

    Balanced accuracy and macro recall average over the classes that occur in truth, macro precision and F1 over those
    that occur in truth or prediction (undefined precision counts as 0), as scikit-learn does. Kappa and MCC are 0 where
    they are undefined (Cohen 1960; Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006).
    """
    counts = np.asarray(counts, float)
    per_class = class_scores(counts)
    total, right = counts.sum((-1, -2)), np.trace(counts, axis1=-2, axis2=-1)
    true, called = counts.sum(-1), counts.sum(-2)
    seen = (true > 0) | (called > 0)
    chance = (true * called).sum(-1)
    spread = np.sqrt((total**2 - (called**2).sum(-1)) * (total**2 - (true**2).sum(-1)))
    return {
        "accuracy": _divide(right, total),
        "balanced_accuracy": _mean(per_class["recall"], true > 0),
        "macro_precision": _mean(per_class["precision"], seen),
        "macro_recall": _mean(per_class["recall"], true > 0),
        "macro_f1": _mean(per_class["f1"], seen),
        "weighted_precision": _divide((per_class["precision"] * true).sum(-1), total),
        "weighted_recall": _divide(right, total),
        "weighted_f1": _divide((per_class["f1"] * true).sum(-1), total),
        "cohen_kappa": _divide(right * total - chance, total**2 - chance),
        "mcc": _divide(right * total - chance, spread),
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


def report(table: pd.DataFrame, labels: Sequence[str], scaling: Scaling = AS_STORED, seed: int = 0) -> Report:
    """Every score of a prediction table (columns cell, label and one a label), with what the bootstrap drew of it.

    Raises ValueError where the table is empty.
    """
    if table.empty:
        raise ValueError("There are no predictions to score.")
    labels = list(labels)
    truth, probabilities = arrays(table, labels)
    cells, n_cells = cell_numbers(table["cell"])
    weights = resampled(n_cells, seed)
    counts, drawn = resampled_confusions(table, labels, seed)
    positives, shares = truth == np.arange(len(labels))[:, None], probabilities.T
    curves = areas(positives, shares, cells, weights)
    whole = areas(positives, shares, np.arange(len(truth)), np.ones((1, len(truth)), np.float32))
    sizes = np.bincount(cells, minlength=n_cells)

    found = count_scores(counts, drawn, n_cells)
    for name, area, draws in zip((f"macro_{name}" for name in AREAS), whole, curves, strict=True):
        found[name] = Estimate(float(_known_mean(area)[0]), _known_mean(draws))
    for name, losses in (("log_loss", log_losses(truth, probabilities)), ("brier", briers(truth, probabilities))):
        found[name] = ratio(np.bincount(cells, losses, n_cells), sizes, weights)
    found["selective_accuracy"] = _selective(truth, probabilities, cells, weights)
    found["ece"] = calibration_error(table, labels, scaling.before, seed)
    if scaling.after is not None:
        found["ece_calibrated"] = calibration_error(table, labels, scaling.after, seed)
    found["accuracy_by_cell"] = accuracy_by_cell(table, labels, seed)

    per_class = {name: (array, class_scores(drawn)[name]) for name, array in class_scores(counts).items()}
    per_class |= {n: (area[:, 0], draws.T) for n, area, draws in zip(AREAS, whole, curves, strict=True)}
    ordered = {name: found[name] for name in SCORES if name in found}
    return Report(ordered, _class_table(table, labels, per_class))


def evaluate(
    table: pd.DataFrame, labels: Sequence[str], scaling: Scaling = AS_STORED, seed: int = 0
) -> dict[str, Interval]:
    """The scores of `report`, with intervals."""
    return {name: estimate.interval for name, estimate in report(table, labels, scaling, seed).scores.items()}


def resampled_confusions(table: pd.DataFrame, labels: Sequence[str], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confusion counts (K, K) of a prediction table, and those of each resample (RESAMPLES, K, K)."""
    truth, probabilities = arrays(table, labels)
    cells, n_cells = cell_numbers(table["cell"])
    counts = cell_confusions(truth, probabilities.argmax(1), cells, len(labels), n_cells)
    drawn = resampled(n_cells, seed) @ counts.reshape(n_cells, -1)
    return counts.sum(0), drawn.reshape(-1, len(labels), len(labels))


def count_scores(counts: np.ndarray, drawn: np.ndarray, n_cells: int) -> dict[str, Estimate]:
    """`scores` of what `resampled_confusions` gives for `n_cells` cells."""
    value, draws = scores(counts), scores(drawn)
    found = {name: Estimate(float(value[name]), draws[name]) for name in value}
    return found | {"accuracy": _never_certain(found["accuracy"], n_cells)}


def calibration_error(table: pd.DataFrame, labels: Sequence[str], exponent: float = 1.0, seed: int = 0) -> Estimate:
    """Expected calibration error of probabilities raised to `exponent`; what resampling adds is taken off its draws.

    An absolute difference grows with noise, so that a resample's error lies above the sample's own (bias-corrected
    bootstrap, Efron & Tibshirani 1993, chapter 10).
    """
    truth, probabilities = arrays(table, labels)
    cells, n_cells = cell_numbers(table["cell"])
    weights = resampled(n_cells, seed)
    bins, gaps = calibration_bins(truth, tempered(probabilities, exponent))
    sums = np.bincount(cells * BINS + bins, gaps, n_cells * BINS).reshape(n_cells, BINS)
    sizes = np.bincount(cells, minlength=n_cells).astype(np.float32)
    drawn = np.abs(weights @ sums.astype(np.float32)).sum(1) / (weights @ sizes)
    value = float(np.abs(sums.sum(0)).sum() / len(truth))
    return Estimate(value, (drawn - drawn.mean() + value).clip(0, 1))


def accuracy_by_cell(table: pd.DataFrame, labels: Sequence[str], seed: int = 0) -> Estimate:
    """Accuracy over source cells, each called by its images' mean probability; cells of unknown source are left out."""
    right = called_by_cell(table, labels)
    if right.empty:
        return Estimate(float("nan"), np.full(bootstrap.RESAMPLES, np.nan))
    hits = right.to_numpy(np.float32)
    estimate = Estimate(float(hits.mean()), resampled(len(hits), seed) @ hits / len(hits))
    return _never_certain(estimate, len(hits))


def called_by_cell(table: pd.DataFrame, labels: Sequence[str]) -> pd.Series:
    """Whether the mean probability of each source cell's images calls it rightly, by the cell's name."""
    known = table[~table["cell"].str.startswith(UNKNOWN)]
    grouped = known.groupby("cell", sort=True)
    called = np.array(list(labels))[grouped[list(labels)].mean().to_numpy().argmax(1)] if len(known) else []
    return grouped["label"].first() == called


def arrays(table: pd.DataFrame, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Label numbers (n,) and probabilities (n, K) float64 of a prediction table, labels joined by name."""
    return pd.Index(labels).get_indexer(table["label"]), table[list(labels)].to_numpy(np.float64)


def cell_confusions(
    truth: np.ndarray, predicted: np.ndarray, cells: np.ndarray, classes: int, n_cells: int
) -> np.ndarray:
    """Confusion counts of each source cell, float32 (n_cells, classes, classes)."""
    flat = (cells * classes + truth) * classes + predicted
    counts = np.bincount(flat, minlength=n_cells * classes * classes)
    return counts.reshape(n_cells, classes, classes).astype(np.float32)


def log_losses(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log of each image's true-label probability, nats (n,)."""
    return -np.log(np.clip(probabilities[np.arange(len(truth)), truth], TINY, 1))


def briers(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Brier score of each image over all classes, 0..2 (n,). Brier 1950."""
    return ((probabilities - np.eye(probabilities.shape[1])[truth]) ** 2).sum(1)


def tempered(probabilities: np.ndarray, exponent: float) -> np.ndarray:
    """Softmax of `exponent` times the logarithm of probabilities (n, K): temperature 1/exponent."""
    if exponent == 1:
        return probabilities
    logits = exponent * np.log(np.clip(probabilities, TINY, 1))
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def differential_count(called: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Count, share and its 95 % Wilson interval of every label among the labels `called`; one row a label."""
    rows = []
    for label in labels:
        count = sum(name == label for name in called)
        share = bootstrap.proportion(count, len(called))
        rows.append({"label": label, "count": count, "share": share.value, "low": share.low, "high": share.high})
    return pd.DataFrame(rows)


def fit_temperature(truth: np.ndarray, logits: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Temperature that minimises log loss of logits (n, K) on validation data (Guo et al. 2017, arXiv:1706.04599).

    `weights` (n,) tell how much each row counts; None: all alike.
    """
    # a network that memorised its few cells, or one nearest neighbour, is sure of itself beyond measure
    grid = np.geomspace(0.25, 32, 601)
    scaled = logits[None] / grid[:, None, None]
    top = scaled.max(-1, keepdims=True)
    normal = np.log(np.exp(scaled - top).sum(-1)) + top[..., 0]
    losses = np.average(normal - scaled[:, np.arange(len(truth)), truth], axis=1, weights=weights)
    return float(grid[losses.argmin()])


def as_dict(found: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Intervals as evaluation.json keeps them; scores that are undefined are left out."""
    return {name: {"value": i.value, "low": i.low, "high": i.high} for name, i in found.items() if np.isfinite(i.value)}


def _never_certain(estimate: Estimate, n_cells: int) -> Estimate:
    """Where no cell (or every cell) went wrong the bootstrap draws nothing else; Wilson's interval over cells then."""
    if estimate.value not in (0.0, 1.0):
        return estimate
    return Estimate(estimate.value, estimate.draws, bootstrap.proportion(round(estimate.value * n_cells), n_cells))


def _selective(truth: np.ndarray, probabilities: np.ndarray, cells: np.ndarray, weights: np.ndarray) -> Estimate:
    """Accuracy at or above the confidence that the surest COVERAGE of the images reach; the threshold is held fixed."""
    confidence = probabilities.max(1)
    answered = confidence >= np.quantile(confidence, 1 - COVERAGE)
    right = answered & (probabilities.argmax(1) == truth)
    n_cells = weights.shape[1]
    estimate = ratio(np.bincount(cells, right, n_cells), np.bincount(cells, answered, n_cells), weights)
    return _never_certain(estimate, len(np.unique(cells[answered])))


def _class_table(
    table: pd.DataFrame, labels: list[str], found: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> pd.DataFrame:
    rows = []
    for number, label in enumerate(labels):
        row: dict[str, object] = {"label": label}
        for name, (values, draws) in found.items():
            interval = percentiles(values[number], draws[:, number])
            row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        mine = table[table["label"] == label]
        rows.append(row | {"images": len(mine), "cells": mine["cell"].nunique()})
    return pd.DataFrame(rows)


def _known_mean(values: np.ndarray) -> np.ndarray:
    """Mean (n,) over the classes (K, n) whose area is defined; nan where none is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0).sum(0) / known.sum(0)


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    return _divide((values * where).sum(-1), where.sum(-1))
