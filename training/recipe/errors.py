"""Errors of recipes, and the sentences that pydantic's errors become."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

VALUE_ERROR = "Value error, "  # put by pydantic before a validator's own message


# other words for keys, as other programs call them
SYNONYMS = {
    **dict.fromkeys(("learning_rate", "base_lr", "rate"), "optimizer.lr"),
    **dict.fromkeys(("batch", "bs", "batchsize"), "schedule.batch_size"),
    **dict.fromkeys(("num_epochs", "max_epochs"), "schedule.epochs"),
    **dict.fromkeys(("img_size", "image_size", "imgsz", "resolution", "size"), "model.input_size"),
    **dict.fromkeys(("arch", "backbone", "network"), "model.architecture"),
    **dict.fromkeys(("dropout", "drop_rate"), "model.args"),
    **dict.fromkeys(("pretrained", "init"), "model.weights"),
    **dict.fromkeys(("wd", "decay"), "optimizer.weight_decay"),
    **dict.fromkeys(("opt", "optim"), "optimizer.name"),
    **dict.fromkeys(("scheduler", "lr_schedule", "lr_scheduler", "sched"), "schedule.rate"),
    **dict.fromkeys(("patience", "early_stopping"), "schedule.stop_patience"),
    **dict.fromkeys(("amp", "dtype", "fp16", "bf16"), "schedule.precision"),
    **dict.fromkeys(("random_seed", "random_state"), "seed"),
}


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
    word = str(item["loc"][-1]).lower().replace("-", "_")
    keys = dict.fromkeys(_keys(recipe))
    elsewhere = SYNONYMS.get(word) or next((key for key in keys if key.rpartition(".")[2] == word), None)
    if elsewhere not in keys:
        return f"unknown key {where}. {nearest(word, list(part.model_fields))}"
    before, dot, _ = where.rpartition(".")
    name = str(elsewhere).rpartition(".")[2]
    return f"unknown key {where}. Did you mean {before + dot + name if name in part.model_fields else elsewhere!r}?"


def default_value(recipe: type[BaseModel], key: str) -> Any:
    """Default of a dotted key of a recipe; None if it has none."""
    part: Any = recipe
    *tables, name = [word for word in key.split(".") if not word.isdigit()]
    for table in tables:
        field = getattr(part, "model_fields", {}).get(table)
        part = _model_in(field.annotation) if field else None
    field = getattr(part, "model_fields", {}).get(name)
    return None if field is None or field.is_required() else field.get_default(call_default_factory=True)


def _keys(recipe: type[BaseModel]) -> Iterator[str]:
    """Dotted keys of a recipe, those of its tables included."""
    for name, field in recipe.model_fields.items():
        part = None if get_origin(field.annotation) in (list, dict) else _model_in(field.annotation)
        yield from (f"{name}.{key}" for key in part.model_fields) if part else (name,)


def _model_in(annotation: Any) -> Any:
    """The pydantic model that an annotation (Part, Part | None, list[Part]) holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for found in map(_model_in, get_args(annotation)) if found is not None), None)
