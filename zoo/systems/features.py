"""Importance of the few features that a classical head judges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.entry import HEAD, Entry, EntryError
from zoo.lazy import lazy_module
from zoo.serving.heads.load import read_head

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

SEED = 0
SHUFFLES = 3  # of each feature; their mean is taken
FEATURES_STEP = 1  # the head's first step makes the features


def feature_importance(entry: Entry, features: pd.DataFrame) -> pd.DataFrame:
    """Permutation importance (Breiman 2001): fall in accuracy when one feature is shuffled among the pictures.

    Args:
        entry: A classical head whose first step makes the features from a network's vector.
        features: One row a test picture: label as the entry names it, and columns f1, f2, …

    Returns:
        One row a feature, with columns feature and fall (a share).

    Raises:
        EntryError: The head cannot be read, or takes another number of features.
    """
    head: Any = read_head(entry.folder / HEAD, entry.config.num_classes)
    judge = head[FEATURES_STEP:] if hasattr(head, "steps") and len(head.steps) > FEATURES_STEP else None
    names = [name for name in features.columns if name[:1] == "f" and name[1:].isdigit()]
    if judge is None or judge.n_features_in_ != len(names):
        raise EntryError(f"{entry.title} judges no {len(names)} features.")
    values = features[names].to_numpy(np.float32)
    true = np.array([entry.labels.index(label) for label in features["label"]])
    accuracy = np.mean(judge.predict(values) == true)
    rng = np.random.default_rng(SEED)
    falls = []
    for column in range(len(names)):
        shuffled = []
        for _ in range(SHUFFLES):
            changed = values.copy()
            changed[:, column] = rng.permutation(changed[:, column])
            shuffled.append(np.mean(judge.predict(changed) == true))
        falls.append(float(accuracy - np.mean(shuffled)))
    return pd.DataFrame({"feature": [f"feature {name[1:]}" for name in names], "fall": falls})
