"""Which data sets may the app show? Those the operator names; a visitor can never name a folder of the server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from zoo.data import DataError, DataSet, read_dataset

VARIABLE = "HEMAZOO_DATASETS"


def places(environment: Mapping[str, str] | None = None) -> list[Path]:
    """The folders and files named in HEMAZOO_DATASETS."""
    named = (environment if environment is not None else os.environ).get(VARIABLE, "")
    return [Path(part) for part in named.split(os.pathsep) if part]


def list_datasets(environment: Mapping[str, str] | None = None) -> list[tuple[Path, DataSet | str]]:
    """Every data set named in HEMAZOO_DATASETS, or the sentence why it cannot be read."""
    return [(place, _try(place)) for place in places(environment)]


def _try(place: Path) -> DataSet | str:
    try:
        return read_dataset(place)
    except DataError as error:
        return str(error)
