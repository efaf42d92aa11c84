"""How does a classical classifier (k nearest neighbours, SVM, forest) stand in for a network's last layer?

It is a scikit-learn pipeline on the features of a network, or on raw pixels, kept in `head.skops`: a file of which
nothing is unpickled, and which is loaded only if it holds nothing but scikit-learn's and numpy's own types.

skops and scikit-learn are imported where they are used: they are a third of a start, and most models need neither.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from zoo.entry import EntryError
from zoo.scores.temperature import MIN_PROBABILITY

MAX_BYTES = 200_000_000  # unpacked
# what the heads that training makes are built of, beyond what skops trusts by itself
TRUSTED = [
    "sklearn.tree._tree.Tree",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
]


class Classifier(Protocol):
    """What is used of a scikit-learn classifier."""

    classes_: np.ndarray

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Features (n, d) → probabilities (n, classes)."""


@dataclass(frozen=True)
class Neighbour:
    """A training picture that decided: its file, its label, and how far away it is in the classifier's own space."""

    file: str
    label: str
    distance: float


class ClassicalHeadModel(nn.Module):
    """A network whose last layer is a classical classifier: looks like a timm model, but has no gradients."""

    def __init__(self, network: nn.Module, head: Classifier, classes: int) -> None:
        super().__init__()
        self.network, self.classifier, self.classes = network, head, classes

    def forward_features(self, batch: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → the network's feature map."""
        return self.network.forward_features(batch)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Feature map → log probabilities (B, classes) float32, or the vector the classifier works on."""
        vector = self.network.forward_head(features, pre_logits=True)
        return vector if pre_logits else self.judge(vector)

    def judge(self, vector: torch.Tensor) -> torch.Tensor:
        """Vectors (B, d) → log probabilities (B, classes) float32, on the vectors' device."""
        found = np.zeros((len(vector), self.classes))
        # the client's threads already use every core
        with threadpool_limits(1):
            found[:, self.classifier.classes_] = self.classifier.predict_proba(vector.float().cpu().numpy())
        return torch.from_numpy(np.log(found.clip(MIN_PROBABILITY, 1))).float().to(vector.device)

    def nearest(self, vector: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and distances (count,) of the training pictures nearest to one vector (1, d), for k nearest neighbours.

        Raises EntryError for other classifiers.
        """
        decides = self.classifier[-1] if hasattr(self.classifier, "__getitem__") else self.classifier
        if not hasattr(decides, "kneighbors"):
            raise EntryError("This classifier has no neighbours.")
        values = vector.float().cpu().numpy()
        for step in [step for _, step in getattr(self.classifier, "steps", [])[:-1]]:
            values = step.transform(values)
        with threadpool_limits(1):
            away, rows = decides.kneighbors(values, min(count, decides.n_samples_fit_))
        return rows[0], away[0]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → log probabilities (B, classes)."""
        return self.forward_head(self.forward_features(batch))


def read_neighbours(path: Path) -> pd.DataFrame | None:
    """Columns file and label, a row a training picture; None where there are none. Raises EntryError if damaged."""
    if not path.exists():
        return None
    try:
        return pd.read_parquet(path, columns=["file", "label"]).astype(str)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors
        raise EntryError(f"{path.name} is no table of training pictures; train the entry again.") from error


def read_head(path: Path, classes: int) -> Classifier:
    """The classifier at `path`, for `classes` labels.

    Raises EntryError if it is missing, damaged, too large, holds types that are not scikit-learn's or numpy's, or does
    not fit the labels.
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
    # a damaged file fails in as many ways as there are types in it
    except Exception as error:
        raise EntryError(f"{path.name} cannot be loaded: it is damaged, or of another scikit-learn.") from error
    numbers = getattr(head, "classes_", None)
    fits = isinstance(numbers, np.ndarray) and numbers.dtype.kind in "iu" and len(numbers) <= classes
    if not fits or not hasattr(head, "predict_proba") or numbers.min() < 0 or numbers.max() >= classes:
        raise EntryError(f"{path.name} is no classifier for {classes} classes.")
    return head


def _check_trees(name: str, head: Classifier) -> None:
    """Raises EntryError if a tree points outside of itself: scikit-learn follows its numbers without looking."""
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
