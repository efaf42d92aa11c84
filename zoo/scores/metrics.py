"""Metrics of stored predictions, with 95 % intervals of a bootstrap over source cells.

Pages and training call the same functions. Values agree with scikit-learn's. A metric is one function here, registered
by a decorator; it then appears in evaluations, tables and pages without another edit:

    @register_confusion_metric("geometric mean of recalls")
    def geometric_mean(counts: np.ndarray) -> np.ndarray:
        return class_scores(counts)["recall"].prod(-1) ** (1 / counts.shape[-1])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.lazy import lazy_module
from zoo.scores.bootstrap import (
    N_RESAMPLES,
    BootstrapEstimate,
    Interval,
    percentile_interval,
    ratio_of_sums,
    resample_weights,
    wilson_interval,
)
from zoo.scores.curves import N_BINS, calibration_bins, resampled_areas
from zoo.scores.predictions import Predictions, correct_by_cell
from zoo.scores.temperature import AS_STORED, MIN_PROBABILITY, Scaling

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

COVERAGE = 0.8  # part of the images, the most confident ones, that selective accuracy answers

Compute = Callable[[Predictions], BootstrapEstimate | None]
ConfusionScore = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes:
        name: Key of the metric in evaluation.json.
        title: Its name for people.
        percent: Whether it is a proportion, which tables give in percent.
        compute: The estimate from a prediction table; None where the metric does not apply to it.
    """

    name: str
    title: str
    percent: bool
    compute: Compute


METRICS: dict[str, Metric] = {}  # in the order of tables


def register_metric(title: str, percent: bool = True) -> Callable[[Compute], Compute]:
    """Register a function of a prediction table as a metric under its own name.

    Args:
        title: Name of the metric for people.
        percent: Whether it is a proportion, which tables give in percent.

    Returns:
        A decorator that leaves the function as it is.
    """

    def register(compute: Compute) -> Compute:
        name = compute.__name__
        METRICS[name] = Metric(name, title, percent, compute)
        return compute

    return register


def register_confusion_metric(title: str, percent: bool = True) -> Callable[[ConfusionScore], ConfusionScore]:
    """Register a function of confusion counts (..., K, K) → (...) as a metric under its own name.

    Args:
        title: Name of the metric for people.
        percent: Whether it is a proportion, which tables give in percent.

    Returns:
        A decorator that leaves the function as it is.
    """

    def register(score: ConfusionScore) -> ConfusionScore:
        def compute(predictions: Predictions) -> BootstrapEstimate:
            counts, drawn = predictions.confusions
            return BootstrapEstimate(float(score(counts)), score(drawn))

        METRICS[score.__name__] = Metric(score.__name__, title, percent, compute)
        return score

    return register


@dataclass(frozen=True)
class Report:
    """All scores of a prediction table.

    Attributes:
        scores: Metric name → estimate, in the order of METRICS.
        classes: One row a label: precision, recall, f1, auc and average_precision, each with _low and _high, and the
            number of images and cells.
    """

    scores: Mapping[str, BootstrapEstimate]
    classes: pd.DataFrame


def report(table: pd.DataFrame, labels: Sequence[str], scaling: Scaling = AS_STORED, seed: int = 0) -> Report:
    """Every metric of a prediction table, and the scores of each class.

    Args:
        table: Columns file, cell, label, and one column of probabilities a label.
        labels: The labels.
        scaling: How the stored probabilities become those before and after temperature scaling.
        seed: Seed of the bootstrap.

    Returns:
        The metrics that apply to the table.

    Raises:
        ValueError: The table is empty.
    """
    if table.empty:
        raise ValueError("There are no predictions to score.")
    predictions = Predictions(table, list(labels), scaling, seed)
    estimates = {name: metric.compute(predictions) for name, metric in METRICS.items()}
    return Report({name: e for name, e in estimates.items() if e is not None}, _class_table(predictions))


