"""Mapping of a model's labels to fewer or coarser labels.

Labels are joined by name: a label counts as the wanted label of the same name, or as the one that `synonyms` gives for
it. Labels that match none of the wanted ones are dropped, and the other probabilities are scaled to sum to 1: the
answer on the condition that the cell is one of the wanted kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def map_labels(labels: Sequence[str], wanted: Sequence[str], synonyms: Mapping[str, str]) -> dict[str, str]:
    """Label of a model → wanted label, for the labels that have one."""
    named = {label: synonyms.get(label, label) for label in labels}
    return {label: name for label, name in named.items() if name in wanted}


def map_probabilities(
    probabilities: np.ndarray, labels: Sequence[str], wanted: Sequence[str], synonyms: Mapping[str, str]
) -> np.ndarray:
    """Probabilities over a model's labels as probabilities over the wanted labels.

    Args:
        probabilities: One row an image, (n, len(labels)).
        labels: The model's labels.
        wanted: The labels to answer in.
        synonyms: Label of the model → wanted label, where the names differ.

    Returns:
        Probabilities (n, len(wanted)); a row whose wanted labels all had probability 0 becomes uniform.
    """
    known = map_labels(labels, wanted, synonyms)
    joins = np.array([[known.get(label) == name for name in wanted] for label in labels], probabilities.dtype)
    summed = probabilities @ joins
    total = summed.sum(1, keepdims=True)
    return np.where(total > 0, summed / np.where(total > 0, total, 1), 1 / len(wanted)).astype(probabilities.dtype)
