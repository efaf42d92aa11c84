"""Data sets that the app offers: those the operator names. A visitor can never name a folder of the server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from zoo.data import DataError, DataSet, read_dataset

VARIABLE = "HEMAZOO_DATASETS"


def offered_folders(environment: Mapping[str, str] | None = None) -> list[Path]:
    """The folders and files named in HEMAZOO_DATASETS."""
    named = (environment if environment is not None else os.environ).get(VARIABLE, "")
    return [Path(part) for part in named.split(os.pathsep) if part]


def list_offered(environment: Mapping[str, str] | None = None) -> list[tuple[Path, DataSet | str]]:
    """Every data set named in HEMAZOO_DATASETS, or the sentence why it cannot be read."""
    return [(folder, _read_or_reason(folder)) for folder in offered_folders(environment)]


def _read_or_reason(folder: Path) -> DataSet | str:
    try:
        return read_dataset(folder)
    except DataError as error:
        return str(error)
