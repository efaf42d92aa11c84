"""Kinds that a reader may give a cell, from `kinds.toml` and a laboratory's own file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.data.kinds import kind_of
from zoo.detection.objects import PLATELET, RED, RED_KIND, WHITE

FILE = Path(__file__).with_name("kinds.toml")
VARIABLE = "HEMAZOO_REVIEW_KINDS"  # a laboratory's own file
MAX_FILE_BYTES, MAX_LETTERS, MAX_DESCRIPTION = 100_000, 80, 300  # of a file, and of a kind's name and description
UNSURE, NO_CELL = "unsure", "not a cell"
NOT_TRAINED = frozenset((UNSURE,))  # kinds that make no training cells

Counted = Literal["white", "erythroblast", "red", "platelet", "none"]


class KindsError(ValueError):
    """A list of kinds that cannot be used; the message is a sentence for the owner."""


class Kind(BaseModel):
    """A kind; see `kinds.toml` for the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(max_length=MAX_LETTERS)
    title: str = ""
    short: str = Field(max_length=4)
    key: str = Field(default="", pattern="^[a-z0-9]?$")
    counted: Counted = "white"
    colour: str = Field(default="#7A7F87", pattern="^#[0-9A-Fa-f]{6}$")
    normal: tuple[float, float] | None = None
    source: str = Field(default="", max_length=MAX_DESCRIPTION)
    description: str = Field(default="", max_length=MAX_DESCRIPTION)


def kinds() -> Mapping[str, Kind]:
    """All kinds by name, in the order of the files.

    Raises:
        KindsError: The laboratory's own file cannot be read, or two kinds have one key.
    """
    return _read(os.environ.get(VARIABLE, ""))


def kind_named(label: str) -> Kind:
    """The kind that a label means; one that is counted as a white cell where the list does not know it."""
    return _named(label, os.environ.get(VARIABLE, ""))


def title_of(label: str) -> str:
    """A label written out for people."""
    kind = kind_named(label)
    return kind.title or kind.name


def kind_of_object(name: str) -> str | None:
    """Kind of an object that no classifier names; None for white cells."""
    return {RED: RED_KIND, PLATELET: PLATELET, WHITE: None}.get(name)


@lru_cache(maxsize=1000)
def _named(label: str, own: str) -> Kind:
    known = _read(own)
    name = label if label in known else kind_of(label)
    return known.get(name or "") or Kind(name=label[:MAX_LETTERS], short=label[:3].upper())


@lru_cache(maxsize=8)
def _read(own: str) -> Mapping[str, Kind]:
    found = _parse(FILE)
    if own:
        found |= _parse(Path(own).expanduser())
    keys: dict[str, str] = {}
    for kind in found.values():
        if kind.key and keys.setdefault(kind.key, kind.name) != kind.name:
            raise KindsError(f"{own or FILE}: {kind.name} and {keys[kind.key]} have the same key, {kind.key!r}.")
    return MappingProxyType(found)


def _parse(path: Path) -> dict[str, Kind]:
    try:
        with path.open("rb") as file:
            content = tomllib.loads(file.read(MAX_FILE_BYTES).decode("utf-8"))
        return {name: Kind(name=name, **table) for name, table in content.items()}
    except OSError as error:
        raise KindsError(f"{path} cannot be read: {error.strerror}. Correct {VARIABLE}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
        raise KindsError(f"{path} is no list of kinds: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = " ".join(map(str, first["loc"]))
        raise KindsError(f"{path}: {place}: {first['msg']}.") from error
