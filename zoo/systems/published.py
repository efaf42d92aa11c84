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

    `scores` are by name of our metrics; of a model that answers to one-hot labels, accuracy is subset accuracy.
    `shifted` compares two parts of one data set, as shares.
    """

    id: str
    network: str
    reported: str
    scores: dict[str, float] = {}
    one_hot: bool = Field(False, description="Whether it was fitted on one-hot labels, and scored by such answers")
    shifted: dict[str, float] = {}
    start: Literal["published", "pretrained"] = Field(
        description="published: from random weights by its authors too; pretrained: from ImageNet weights"
    )
    missing: str = Field("", description="Why it has no figure under the leak-free protocol")


class Wish(_Part):
    """A further model that the authors of a system wished for, or named as an alternative, without a figure.

    Attributes:
        wish: What it is.
        id: Recipe and entry.
        base: Recipe and entry of the system that it is to improve on.
        missing: Why it has no figure yet.
    """

    wish: str
    id: str
    base: str
    missing: str = ""


class PublishedSystem(_Part):
    """A published system with its networks, in the order of the publication."""

    letter: str
    title: str
    data: str
    pictures: str = Field(description="Benchmark whose thumbnails show the classes")
    about: str
    warning: str = ""
    models: tuple[PublishedModel, ...]
    wishes: tuple[Wish, ...] = ()


@cache
def published_systems() -> Mapping[str, PublishedSystem]:
    """The systems by their letters. Raises ValueError if the table names an unknown metric."""
    content = tomllib.loads(FILE.read_text(encoding="utf-8"))
    found = {letter: PublishedSystem(letter=letter, **table) for letter, table in content.items()}
    names = {name for system in found.values() for model in system.models for name in model.scores}
    if unknown := sorted(names - set(METRICS)):
        raise ValueError(f"{FILE.name}: there is no metric {unknown[0]!r}.")
    return found
