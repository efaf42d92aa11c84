"""Make entries for the zoo: data, splits, recipes, fitting, evaluation, publication. Imports zoo, never pages.

`training.train`, `audit`, `split`, `evaluate` and `adapt` are the commands of these names as functions.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

FUNCTIONS = ("train", "split", "evaluate", "adapt")


def __getattr__(name: str) -> Any:
    if name in FUNCTIONS:
        return getattr(import_module("training.api"), name)
    if name == "audit":  # a package that can be called
        return import_module("training.audit")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
