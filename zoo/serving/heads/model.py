"""A network with a classical classifier in place of its last layer, and the training pictures nearest to a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from zoo.attribution.features import forward_features, forward_head
from zoo.entry import EntryError
from zoo.scores.temperature import MIN_PROBABILITY


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

    def logits(self, vectors: torch.Tensor) -> torch.Tensor:
        """Compute log probabilities float32 (B, classes) of vectors (B, d), on their device."""
        probabilities = np.zeros((len(vectors), self.classes))
        # the calling threads already use every core
        with threadpool_limits(1):
            probabilities[:, self.classifier.classes_] = self.classifier.predict_proba(vectors.float().cpu().numpy())
        return torch.from_numpy(np.log(probabilities.clip(MIN_PROBABILITY, 1))).float().to(vectors.device)

    def nearest(self, vector: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
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
        values = vector.float().cpu().numpy()
        for step in [step for _, step in getattr(classifier, "steps", [])[:-1]]:
            values = step.transform(values)
        with threadpool_limits(1):
            distances, rows = last.kneighbors(values, min(count, last.n_samples_fit_))
        return rows[0], distances[0]


class ClassicalHeadModel(nn.Module):
    """A network whose last layer is a classical classifier: used like a timm model, but without gradients."""

    def __init__(self, network: nn.Module, head: ClassicalHead) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward_features(self, batch: torch.Tensor) -> torch.Tensor:
        """Compute the network's feature map of a batch (B, 3, H, W)."""
        return forward_features(self.network, batch)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Compute log probabilities float32 (B, classes) of a feature map, or the classifier's input (B, d)."""
        vectors = forward_head(self.network, features, pre_logits=True)
        return vectors if pre_logits else self.head.logits(vectors)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Compute log probabilities (B, classes) of a batch (B, 3, H, W)."""
        return self.forward_head(self.forward_features(batch))


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
