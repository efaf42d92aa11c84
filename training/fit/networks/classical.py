"""Classical heads: scikit-learn's classifiers on the features that a network computes."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from training.prepare.dataset import TrainingDataError
from training.recipe import Head
from zoo.entry import EntryError
from zoo.imaging.preprocess import Preprocessor
from zoo.progress import progress_bar
from zoo.serving.heads import check_storable

BATCH = 128
MAX_FOLDS = 5  # of the cross-validation of an SVM's probabilities


def hidden_vectors(network: nn.Module, prepare: Preprocessor, pictures: np.ndarray, device: torch.device) -> np.ndarray:
    """Compute the vector before the last layer for each picture.

    Args:
        network: A timm model.
        prepare: Preprocessing of its input.
        pictures: uint8 (n, height, width, 3).
        device: Where it is computed.

    Returns:
        float32 (n, d).
    """
    return np.concatenate(list(_vectors(network, prepare, pictures, device)))


@torch.inference_mode()
def _vectors(
    network: nn.Module, prepare: Preprocessor, pictures: np.ndarray, device: torch.device
) -> Iterator[np.ndarray]:
    model: Any = network.to(device).eval()  # timm's networks have forward_features and forward_head
    with progress_bar(description="features", total=len(pictures), unit="image") as progress:
        for start in range(0, len(pictures), BATCH):
            part = pictures[start : start + BATCH]
            batch = torch.stack([prepare(Image.fromarray(picture)) for picture in part]).to(device)
            yield model.forward_head(model.forward_features(batch), pre_logits=True).float().cpu().numpy()
            progress.update(len(part))


def fit_head(head: Head, vectors: np.ndarray, labels: np.ndarray, seed: int) -> Pipeline:
    """Fit a classical head.

    Args:
        head: The recipe's [head]. With `features`, the pipeline begins with a step "features" of principal components.
        vectors: Features of training pictures (n, d).
        labels: Label numbers (n,).
        seed: Seed of what is random.

    Returns:
        A pipeline from vectors to probabilities; of a forest with `one_hot`, its trees are those that one-hot labels
        grow. The SVM's input is scaled to unit variance, and its probabilities are
        Platt's (1999), cross-validated.

    Raises:
        TrainingDataError: A class has too few pictures for the SVM's cross-validation, or the options give a head that
            the zoo does not load.
    """
    steps: list[tuple[str, Any]] = []
    if head.features:
        steps.append(("features", PCA(head.features, random_state=seed)))
    if head.kind == "knn":
        steps.append(("head", KNeighborsClassifier(**{"algorithm": "brute", **head.options})))
    elif head.kind == "svm":
        machine = SVC(**{"random_state": seed, **head.options})
        folds = int(min(MAX_FOLDS, np.unique(labels, return_counts=True)[1].min()))
        if folds < 2:
            raise TrainingDataError("A class has a single training picture; an SVM needs two. Add pictures.")
        steps += [("scale", StandardScaler()), ("head", CalibratedClassifierCV(machine, cv=folds, ensemble=False))]
    else:
        steps.append(("head", RandomForestClassifier(**{"random_state": seed, "n_jobs": -1, **head.options})))
    one_hot = np.eye(int(np.max(labels)) + 1)[labels] if head.one_hot else None
    pipeline = Pipeline(steps).fit(vectors, labels if one_hot is None else one_hot)
    if one_hot is not None:
        pipeline.steps[-1] = ("head", _with_one_output(pipeline["head"]))
    if head.kind == "forest":
        # the number of cores belongs to the machine that fitted it, not to those that load it
        pipeline["head"].n_jobs = 1
    try:
        check_storable(pipeline, int(np.max(labels)) + 1)
    except EntryError as error:
        raise TrainingDataError(f"The zoo would not load a head of the recipe's [head].options: {error}") from error
    return pipeline


def _with_one_output(forest: RandomForestClassifier) -> RandomForestClassifier:
    """The forest of class numbers with the trees of one that was fitted on one-hot labels.

    The share of "yes" for a class in a leaf is the class's share there, and the shares of a leaf add up to 1.
    """
    classes = np.arange(forest.n_outputs_)
    trees = []
    for fitted in forest.estimators_:
        state = fitted.tree_.__getstate__()
        tree = type(fitted.tree_)(fitted.n_features_in_, np.array([len(classes)]), 1)
        tree.__setstate__({**state, "values": np.ascontiguousarray(state["values"][:, None, :, 1])})
        trees.append(_with(fitted, n_outputs_=1, n_classes_=len(classes), classes_=classes, tree_=tree))
    return _with(forest, n_outputs_=1, n_classes_=len(classes), classes_=classes, estimators_=trees)


def _with(estimator: Any, **attributes: Any) -> Any:
    """A copy of a fitted estimator with other attributes."""
    changed = copy(estimator)
    for name, value in attributes.items():
        setattr(changed, name, value)
    return changed


def features_of(pipeline: Pipeline, vectors: np.ndarray) -> np.ndarray:
    """Return the principal components that a head uses (n, k), or `vectors` if it uses all of them."""
    return pipeline["features"].transform(vectors) if "features" in pipeline.named_steps else vectors
