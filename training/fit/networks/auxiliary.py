"""Attributes of cells, learnt by an auxiliary loss: shape of the nucleus, granules, stage.

The network has outputs for every attribute while it trains, and loses them at the end: entries predict the class alone.
Sources for PBC: WBCAtt (Tsutsui, Pang & Wen 2023, NeurIPS Datasets and Benchmarks, arXiv:2306.13531), and the letters
at the start of file names: BNE and SNE are band and segmented neutrophils, PMY, MY and MMY stages of immature
granulocytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from training.fit.networks.network import linear_classifier
from training.prepare.dataset import TrainingDataError
from training.recipe import Attributes, RecipeError

NAME = "img_name"  # column of file names in a table of attributes
NOT_ATTRIBUTES = (NAME, "label", "path")  # columns that hold something else
UNKNOWN = -1
START_STD = 0.01  # of the start weights of the attributes' outputs
_LETTERS = re.compile(r"[^\W\d_]+")


def read_known(wanted: Attributes, data: Path, files: Sequence[str]) -> np.ndarray | None:
    """Read the attributes that a recipe asks for.

    Args:
        wanted: The recipe's [attributes].
        data: Folder that holds the folder of tables.
        files: Names of the pictures.

    Returns:
        Numbers of the attributes' values, int64 (files, attributes), -1 where unknown; None if only names were asked
        for and they distinguish nothing.

    Raises:
        TrainingDataError: The tables cannot be read or name none of the files.
    """
    columns = [read_attributes(data / wanted.folder, files)] if wanted.folder else []
    if wanted.names and (names := read_names(files)) is not None:
        columns.append(names)
    return np.concatenate(columns, axis=1) if columns else None


def read_names(files: Sequence[str]) -> np.ndarray | None:
    """Number the letters at the start of each file name: int64 (files, 1), -1 where there are none.

    None if all names start alike, as in data sets with other names.
    """
    starts = [_LETTERS.match(PurePosixPath(file).name) for file in files]
    values = pd.Categorical([letters and letters[0].upper() for letters in starts])
    return values.codes.astype(np.int64)[:, None] if len(values.categories) > 1 else None


def read_attributes(folder: Path, files: Sequence[str]) -> np.ndarray:
    """Read each file's attributes from the CSV tables of a folder, by file name without folders.

    Returns:
        Numbers of the attributes' values, int64 (files, attributes), -1 where unknown.

    Raises:
        TrainingDataError: There is no table, it cannot be read, or it names none of the files.
    """
    tables = sorted(folder.glob("*.csv"))
    if not tables:
        raise TrainingDataError(f"There is no table of attributes (.csv) in {folder}.")
    try:
        joined = pd.concat([pd.read_csv(path, dtype=str) for path in tables], ignore_index=True)
    except (OSError, ValueError) as error:
        raise TrainingDataError(f"The attributes in {folder} cannot be read: {error}") from error
    if NAME not in joined:
        raise TrainingDataError(f"The tables in {folder} have no column {NAME}.")
    joined = joined.drop_duplicates(NAME).set_index(NAME)
    joined = joined.drop(columns=[name for name in NOT_ATTRIBUTES if name in joined])
    numbers = joined.apply(lambda column: pd.Categorical(column).codes)
    values = numbers.reindex([PurePosixPath(file).name for file in files]).fillna(UNKNOWN).to_numpy(np.int64)
    if (values == UNKNOWN).all():
        raise TrainingDataError(f"No training picture is named in the tables in {folder}.")
    return values


def choices(known: np.ndarray | None) -> list[int]:
    """Count the values of each attribute."""
    return [] if known is None else [int(number) + 1 for number in known.max(0)]


def widen(model: nn.Module, outputs: int) -> None:
    """Add `outputs` outputs to a timm network's classifier; the others stay as they are.

    Raises:
        RecipeError: The classifier is not one linear layer.
    """
    if not outputs:
        return
    own = linear_classifier(model)
    if own is None:
        raise RecipeError("attributes need a network whose classifier is one linear layer, as EfficientNet's.")
    wide = nn.Linear(own.in_features, own.out_features + outputs)
    with torch.no_grad():
        nn.init.zeros_(wide.bias)
        nn.init.trunc_normal_(wide.weight, std=START_STD)
        wide.weight[: own.out_features], wide.bias[: own.out_features] = own.weight, own.bias
    _replace(model, own, wide)


def narrow(model: nn.Module, outputs: int) -> None:
    """Keep the first `outputs` outputs of a timm network's classifier."""
    own = linear_classifier(model)
    if own is None or own.out_features <= outputs:
        return
    less = nn.Linear(own.in_features, outputs)
    with torch.no_grad():
        less.weight.copy_(own.weight[:outputs])
        less.bias.copy_(own.bias[:outputs])
    _replace(model, own, less)


class AttributeLoss:
    """Mean log loss of the known attributes, times the recipe's weight."""

    def __init__(self, classes: int, choices: Sequence[int], weight: float) -> None:
        self.classes, self.choices, self.weight = classes, list(choices), weight

    def __call__(self, outputs: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            outputs: (B, classes + all choices).
            known: Numbers of the attributes' values, int64 (B, attributes), -1 where unknown.

        Returns:
            A scalar, 0 where nothing is known.
        """
        parts = outputs[:, self.classes :].split(self.choices, 1)
        losses = [
            functional.cross_entropy(part, column, ignore_index=UNKNOWN, reduction="sum")
            for part, column in zip(parts, known.unbind(1), strict=True)
        ]
        # divided by all pictures: those without attributes add nothing, and the others weigh no more for it
        return self.weight * torch.stack(losses).mean() / len(outputs)


def _replace(model: nn.Module, own: nn.Linear, layer: nn.Linear) -> None:
    """Put `layer` in the place of `own`."""
    name = next(name for name, module in model.named_modules() if module is own)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
