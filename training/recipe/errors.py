"""Errors of recipes, and the sentences that pydantic's errors become."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

VALUE_ERROR = "Value error, "  # put by pydantic before a validator's own message


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the key and what to do."""


def explain(error: ValidationError, recipe: type[BaseModel]) -> str:
    """Describe a recipe's validation errors: the key of each and, where it is unknown, the nearest one there is."""
    return "; ".join(_explain(dict(item), recipe) for item in error.errors())


def nearest(word: str, choices: Sequence[str]) -> str:
    """Suggest the choice that is nearest to a word, or list all of them."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(choices)}."


def _explain(item: dict[str, Any], recipe: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        message = item["msg"].removeprefix(VALUE_ERROR)
        return f"{where}: {message[0].lower()}{message[1:]}" if where else message
    part: Any = recipe
    for step in item["loc"][:-1]:
        part = part if isinstance(step, int) else _model_in(part.model_fields[step].annotation)
    return f"unknown key {where}. {nearest(str(item['loc'][-1]), list(part.model_fields))}"


def _model_in(annotation: Any) -> Any:
    """The pydantic model that an annotation (Part, Part | None, list[Part]) holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(found for found in map(_model_in, get_args(annotation)) if found is not None) if annotation else None
