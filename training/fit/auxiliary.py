"""What else is known of a cell, learnt beside its kind: the shape of its nucleus, its granules, its stage.

A network gets outputs for every attribute while it trains, and loses them at the end: entries tell the kind alone.
Attributes of PBC's cells: WBCAtt (Tsutsui, Pang & Wen 2023, NeurIPS Datasets and Benchmarks, arXiv:2306.13531), and
what their files' names begin with: BNE and SNE are band and segmented neutrophils, PMY, MY and MMY the stages of
immature granulocytes.
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

from training.prepare.dataset import TrainingDataError
from training.recipe import Attributes, RecipeError

NAME = "img_name"
NOT_ATTRIBUTES = (NAME, "label", "path")  # columns that tell something else
UNKNOWN = -1
_LETTERS = re.compile(r"[^\W\d_]+")


def read_known(wanted: Attributes, data: Path, files: Sequence[str]) -> np.ndarray | None:
    """What a recipe wants to be learnt of each file beside its kind, int64 (files, attributes), -1 where unknown.

    Tables are looked for from the folder `data`. None where names are asked and tell nothing. Raises TrainingDataError
    if a table tells nothing of any file.
    """
    found = [read_attributes(data / wanted.folder, files)] if wanted.folder else []
    if wanted.names and (names := read_names(files)) is not None:
        found.append(names)
    return np.concatenate(found, axis=1) if found else None


def read_names(files: Sequence[str]) -> np.ndarray | None:
    """Numbers of the letters that each file's name begins with (files, 1), int64, -1 where it begins with none.

    None if that tells no file from another, as in a data set of other names.
    """
    begun = [_LETTERS.match(PurePosixPath(file).name) for file in files]
    found = pd.Categorical([letters and letters[0].upper() for letters in begun])
    return found.codes.astype(np.int64)[:, None] if len(found.categories) > 1 else None


def read_attributes(folder: Path, files: Sequence[str]) -> np.ndarray:
    """Numbers of each file's attributes (files, attributes), int64, -1 where nothing is known.

    A file is known by its name without folders. Raises TrainingDataError if there is no table, or none of the files is
    in one.
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
    found = numbers.reindex([PurePosixPath(file).name for file in files]).fillna(UNKNOWN).to_numpy(np.int64)
    if (found == UNKNOWN).all():
        raise TrainingDataError(f"No training picture is named in the tables in {folder}.")
    return found


def choices(known: np.ndarray | None) -> list[int]:
    """How many values each attribute takes."""
    return [] if known is None else [int(number) + 1 for number in known.max(0)]


def widen(model: nn.Module, outputs: int) -> None:
    """Add outputs to a timm network's classifier, the others as they are.

    Raises RecipeError if its classifier is not one linear layer.
    """
    if outputs:
        own = _classifier(model)
        wide = nn.Linear(own.in_features, own.out_features + outputs)
        with torch.no_grad():
            nn.init.zeros_(wide.bias)
            nn.init.trunc_normal_(wide.weight, std=0.01)
            wide.weight[: own.out_features], wide.bias[: own.out_features] = own.weight, own.bias
        _put(model, wide)


def narrow(model: nn.Module, outputs: int) -> None:
    """Leave the first `outputs` of a timm network's classifier."""
    own = model.get_classifier() if hasattr(model, "get_classifier") else None
    if not isinstance(own, nn.Linear) or own.out_features <= outputs:
        return
    less = nn.Linear(own.in_features, outputs)
    with torch.no_grad():
        less.weight.copy_(own.weight[:outputs])
        less.bias.copy_(own.bias[:outputs])
    _put(model, less)


class Loss:
    """Mean log loss of the attributes that are known, times the recipe's weight."""

    def __init__(self, kinds: int, choices: Sequence[int], wanted: Attributes | None) -> None:
        self.kinds, self.choices = kinds, list(choices)
        self.weight = wanted.weight if wanted else 0.0

    def __call__(self, outputs: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Outputs (B, kinds + all choices) and attributes (B, attributes) → a scalar, 0 where nothing is known."""
        parts = outputs[:, self.kinds :].split(self.choices, 1)
        losses = [
            functional.cross_entropy(part, column, ignore_index=UNKNOWN, reduction="sum")
            for part, column in zip(parts, known.unbind(1), strict=True)
        ]
        # over all pictures: those without attributes say nothing, and none weighs more for their lack
        return self.weight * torch.stack(losses).mean() / len(outputs)


def _classifier(model: nn.Module) -> nn.Linear:
    found = model.get_classifier() if hasattr(model, "get_classifier") else None
    if not isinstance(found, nn.Linear):
        raise RecipeError("attributes need a network whose classifier is one linear layer, as EfficientNet's.")
    return found


def _put(model: nn.Module, layer: nn.Linear) -> None:
    """`layer` in the place of the classifier."""
    own = model.get_classifier()
    name = next(name for name, module in model.named_modules() if module is own)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