def classes(table: pd.DataFrame, labels: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """The classes of `report` without auc and average_precision, which take most of its time.

    Args:
        table: A prediction table.
        labels: Its labels.
        seed: Seed of the bootstrap.
    """
    return _class_table(Predictions(table, list(labels), AS_STORED, seed), areas=False)


def evaluate(
    table: pd.DataFrame, labels: Sequence[str], scaling: Scaling = AS_STORED, seed: int = 0
) -> dict[str, Interval]:
    """The scores of `report`, as intervals."""
    return {name: estimate.interval for name, estimate in report(table, labels, scaling, seed).scores.items()}


def estimate(
    table: pd.DataFrame, labels: Sequence[str], name: str, scaling: Scaling = AS_STORED, seed: int = 0
) -> BootstrapEstimate:
    """One metric of a prediction table, without the work of the others.

    Args:
        table: A prediction table.
        labels: Its labels.
        name: Name of the metric.
        scaling: How the stored probabilities become those before and after temperature scaling.
        seed: Seed of the bootstrap.

    Returns:
        The estimate.

    Raises:
        KeyError: There is no such metric, or it does not apply to the table.
    """
    found = METRICS[name].compute(Predictions(table, list(labels), scaling, seed))
    if found is None:
        raise KeyError(name)
    return found


def as_dict(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Intervals in the form of evaluation.json; undefined values are dropped."""
    return {
        name: {"value": i.value, "low": i.low, "high": i.high} for name, i in intervals.items() if np.isfinite(i.value)
    }


def class_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class.

    Args:
        counts: Confusion counts (..., K, K), row the true label, column the predicted one.

    Returns:
        `precision`, `recall` and `f1`, each (..., K); 0 where undefined.
    """
    correct = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(-1), counts.sum(-2)
    return {
        "precision": _divide(correct, predicted),
        "recall": _divide(correct, true),
        "f1": _divide(2 * correct, true + predicted),
    }


@register_metric("accuracy")
def accuracy(predictions: Predictions) -> BootstrapEstimate:
    """Correct images over all images."""
    counts, drawn = (np.asarray(c, float) for c in predictions.confusions)
    value, draws = (_divide(_correct(c), c.sum((-1, -2))) for c in (counts, drawn))
    return _with_exact_ends(BootstrapEstimate(float(value), draws), predictions.n_cells)


@register_confusion_metric("balanced accuracy")
def balanced_accuracy(counts: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that occur in truth."""
    return _mean(class_scores(counts)["recall"], counts.sum(-1) > 0)


@register_metric("accuracy by source cell")
def accuracy_by_cell(predictions: Predictions) -> BootstrapEstimate:
    """Correct source cells over all of known source, each predicted by its images' mean probability.

    Undefined where the groups of the bootstrap are patients or slides with cells of several kinds.
    """
    correct = correct_by_cell(predictions.table, predictions.labels)
    if correct.empty or predictions.has_mixed_groups:
        return BootstrapEstimate(float("nan"), np.full(N_RESAMPLES, np.nan))
    hits = correct.to_numpy(np.float32)
    draws = resample_weights(len(hits), predictions.seed) @ hits / len(hits)
    return _with_exact_ends(BootstrapEstimate(float(hits.mean()), draws), len(hits))


@register_confusion_metric("macro precision")
def macro_precision(counts: np.ndarray) -> np.ndarray:
    """Mean precision over the classes that occur in truth or prediction; undefined precision counts as 0."""
    return _mean(class_scores(counts)["precision"], _occurs(counts))


@register_confusion_metric("macro recall")
def macro_recall(counts: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that occur in truth: the same as balanced accuracy."""
    return balanced_accuracy(counts)


@register_confusion_metric("macro F1")
def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes that occur in truth or prediction."""
    return _mean(class_scores(counts)["f1"], _occurs(counts))


@register_confusion_metric("weighted precision")
def weighted_precision(counts: np.ndarray) -> np.ndarray:
    """Mean precision, each class weighted by its true images."""
    return _weighted(class_scores(counts)["precision"], counts)


@register_confusion_metric("weighted recall")
def weighted_recall(counts: np.ndarray) -> np.ndarray:
    """Mean recall, each class weighted by its true images: the same as accuracy."""
    return _divide(_correct(counts), counts.sum((-1, -2)))


@register_confusion_metric("weighted F1")
def weighted_f1(counts: np.ndarray) -> np.ndarray:
    """Mean F1, each class weighted by its true images."""
    return _weighted(class_scores(counts)["f1"], counts)


@register_confusion_metric("Cohen's kappa", percent=False)
def cohen_kappa(counts: np.ndarray) -> np.ndarray:
    """Agreement beyond chance (Cohen 1960); 0 where undefined."""
    total, correct, chance = _agreement(counts)
    return _divide(correct * total - chance, total**2 - chance)


@register_confusion_metric("Matthews correlation coefficient", percent=False)
def mcc(counts: np.ndarray) -> np.ndarray:
    """Matthews correlation of K classes (Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006); 0 where undefined."""
    total, correct, chance = _agreement(counts)
    true, predicted = np.asarray(counts, float).sum(-1), np.asarray(counts, float).sum(-2)
    spread = np.sqrt((total**2 - (predicted**2).sum(-1)) * (total**2 - (true**2).sum(-1)))
    return _divide(correct * total - chance, spread)


@register_metric("macro AUC (ROC)", percent=False)
def macro_auc(predictions: Predictions) -> BootstrapEstimate:
    """Mean area under the ROC curves, one class against the rest, over the classes where it is defined."""
    return predictions.once(_areas)["auc"].mean()


@register_metric("macro average precision (PR)", percent=False)
def macro_average_precision(predictions: Predictions) -> BootstrapEstimate:
    """Mean average precision, one class against the rest, over the classes where it is defined."""
    return predictions.once(_areas)["average_precision"].mean()


@register_metric(f"accuracy on the surest {COVERAGE:.0%}")
def selective_accuracy(predictions: Predictions) -> BootstrapEstimate:
    """Accuracy of the images whose confidence reaches that of the most confident COVERAGE; the threshold is fixed."""
    confidence = predictions.probabilities.max(1)
    answered = confidence >= np.quantile(confidence, 1 - COVERAGE)
    correct = answered & (predictions.predicted == predictions.truth)
    found = ratio_of_sums(predictions.sum_by_cell(correct), predictions.sum_by_cell(answered), predictions.weights)
    return _with_exact_ends(found, len(np.unique(predictions.cells[answered])))


@register_metric("expected calibration error before scaling")
def ece(predictions: Predictions) -> BootstrapEstimate:
    """Expected calibration error before temperature scaling."""
    return _calibration_error(predictions, predictions.scaling.before)


@register_metric("expected calibration error after scaling")
def ece_calibrated(predictions: Predictions) -> BootstrapEstimate | None:
    """Expected calibration error after temperature scaling; None where no temperature was fitted."""
    after = predictions.scaling.after
    return None if after is None else _calibration_error(predictions, after)


@register_metric("log loss", percent=False)
def log_loss(predictions: Predictions) -> BootstrapEstimate:
    """Mean negative log of the true label's probability, nats."""
    losses = log_losses(predictions.truth, predictions.probabilities)
    return ratio_of_sums(predictions.sum_by_cell(losses), predictions.images_per_cell, predictions.weights)


@register_metric("Brier score", percent=False)
def brier(predictions: Predictions) -> BootstrapEstimate:
    """Mean squared distance of the probabilities from the truth, over all classes, 0 to 2 (Brier 1950)."""
    losses = ((predictions.probabilities - np.eye(len(predictions.labels))[predictions.truth]) ** 2).sum(1)
    return ratio_of_sums(predictions.sum_by_cell(losses), predictions.images_per_cell, predictions.weights)


def log_losses(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log of each image's true-label probability, nats (n,)."""
    return -np.log(np.clip(probabilities[np.arange(len(truth)), truth], MIN_PROBABILITY, 1))


def _calibration_error(predictions: Predictions, exponent: float) -> BootstrapEstimate:
    """Expected calibration error of probabilities raised to `exponent` (Guo et al. 2017, arXiv:1706.04599).

    An absolute difference grows with noise, so that a resample's error lies above the sample's own. The draws are
    therefore shifted to have the sample's value as their mean (bias-corrected bootstrap, Efron & Tibshirani 1993,
    chapter 10).
    """
    truth, cells, n_cells = predictions.truth, predictions.cells, predictions.n_cells
    scaled = predictions.scaling.apply(predictions.probabilities, predictions.labels, exponent)
    bins, gaps = calibration_bins(truth, scaled)
    sums = np.bincount(cells * N_BINS + bins, gaps, n_cells * N_BINS).reshape(n_cells, N_BINS)
    sizes = predictions.images_per_cell.astype(np.float32)
    draws = np.abs(predictions.weights @ sums.astype(np.float32)).sum(1) / (predictions.weights @ sizes)
    value = float(np.abs(sums.sum(0)).sum() / len(truth))
    return BootstrapEstimate(value, (draws - draws.mean() + value).clip(0, 1))


@dataclass(frozen=True)
class _ClassAreas:
    """An area of each class: from the sample (K,) and from each resample (K, N_RESAMPLES)."""

    values: np.ndarray
    draws: np.ndarray

    def mean(self) -> BootstrapEstimate:
        """Mean over the classes whose area is defined; nan where none is."""
        return BootstrapEstimate(float(_defined_mean(self.values[:, None])[0]), _defined_mean(self.draws))


def _areas(predictions: Predictions) -> dict[str, _ClassAreas]:
    """Area under the ROC curve (`auc`) and `average_precision` of each class against the rest."""
    positives = predictions.truth == np.arange(len(predictions.labels))[:, None]
    scores, n = predictions.probabilities.T, len(predictions.truth)
    sample = resampled_areas(positives, scores, np.arange(n), np.ones((1, n), np.float32))
    drawn = resampled_areas(positives, scores, predictions.cells, predictions.weights)
    named = zip(("auc", "average_precision"), sample, drawn, strict=True)
    return {name: _ClassAreas(values[:, 0], draws) for name, values, draws in named}


def _class_table(predictions: Predictions, areas: bool = True) -> pd.DataFrame:
    counts, drawn = (class_scores(c) for c in predictions.confusions)
    columns = {name: (counts[name], drawn[name]) for name in counts}
    if areas:
        columns |= {name: (area.values, area.draws.T) for name, area in predictions.once(_areas).items()}
    rows = []
    for number, label in enumerate(predictions.labels):
        row: dict[str, object] = {"label": label}
        for name, (values, draws) in columns.items():
            interval = percentile_interval(values[number], draws[:, number])
            row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        images = predictions.table[predictions.table["label"] == label]
        rows.append(row | {"images": len(images), "cells": images["cell"].nunique()})
    return pd.DataFrame(rows)


def _with_exact_ends(found: BootstrapEstimate, n_cells: int) -> BootstrapEstimate:
    """Wilson's interval over cells where none or all are correct, because every bootstrap draw is the same then."""
    if found.value not in (0.0, 1.0):
        return found
    return BootstrapEstimate(found.value, found.draws, wilson_interval(round(found.value * n_cells), n_cells))


def _correct(counts: np.ndarray) -> np.ndarray:
    return np.trace(counts, axis1=-2, axis2=-1)


def _occurs(counts: np.ndarray) -> np.ndarray:
    """Whether each class occurs in truth or prediction (..., K)."""
    return (counts.sum(-1) > 0) | (counts.sum(-2) > 0)


def _agreement(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of images, correct images, and total² times the agreement expected by chance, each (...)."""
    counts = np.asarray(counts, float)
    return counts.sum((-1, -2)), _correct(counts), (counts.sum(-1) * counts.sum(-2)).sum(-1)


def _weighted(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean (...) of class values (..., K), weighted by the true images of each class."""
    return _divide((values * counts.sum(-1)).sum(-1), counts.sum((-1, -2)))


def _defined_mean(values: np.ndarray) -> np.ndarray:
    """Mean (n,) over the classes (K, n) whose value is defined; nan where none is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0).sum(0) / known.sum(0)


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    return _divide((values * where).sum(-1), where.sum(-1))
