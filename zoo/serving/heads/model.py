"""A classical classifier of a network's vectors, and the training pictures nearest to a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from zoo.entry import EntryError
from zoo.lazy import lazy_module
from zoo.scores.temperature import MIN_PROBABILITY

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")


class Classifier(Protocol):
    """The part of scikit-learn's interface that is used."""

    classes_: np.ndarray

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Compute probabilities (n, classes) of features (n, d)."""


@dataclass(frozen=True)
class Neighbour:
    """A training picture near the classified one.

    Attributes:
        file: its file in the training data.
        label: its class.
        distance: in the classifier's own feature space.
    """

    file: str
    label: str
    distance: float


@dataclass(frozen=True, eq=False)
class ClassicalHead:
    """A classical classifier of vectors.

    Attributes:
        classifier: the fitted classifier.
        classes: number of the entry's labels, of which it may know fewer.
    """

    classifier: Classifier
    classes: int

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """Compute log probabilities float32 (B, classes) of vectors float32 (B, d)."""
        probabilities = np.zeros((len(vectors), self.classes))
        # the calling threads already use every core
        with threadpool_limits(1):
            probabilities[:, self.classifier.classes_] = self.classifier.predict_proba(vectors)
        return np.log(probabilities.clip(MIN_PROBABILITY, 1)).astype(np.float32)

    def nearest(self, vector: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the training pictures nearest to one vector (1, d), for k nearest neighbours.

        Returns:
            Their rows in the training table and their distances, (count,) each.

        Raises:
            EntryError: the classifier is another one.
        """
        classifier: Any = self.classifier
        last = classifier[-1] if hasattr(classifier, "__getitem__") else classifier
        if not hasattr(last, "kneighbors"):
            raise EntryError("This classifier has no neighbours.")
        values = vector
        for step in [step for _, step in getattr(classifier, "steps", [])[:-1]]:
            values = step.transform(values)
        with threadpool_limits(1):
            distances, rows = last.kneighbors(values, min(count, last.n_samples_fit_))
        return rows[0], distances[0]


def read_neighbours(path: Path) -> pd.DataFrame | None:
    """Read the table of training pictures.

    Returns:
        Columns file and label, one row for each picture; None where there is no such file.

    Raises:
        EntryError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return pd.read_parquet(path, columns=["file", "label"]).astype(str)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors
        raise EntryError(f"{path.name} is no table of training pictures; train the entry again.") from error
