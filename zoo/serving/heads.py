"""Classical classifiers (k nearest neighbours, SVM, random forest) in place of a network's last layer.

A head is a scikit-learn pipeline on the features of a network, or on raw pixels, stored in `head.skops`. Nothing of
that file is unpickled, and it is loaded only if it holds nothing but scikit-learn's and numpy's own types.

skops and scikit-learn are imported where they are used: importing them takes a third of the start-up time, and most
models need neither.
"""

from __future__ import annotations

import zipfile
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

MAX_BYTES = 200_000_000  # of an unpacked head
# types of the heads that training makes, beyond those that skops trusts by itself
TRUSTED = [
    "sklearn.tree._tree.Tree",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
]


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


class ClassicalHeadModel(nn.Module):
    """A network whose last layer is a classical classifier: used like a timm model, but without gradients."""

    def __init__(self, network: nn.Module, head: Classifier, classes: int) -> None:
        super().__init__()
        self.network, self.classifier, self.classes = network, head, classes

    def forward_features(self, batch: torch.Tensor) -> torch.Tensor:
        """Compute the network's feature map of a batch (B, 3, H, W)."""
        return forward_features(self.network, batch)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Compute log probabilities float32 (B, classes) of a feature map, or the classifier's input (B, d)."""
        vectors = forward_head(self.network, features, pre_logits=True)
        return vectors if pre_logits else self.classify_vectors(vectors)

    def classify_vectors(self, vectors: torch.Tensor) -> torch.Tensor:
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
        last: Any = self.classifier[-1] if hasattr(self.classifier, "__getitem__") else self.classifier
        if not hasattr(last, "kneighbors"):
            raise EntryError("This classifier has no neighbours.")
        values = vector.float().cpu().numpy()
        for step in [step for _, step in getattr(self.classifier, "steps", [])[:-1]]:
            values = step.transform(values)
        with threadpool_limits(1):
            distances, rows = last.kneighbors(values, min(count, last.n_samples_fit_))
        return rows[0], distances[0]

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


def read_head(path: Path, classes: int) -> Classifier:
    """Read a classifier.

    Args:
        path: a .skops file.
        classes: number of the entry's labels.

    Raises:
        EntryError: it is missing, damaged, too large, holds types that are not scikit-learn's or numpy's, or does not
            fit the labels.
    """
    import skops.io  # noqa: PLC0415
    from skops.io.exceptions import UntrustedTypesFoundException  # noqa: PLC0415

    try:
        with zipfile.ZipFile(path) as file:
            size = sum(item.file_size for item in file.infolist())
        if size > MAX_BYTES:
            raise EntryError(f"{path.name} unpacks to {size:,} bytes; at most {MAX_BYTES:,} are loaded.")
        unknown = [name for name in skops.io.get_untrusted_types(file=path) if name not in TRUSTED]
        if unknown:
            raise EntryError(f"{path.name} holds {unknown[0]}, which is not loaded: only scikit-learn's own types are.")
        head = skops.io.load(path, trusted=TRUSTED)
        _check_trees(path.name, head)
    except FileNotFoundError as error:
        raise EntryError(f"{path.name} is missing.") from error
    except (EntryError, UntrustedTypesFoundException) as error:
        raise EntryError(str(error)) from error
    # a damaged file may raise anything
    except Exception as error:
        raise EntryError(f"{path.name} cannot be loaded: it is damaged, or of another scikit-learn.") from error
    if not _fits(head, classes):
        raise EntryError(f"{path.name} is no classifier for {classes} classes.")
    return head


def _fits(head: object, classes: int) -> bool:
    """Whether an object is a classifier whose label numbers are below `classes`."""
    numbers = getattr(head, "classes_", None)
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in "iu" or not hasattr(head, "predict_proba"):
        return False
    return len(numbers) <= classes and bool(numbers.min() >= 0 and numbers.max() < classes)


def _check_trees(name: str, head: Classifier) -> None:
    """Refuse trees with invalid node numbers, which scikit-learn would follow unchecked. Raises EntryError."""
    from sklearn.pipeline import Pipeline  # noqa: PLC0415

    forest = head[-1] if isinstance(head, Pipeline) else head
    for estimator in getattr(forest, "estimators_", []):
        tree = estimator.tree_
        count = tree.node_count
        inner = tree.children_left != -1
        children = np.concatenate([tree.children_left[inner], tree.children_right[inner]])
        parents = np.tile(np.flatnonzero(inner), 2)
        features = tree.feature[inner]
        sound = count == len(tree.feature) and (children > parents).all() and (children < count).all()
        if not sound or (features < 0).any() or (features >= tree.n_features).any():
            raise EntryError(f"{name} holds a tree that points outside of itself; it is damaged.")
