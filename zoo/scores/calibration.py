"""Temperature scaling of an entry: what its stored probabilities had applied, and what unseen laboratories need."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo.entry import Entry, EntryError, read_predictions
from zoo.scores.predictions import label_arrays
from zoo.scores.temperature import AS_STORED, MIN_PROBABILITY, Scaling, fit_temperature, scale_probabilities


def is_scaled(entry: Entry) -> bool:
    """Whether the entry's stored probabilities are temperature-scaled already."""
    ours = entry.config.zoo
    return ours.fitted_temperature is not None or ours.temperature != 1


def scaling_of(entry: Entry) -> Scaling:
    """Exponents that give an entry's probabilities before and after temperature scaling.

    A temperature is taken from the entry's config where it has one, else fitted on the entry's stored validation
    predictions (Guo et al. 2017, arXiv:1706.04599). Where labels were mapped, it is applied to the mapped
    probabilities.

    Args:
        entry: A published entry.

    Returns:
        The exponents; AS_STORED where the entry has neither a temperature nor readable validation predictions.
    """
    ours = entry.config.zoo
    if is_scaled(entry):
        return Scaling((ours.fitted_temperature or 1.0) * ours.temperature, 1.0)
    for name, benchmark in entry.evaluation.benchmarks.items():
        if benchmark.role == "validation":
            try:
                table = read_predictions(entry, name)
            except EntryError:
                continue
            truth, probabilities = label_arrays(table, benchmark.labels)
            logits = np.log(np.clip(probabilities, MIN_PROBABILITY, 1))
            return Scaling(1.0, 1 / fit_temperature(truth, logits))
    return AS_STORED


def unseen_laboratory_confidence(entry: Entry, probabilities: Mapping[str, float]) -> float | None:
    """Confidence to expect if the picture comes from a laboratory that the model was not trained on.

    This is the highest probability after the temperature that models of the same recipe needed on laboratories that
    were held out of their training.

    Args:
        entry: The entry that answered.
        probabilities: Its answer, label → probability.

    Returns:
        A probability; None where the entry has no leave-one-laboratory-out result.
    """
    unseen = entry.other_laboratories
    if unseen is None:
        return None
    answer = np.array([list(probabilities.values())])
    return float(scale_probabilities(answer, 1 / unseen.temperature).max())
