"""What does a model see in each picture of a data set? Its features as a table, one row a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from training.fit.classical import features_of, hidden_vectors
from training.prepare.dataset import TrainingDataError, prepare
from zoo.data import DataSet
from zoo.entry import Entry, EntryError
from zoo.files import atomic_path
from zoo.imaging.preprocess import preprocessor
from zoo.serving.heads import ClassicalHeadModel
from zoo.serving.loaded import load_model

SUFFIXES = (".csv", ".parquet")


def feature_table(entry: Entry, data: DataSet, device: torch.device) -> tuple[pd.DataFrame, Mapping[str, str]]:
    """Columns file, label and f1, f2, …: the few features of a classical head, or the vector before the last layer.

    With it, why pictures that have no row could not be read, by file. Raises EntryError if the entry cannot be loaded,
    TrainingDataError if no picture can be read.
    """
    config = entry.config
    if config is None or config.zoo.members:
        raise EntryError(f"{entry.id} is an ensemble, or broken; name one network.")
    model = load_model(entry)
    size = config.pretrained_cfg.input_size[1:]
    prepared = prepare(data, size, config.zoo.crop)
    prepare_one = preprocessor(config.pretrained_cfg.model_dump())
    vectors = hidden_vectors(model, prepare_one, np.asarray(prepared.pictures), device)
    if isinstance(model, ClassicalHeadModel):
        vectors = features_of(model.classifier, vectors)
    columns = [f"f{number}" for number in range(1, vectors.shape[1] + 1)]
    table = pd.DataFrame(vectors.astype(np.float32), columns=columns)
    table.insert(0, "file", [item.file for item in prepared.data.items])
    table.insert(1, "label", [item.label or "" for item in prepared.data.items])
    return table, prepared.unreadable


def write_features(path: Path, table: pd.DataFrame) -> None:
    """Write the table as CSV or Parquet, by the name's end. Raises TrainingDataError on another end."""
    if path.suffix not in SUFFIXES:
        raise TrainingDataError(f"{path.name} should end in {' or '.join(SUFFIXES)}.")
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False, float_format="%.6g")
        else:
            table.to_parquet(temporary, index=False, compression="zstd")
