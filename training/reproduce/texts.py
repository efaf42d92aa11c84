"""Texts and targets of the generated tables, from `tables.toml` beside this file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from zoo.data.registry import parse_toml

FILE = Path(__file__).with_name("tables.toml")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(_Part):
    """A metric of a benchmark and the value to reach: at least, or at most where less is better."""

    benchmark: str
    metric: str
    title: str
    value: float
    at_most: bool = False


class Texts(_Part):
    """Start of the results page, title of each published system by its letter, and the champions' targets."""

    results: str
    systems: dict[str, str]
    targets: list[Target]


@cache
def texts() -> Texts:
    """Texts and targets of `tables.toml`. Raises DataError if it cannot be used."""
    return parse_toml(FILE, Texts, "the texts of tables")
