"""The published systems as `published.toml` describes them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from zoo.scores.metrics import METRICS

FILE = Path(__file__).with_name("published.toml")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedModel(_Part):
    """One network of a published system, and what its authors reported.

    `scores` are by name of our metrics. `shifted` compares two parts of one data set, as shares.
    """

    id: str
    network: str
    reported: str
    scores: dict[str, float] = {}
    shifted: dict[str, float] = {}
    start: Literal["published", "pretrained"] = Field(
        description="published: from random weights by its authors too; pretrained: from ImageNet weights"
    )
    missing: str = Field("", description="Why it has no figure under the leak-free protocol")


class PublishedSystem(_Part):
    """A published system with its networks, in the order of the publication."""

    letter: str
    title: str
    data: str
    about: str
    warning: str = ""
    models: tuple[PublishedModel, ...]


@cache
def published_systems() -> Mapping[str, PublishedSystem]:
    """The systems by their letters. Raises ValueError if the table names an unknown metric."""
    content = tomllib.loads(FILE.read_text(encoding="utf-8"))
    found = {letter: PublishedSystem(letter=letter, **table) for letter, table in content.items()}
    names = {name for system in found.values() for model in system.models for name in model.scores}
    if unknown := sorted(names - set(METRICS)):
        raise ValueError(f"{FILE.name}: there is no metric {unknown[0]!r}.")
    return found
