"""Likely label errors, by confident learning on probabilities of models that never saw the picture's subject.

Northcutt, Jiang & Chuang 2021, doi:10.1613/jair.1.12125, as in the library cleanlab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cleanlab.filter import find_label_issues
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from training.audit.measure import Measured
from training.audit.outliers import components
from training.audit.shortcuts import usable_rows
from zoo.progress import progress_bar

FOLDS = 5
COMPONENTS = 128  # of the embedding
SURE, UNLIKELY = 0.7, 0.1  # probability of another label, and of the given one, that make an error likely
STRENGTH = 0.01  # inverse of the regression's L2 penalty: many features, few cells


@dataclass(frozen=True)
class LabelErrors:
    """`rows` whose label is likely wrong (surest first), what is likelier for each, and out-of-fold accuracy."""

    rows: tuple[int, ...]
    likelier: tuple[str, ...]
    accuracy: float | None


def find_label_errors(
    measured: Measured, labels: Sequence[str | None], subject: np.ndarray, leave: Sequence[int] = (), seed: int = 0
) -> LabelErrors:
    """Likely label errors; `leave` are rows that are no cells. Nothing is found with fewer than two labels."""
    readable = measured.readable.copy()
    readable[list(leave)] = False
    rows = usable_rows(readable, labels, subject)
    names, truth = np.unique([str(labels[row]) for row in rows], return_inverse=True)
    if len(names) < 2:
        return LabelErrors((), (), None)
    few = min(len(set(subject[rows][truth == label])) for label in range(len(names)))
    embedding = np.asarray(measured["embedding"][rows], np.float32)
    parts = StandardScaler().fit_transform(components(StandardScaler().fit_transform(embedding), COMPONENTS, seed))
    probabilities = np.zeros((len(rows), len(names)))
    # a cell counts once, however many copies of it there are
    _, place, sizes = np.unique(subject[rows], return_inverse=True, return_counts=True)
    weight = 1 / sizes[place]
    folds = StratifiedGroupKFold(min(FOLDS, few), shuffle=True, random_state=seed)
    for train, test in progress_bar(list(folds.split(parts, truth, place)), "judging labels", unit="fold"):
        model = LogisticRegression(C=STRENGTH * len(train) / weight[train].sum(), max_iter=300)
        model.fit(parts[train], truth[train], sample_weight=weight[train])
        probabilities[np.ix_(test, model.classes_)] = model.predict_proba(parts[test])
    # copies of a cell speak with one voice
    probabilities = np.array([np.bincount(place, column * weight) for column in probabilities.T]).T[place]
    found = find_label_issues(
        truth, probabilities, filter_by="both", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    said = probabilities.argmax(1)
    sure = (probabilities.max(1) >= SURE) & (probabilities[np.arange(len(truth)), truth] <= UNLIKELY)
    found = found[sure[found]]
    return LabelErrors(
        tuple(int(rows[i]) for i in found),
        tuple(str(names[said[i]]) for i in found),
        float(np.average(said == truth, weights=weight)),
    )
