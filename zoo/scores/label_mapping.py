"""Which of *these* kinds is it? A model's answers among its own labels, as answers among fewer or coarser ones.

Labels are joined by name: one counts as the other's label of the same name, or as the one that `same` names for it.
What belongs to none of them is left out and the rest scaled to 1: the answer given that it is one of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def mapping(labels: Sequence[str], wanted: Sequence[str], same: Mapping[str, str]) -> dict[str, str]:
    """Label of a model → wanted label, for those that count."""
    named = {label: same.get(label, label) for label in labels}
    return {label: name for label, name in named.items() if name in wanted}


def among(shares: np.ndarray, labels: Sequence[str], wanted: Sequence[str], same: Mapping[str, str]) -> np.ndarray:
    """Probabilities (n, len(labels)) as probabilities (n, len(wanted)); where nothing is left, all are alike."""
    known = mapping(labels, wanted, same)
    joins = np.array([[known.get(label) == name for name in wanted] for label in labels], shares.dtype)
    found = shares @ joins
    total = found.sum(1, keepdims=True)
    return np.where(total > 0, found / np.where(total > 0, total, 1), 1 / len(wanted)).astype(shares.dtype)
