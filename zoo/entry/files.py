"""File names of an entry, size limits, and strict JSON reading."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from zoo.limits import JSON_MB

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
HEAD = "head.skops"  # a classical classifier in place of the last layer
NEIGHBOURS = "neighbours.parquet"  # the training pictures behind a k-nearest-neighbours head
OOD_STATISTICS = "gate.safetensors"  # what out-of-distribution distances are computed from
EVIDENCE = "acceptance.parquet"  # answers in laboratories that limits of acceptance were chosen by
DECIDING = "d:"  # prefix of its columns with the probabilities of an ensemble's deciding member
EVALUATION = "evaluation.json"
PREDICTIONS = "predictions"  # folder of one parquet table per benchmark
HISTORY = "history.json"  # training curves, one record per epoch
CARD = "README.md"

ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,192}$")
MAX_CARD_BYTES = 2_000_000

Part = TypeVar("Part", bound=BaseModel)


class EntryError(ValueError):
    """An entry that cannot be used; the message is a sentence for the user."""


def predictions_file(benchmark: str) -> str:
    """Path of a benchmark's prediction table, relative to the entry's folder."""
    return f"{PREDICTIONS}/{benchmark}.parquet"


def read_json(path: Path) -> Any:
    """Read a JSON file of limited size.

    Raises:
        EntryError: The file is missing, too large, unreadable or not JSON.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= JSON_MB.bytes else ""
    except FileNotFoundError as error:
        raise EntryError(f"{path.name} is missing.") from error
    except OSError as error:
        raise EntryError(f"{path.name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise EntryError(f"{path.name} is not valid JSON: it is no text.") from error
    if size > JSON_MB.bytes:
        raise EntryError(f"{path.name} is larger than {JSON_MB.value} MB.")
    try:
        return json.loads(text)
    # also raised for undamaged files: Python refuses integers of more than 4300 digits
    except (ValueError, RecursionError) as error:
        raise EntryError(f"{path.name} is not valid JSON: {str(error).splitlines()[0]}.") from error


def parse(path: Path, kind: type[Part]) -> Part:
    """Read a JSON file and check it against a pydantic model.

    Raises:
        EntryError: The file cannot be read or does not match; the message names the first wrong field.
    """
    value = read_json(path)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise EntryError(f"{path.name}: {first_error(error)}.") from error


def first_error(error: ValidationError) -> str:
    """The first problem that pydantic found, with its place and the number of further problems."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where + ': ' if where else ''}{first['msg']}{more}"
