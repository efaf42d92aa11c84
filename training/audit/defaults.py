"""Defaults of audits, from `defaults.toml` beside this file."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

DEFAULTS = Path(__file__).with_name("defaults.toml")


@cache
def default_embedder() -> str:
    """Id of the zoo's model whose features an audit compares."""
    return str(tomllib.loads(DEFAULTS.read_text(encoding="utf-8"))["embedder"])
