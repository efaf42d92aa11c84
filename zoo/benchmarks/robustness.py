"""How much worse does a model get on corrupted pictures? Balanced error by kind and severity, against AlexNet's.

Measures of MedMNIST-C (Di Salvo et al. 2024, arXiv:2406.17536, after Hendrycks & Dietterich 2019, arXiv:1903.12261):
for each kind the balanced error in the mean over severities, divided by AlexNet's on the same kind; and the mean of
these over kinds. 1 is as bad as AlexNet, 0 is perfect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from zoo.benchmarks.corruptions import ALEXNET_CLEAN, CLEAN, KINDS, split_name
from zoo.scores import metrics
from zoo.scores.bootstrap import Estimate, cell_numbers, resampled

SCORES = {
    "corruption_error": "balanced error, mean over corruptions",
    "corruption_error_alexnet": "corruption error against AlexNet's",
    "relative_corruption_error_alexnet": "loss by corruption against AlexNet's",
}


def parted(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns picture, kind and severity, read from its file names."""
    parts = [split_name(file) for file in table["file"]]
    columns = zip(*parts, strict=True)
    return table.assign(**dict(zip(("picture", "kind", "severity"), columns, strict=True)))


def errors(table: pd.DataFrame, labels: Sequence[str], seed: int = 0) -> dict[tuple[str, int], Estimate]:
    """Balanced error of each (kind, severity) in a prediction table; pictures of one cell are drawn together."""
    labels = list(labels)
    found = parted(table)
    cells, n_cells = cell_numbers(found["cell"])
    truth, shares = metrics.arrays(found, labels)
    called = shares.argmax(1)
    weights = resampled(n_cells, seed)
    made = {}
    for key, rows in found.groupby(["kind", "severity"], sort=False).indices.items():
        counts = metrics.cell_confusions(truth[rows], called[rows], cells[rows], len(labels), n_cells)
        drawn = (weights @ counts.reshape(n_cells, -1)).reshape(-1, len(labels), len(labels))
        value = metrics.scores(counts.sum(0))["balanced_accuracy"]
        made[str(key[0]), int(key[1])] = Estimate(1 - float(value), 1 - metrics.scores(drawn)["balanced_accuracy"])
    return made


def summary(found: Mapping[tuple[str, int], Estimate]) -> dict[str, Estimate]:
    """SCORES of what `errors` gives; the kinds that are there count alike."""
    kinds = {kind: [e for (name, _), e in found.items() if name == kind] for kind in KINDS}
    means = {kind: _mean(some) for kind, some in kinds.items() if some}
    if not means:
        return {}
    made = {
        "corruption_error": _mean(list(means.values())),
        "corruption_error_alexnet": _mean([_scaled(e, KINDS[kind].alexnet) for kind, e in means.items()]),
    }
    clean = found.get((CLEAN, 0))
    if clean is not None:
        losses = {kind: Estimate(e.value - clean.value, e.draws - clean.draws) for kind, e in means.items()}
        made["relative_corruption_error_alexnet"] = _mean(
            [_scaled(e, KINDS[kind].alexnet - ALEXNET_CLEAN) for kind, e in losses.items()]
        )
    return made


def by_kind(found: Mapping[tuple[str, int], Estimate]) -> pd.DataFrame:
    """One row a kind and severity: error with its interval."""
    rows = [(kind, severity, e.value, e.interval.low, e.interval.high) for (kind, severity), e in found.items()]
    return pd.DataFrame(rows, columns=["kind", "severity", "error", "low", "high"])


def _mean(some: Sequence[Estimate]) -> Estimate:
    return Estimate(float(np.mean([e.value for e in some])), np.mean([e.draws for e in some], axis=0))


def _scaled(estimate: Estimate, by: float) -> Estimate:
    return Estimate(estimate.value / by, estimate.draws / by)
