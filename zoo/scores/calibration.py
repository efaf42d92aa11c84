"""Which temperature does an entry's confidence follow? What is applied already, or what its validation set asks for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo.entry import Entry, EntryError, read_predictions
from zoo.scores import metrics
from zoo.scores.metrics import AS_STORED, Scaling


def is_scaled(entry: Entry) -> bool:
    """Whether the entry's stored probabilities are temperature-scaled already."""
    ours = entry.config.zoo if entry.config else None
    return ours is not None and (ours.fitted_temperature is not None or ours.temperature != 1)


def scaling_of(entry: Entry) -> Scaling:
    """How stored probabilities become those before and after temperature scaling.

    Temperature scaling is Guo et al. 2017, arXiv:1706.04599. Where labels were mapped, it is applied to the mapped
    probabilities.
    """
    if entry.config is None:
        return AS_STORED
    ours = entry.config.zoo
    if is_scaled(entry):
        return Scaling((ours.fitted_temperature or 1.0) * ours.temperature, 1.0)
    for name, benchmark in entry.evaluation.benchmarks.items():
        if benchmark.role == "validation":
            try:
                table = read_predictions(entry, name)
            except EntryError:
                continue
            truth, shares = metrics.arrays(table, benchmark.labels)
            logits = np.log(np.clip(shares, metrics.TINY, 1))
            return Scaling(1.0, 1 / metrics.fit_temperature(truth, logits))
    return AS_STORED


def sure_elsewhere(entry: Entry, probabilities: Mapping[str, float]) -> float | None:
    """How sure an answer is in a laboratory that the model never saw; None where that was not measured.

    The highest probability after the temperature that answers of the same recipe asked for in laboratories left out of
    training.
    """
    found = entry.other_laboratories
    if found is None:
        return None
    shares = np.array([list(probabilities.values())])
    return float(metrics.tempered(shares, 1 / found.temperature).max())
