"""Features of a data set's pictures as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from training.fit.networks.classical import features_of, hidden_vectors
from training.prepare.dataset import TrainingDataError, prepare
from zoo.data import DataSet
from zoo.entry import Entry, EntryError
from zoo.files import atomic_path
from zoo.imaging.preprocess import preprocessor
from zoo.serving.heads.network import ClassicalHeadModel
from zoo.serving.models.loading import load_model
from zoo.tables import to_csv

SUFFIXES = (".csv", ".parquet")


def feature_table(entry: Entry, data: DataSet, device: torch.device) -> tuple[pd.DataFrame, Mapping[str, str]]:
    """Features that a model computes of each picture.

    These are the selected features of a classical head, or the vector before a network's last layer.

    Args:
        entry: One model, not an ensemble.
        data: The pictures.
        device: Where the network runs.

    Returns:
        A table with the columns file, label, f1, f2, …, one row a readable picture, and file → reason for the pictures
        that could not be read.

    Raises:
        EntryError: The entry cannot be loaded.
        TrainingDataError: No picture can be read.
    """
    config = entry.config
    if config.zoo.members:
        raise EntryError(f"{entry.id} is an ensemble or cannot be read: name a single network.")
    model = load_model(entry)
    size = config.pretrained_cfg.input_size[1:]
    prepared = prepare(data, size, config.zoo.crop)
    prepare_one = preprocessor(config.pretrained_cfg.model_dump())
    vectors = hidden_vectors(model, prepare_one, np.asarray(prepared.pictures), device)
    if isinstance(model, ClassicalHeadModel):
        vectors = features_of(model.head.classifier, vectors)
    columns = [f"f{number}" for number in range(1, vectors.shape[1] + 1)]
    table = pd.DataFrame(vectors.astype(np.float32), columns=columns)
    table.insert(0, "file", [item.file for item in prepared.data.items])
    table.insert(1, "label", [item.label or "" for item in prepared.data.items])
    return table, prepared.unreadable


def write_features(path: Path, table: pd.DataFrame) -> None:
    """Write a table of features.

    Args:
        path: File to write; its suffix, .csv or .parquet, says the format.
        table: The features.

    Raises:
        TrainingDataError: The suffix is another one.
    """
    if path.suffix not in SUFFIXES:
        raise TrainingDataError(f"{path.name} must end in {' or '.join(SUFFIXES)}.")
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            temporary.write_text(to_csv(table, float_format="%.6g"), encoding="utf-8")
        else:
            table.to_parquet(temporary, index=False, compression="zstd")
