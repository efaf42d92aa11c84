"""Errors on corrupted pictures by kind and severity, also relative to AlexNet's.

Measures of MedMNIST-C (Di Salvo et al. 2024, arXiv:2406.17536, after Hendrycks & Dietterich 2019, arXiv:1903.12261):
the balanced error of each kind of corruption in the mean over severities, divided by AlexNet's on the same kind, and
the mean of these over kinds. 1 is as bad as AlexNet, 0 is perfect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from zoo.benchmarks.corruptions import ALEXNET_CLEAN, CLEAN, KINDS, split_name
from zoo.lazy import lazy_module
from zoo.scores.bootstrap import BootstrapEstimate
from zoo.scores.metrics import balanced_accuracy, register_metric
from zoo.scores.predictions import Predictions, cell_confusions

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

Errors = Mapping[tuple[str, int], BootstrapEstimate]  # (kind, severity) → balanced error


@register_metric("balanced error, mean over corruptions")
def corruption_error(predictions: Predictions) -> BootstrapEstimate | None:
    """Balanced error, in the mean over severities and kinds of corruption; None for pictures without corruptions."""
    kinds = predictions.once(_kind_errors)
    return _mean(list(kinds.values())) if kinds else None


@register_metric("corruption error against AlexNet's", percent=False)
def corruption_error_alexnet(predictions: Predictions) -> BootstrapEstimate | None:
    """Balanced error of each kind of corruption divided by AlexNet's, in the mean over kinds."""
    kinds = predictions.once(_kind_errors)
    alexnet = _alexnet(kinds)
    return _mean([_scaled(e, alexnet[kind]) for kind, e in kinds.items()]) if alexnet else None


@register_metric("loss by corruption against AlexNet's", percent=False)
def relative_corruption_error_alexnet(predictions: Predictions) -> BootstrapEstimate | None:
    """Increase of the balanced error by each kind of corruption, divided by AlexNet's increase."""
    kinds = predictions.once(_kind_errors)
    alexnet = _alexnet(kinds)
    clean = predictions.once(_errors).get((CLEAN, 0)) if alexnet else None
    if clean is None:
        return None
    losses = {kind: BootstrapEstimate(e.value - clean.value, e.draws - clean.draws) for kind, e in kinds.items()}
    return _mean([_scaled(e, alexnet[kind] - ALEXNET_CLEAN) for kind, e in losses.items()])


METRIC_NAMES = tuple(
    f.__name__ for f in (corruption_error, corruption_error_alexnet, relative_corruption_error_alexnet)
)


def is_corrupted(table: pd.DataFrame) -> bool:
    """Whether the table's pictures are corrupted ones, by the file names of its first 1000 rows."""
    return bool(parted(table.head(1000))["kind"].isin(list(KINDS)).any())


def parted(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns picture, kind and severity, read from its file names."""
    parts = [split_name(file) for file in table["file"]]
    columns = zip(*parts, strict=True)
    return table.assign(**dict(zip(("picture", "kind", "severity"), columns, strict=True)))


def errors(table: pd.DataFrame, labels: Sequence[str], seed: int = 0) -> Errors:
    """Balanced error of each kind and severity of corruption.

    Args:
        table: A prediction table of clean and corrupted pictures.
        labels: Its labels.
        seed: Seed of the bootstrap; pictures of one source cell are drawn together.

    Returns:
        (kind, severity) → error.
    """
    return _errors(Predictions(table, list(labels), seed=seed))


def _errors(predictions: Predictions) -> Errors:
    found = {}
    labels = predictions.labels
    settings = parted(predictions.table).groupby(["kind", "severity"], sort=False)
    for key, rows in cast(dict[tuple[str, int], np.ndarray], settings.indices).items():
        counts = cell_confusions(
            predictions.truth[rows],
            predictions.predicted[rows],
            predictions.cells[rows],
            len(labels),
            predictions.n_cells,
        )
        drawn = (predictions.weights @ counts.reshape(len(counts), -1)).reshape(-1, len(labels), len(labels))
        value = float(balanced_accuracy(counts.sum(0)))
        found[key[0], int(key[1])] = BootstrapEstimate(1 - value, 1 - balanced_accuracy(drawn))
    return found


def _kind_errors(predictions: Predictions) -> dict[str, BootstrapEstimate]:
    """Error of each kind of corruption in the table, in the mean over severities; empty without corruptions."""
    if not is_corrupted(predictions.table):
        return {}
    by_setting = predictions.once(_errors)
    kinds = {kind: [e for (name, _), e in by_setting.items() if name == kind] for kind in KINDS}
    return {kind: _mean(some) for kind, some in kinds.items() if some}


def _alexnet(kinds: Iterable[str]) -> dict[str, float]:
    """AlexNet's error on each of some kinds of corruption; empty where MedMNIST-C lacks one of them."""
    known = {kind: KINDS[kind].alexnet for kind in kinds}
    return {kind: error for kind, error in known.items() if error is not None} if None not in known.values() else {}


def by_kind(found: Errors) -> pd.DataFrame:
    """One row a kind and severity: error with its interval."""
    rows = [(kind, severity, e.value, e.interval.low, e.interval.high) for (kind, severity), e in found.items()]
    return pd.DataFrame(rows, columns=["kind", "severity", "error", "low", "high"])


def _mean(some: Sequence[BootstrapEstimate]) -> BootstrapEstimate:
    return BootstrapEstimate(float(np.mean([e.value for e in some])), np.mean([e.draws for e in some], axis=0))


def _scaled(estimate: BootstrapEstimate, by: float) -> BootstrapEstimate:
    return BootstrapEstimate(estimate.value / by, estimate.draws / by)
