"""How are classical heads fitted, and what are a network's few features? scikit-learn on what a network computes."""

from __future__ import annotations

from collections.abc import Iterator
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
from tqdm import tqdm

from training.prepare.dataset import TrainingDataError
from training.recipe import Head
from zoo.imaging.preprocess import Preprocessor

BATCH = 128


def hidden_vectors(network: nn.Module, prepare: Preprocessor, pictures: np.ndarray, device: torch.device) -> np.ndarray:
    """The vector before the last layer for each of `pictures`, uint8 (n, height, width, 3): float32 (n, d).

    `network` is a timm model, or a ClassicalHeadModel one, on `device`.
    """
    return np.concatenate(list(_vectors(network, prepare, pictures, device)))


@torch.inference_mode()
def _vectors(
    network: nn.Module, prepare: Preprocessor, pictures: np.ndarray, device: torch.device
) -> Iterator[np.ndarray]:
    network = network.to(device).eval()
    with tqdm(total=len(pictures), desc="features", unit="image") as progress:
        for start in range(0, len(pictures), BATCH):
            part = pictures[start : start + BATCH]
            batch = torch.stack([prepare(Image.fromarray(picture)) for picture in part]).to(device)
            yield network.forward_head(network.forward_features(batch), pre_logits=True).float().cpu().numpy()
            progress.update(len(part))


def fit_head(head: Head, vectors: np.ndarray, labels: np.ndarray, seed: int) -> Pipeline:
    """A pipeline from vectors (n, d) to probabilities, fitted on label numbers (n,).

    With `head.features` its first step, "features", is the first principal components; the SVM's are scaled to unit
    variance, and its probabilities are Platt's (1999), cross-validated. Raises TrainingDataError if a class has too few
    pictures for that.
    """
    steps: list[tuple[str, Any]] = []
    if head.features:
        steps.append(("features", PCA(head.features, random_state=seed)))
    if head.kind == "knn":
        steps.append(("head", KNeighborsClassifier(**{"algorithm": "brute", **head.options})))
    elif head.kind == "svm":
        machine = SVC(**{"random_state": seed, **head.options})
        folds = int(min(5, np.unique(labels, return_counts=True)[1].min()))
        if folds < 2:
            raise TrainingDataError("A class has a single training picture; an SVM needs two. Add pictures.")
        steps += [("scale", StandardScaler()), ("head", CalibratedClassifierCV(machine, cv=folds, ensemble=False))]
    else:
        steps.append(("head", RandomForestClassifier(**{"random_state": seed, "n_jobs": -1, **head.options})))
    pipeline = Pipeline(steps).fit(vectors, labels)
    if head.kind == "forest":
        pipeline["head"].n_jobs = 1  # of the machine that fitted it, not of those who load it
    return pipeline


def features_of(pipeline: Pipeline, vectors: np.ndarray) -> np.ndarray:
    """The few features that a head judges by, (n, k); all of `vectors` where it has no step for them."""
    return pipeline["features"].transform(vectors) if "features" in pipeline.named_steps else vectors
