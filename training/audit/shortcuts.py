"""Shortcuts: properties that tell nothing of the cell and still predict its label.

Balanced accuracy of a small decision tree, cross-validated with all pictures of one subject on one side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from training.audit.measure import Measured

FOLDS = 5
DEPTH = 4
ALARM = 0.15  # balanced accuracy above chance from which a property is called a shortcut


def find_shortcuts(measured: Measured, labels: Sequence[str | None], subject: np.ndarray) -> dict[str, float]:
    """Property → balanced accuracy, chance being one over the number of labels; empty with fewer than two labels.

    A label needs at least two subjects to be counted.
    """
    rows = usable_rows(measured.readable, labels, subject)
    truth = np.array([labels[row] for row in rows])
    if len(set(truth)) < 2:
        return {}
    few = min(len(set(subject[rows][truth == label])) for label in set(truth))
    folds = StratifiedGroupKFold(min(FOLDS, few), shuffle=True, random_state=0)
    found = {}
    for name, values in _properties(measured).items():
        tree = DecisionTreeClassifier(max_depth=DEPTH, class_weight="balanced", random_state=0)
        said = cross_val_predict(tree, values[rows], truth, groups=subject[rows], cv=folds)
        found[name] = float(balanced_accuracy_score(truth, said))
    return found


def alarms(shortcuts: Mapping[str, float], classes: int) -> list[str]:
    """Properties that predict the label so well that a model could rely on them, strongest first."""
    over = {name: value for name, value in shortcuts.items() if classes > 1 and value - 1 / classes > ALARM}
    return sorted(over, key=lambda name: -over[name])


def usable_rows(readable: np.ndarray, labels: Sequence[str | None], subject: np.ndarray) -> np.ndarray:
    """Readable rows whose label at least two subjects carry: others cannot be cross-validated."""
    pairs = {(labels[row], subject[row]) for row in np.flatnonzero(readable).tolist() if labels[row] is not None}
    count = Counter(label for label, _ in pairs)
    return np.array([row for row in np.flatnonzero(readable).tolist() if count[labels[row]] > 1], np.int64)


def _properties(measured: Measured) -> dict[str, np.ndarray]:
    width, height = np.asarray(measured["width"]), np.asarray(measured["height"])
    kinds = np.char.add(np.asarray(measured["format"]), np.asarray(measured["mode"]))
    return {
        "size": np.column_stack([width, height]),
        "format": np.unique(kinds, return_inverse=True)[1].reshape(-1, 1),
        "jpeg_quality": np.asarray(measured["quantisation"])[:, None],
        "file_size": np.asarray(measured["bytes"])[:, None],
        "border_colour": np.asarray(measured["border"]),
        "mean_colour": np.asarray(measured["mean"]),
    }
