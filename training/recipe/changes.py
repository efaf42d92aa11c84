"""Changes of a recipe by dotted key, as the command line's `--set key=value` gives them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any

from training.recipe.errors import RecipeError, default_value
from training.recipe.schema import UNDECISIVE, Recipe


def apply_change(content: dict[str, Any], change: str) -> None:
    """Make one change, "key=value", in a recipe's content. Raises RecipeError if it is not of that form."""
    key, equals, text = change.partition("=")
    if not equals:
        raise RecipeError(f"{change!r} is no change. Write key=value, as in optimizer.lr=0.01.")
    set_key(content, key.strip(), _parse(text.strip()))


def set_key(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; tables and lists on the way are copied, so that nothing shared is changed."""
    first, dot, rest = key.partition(".")
    if not dot:
        content[first] = value
        return
    inner = content.get(first)
    number, _, deeper = rest.partition(".")
    if isinstance(inner, list) and number.isdigit() and int(number) < len(inner):
        items = list(inner)
        items[int(number)] = _with(items[int(number)], deeper, value) if deeper else value
        content[first] = items
        return
    content[first] = _with(inner, rest, value)


def differences(made: Recipe, named: Recipe) -> list[str]:
    """List what must be set to get from `named` to `made`, each as `--set` takes it; texts, `step` and ids are ignored.

    A value that was set in `named` and is none in `made` cannot be expressed so, and is left out.
    """
    before, after = (
        _leaves(recipe.model_dump(mode="json", exclude={**UNDECISIVE, "id": True, "step": True}))
        for recipe in (named, made)
    )
    return as_set({key: value for key, value in after.items() if value is not None and before.get(key) != value})


def changed_values(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the keys in which two fingerprints of recipes differ, as in "seed: 0 before, 1 now"."""
    old, new = (_leaves(_numbered(dict(content))) for content in (before, after))
    keys = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key) or (key in old) != (key in new)]
    told = [[_told(content, key) for content in (old, new)] for key in keys]
    return [f"{key}: {before} before, {now} now" for key, (before, now) in zip(keys, told, strict=True)]


def _told(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key, default_value(Recipe, key))
    return "none" if value is None else _inline(value)


def _numbered(value: Any) -> Any:
    """A value in which lists of tables are tables by number, so that each of their keys is named."""
    if isinstance(value, dict):
        return {key: _numbered(part) for key, part in value.items()}
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return {str(number): _numbered(part) for number, part in enumerate(value)}
    return value


def as_set(values: Mapping[str, Any]) -> list[str]:
    """Format values by dotted key as `--set` and `load_recipe` take them."""
    return [f"{key}={_inline(value)}" for key, value in values.items()]


def _leaves(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Values by dotted key; a list is one value."""
    leaves: dict[str, Any] = {}
    for key, value in content.items():
        leaves |= _leaves(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return leaves


def _inline(value: Any) -> str:
    """A value as TOML in one line; what is none is left out of tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_inline(part)}" for key, part in value.items() if part is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(part) for part in value) + "]"
    return json.dumps(value)


def _with(table: Any, key: str, value: Any) -> dict[str, Any]:
    copy = dict(table) if isinstance(table, dict) else {}
    set_key(copy, key, value)
    return copy


def _parse(text: str) -> Any:
    """A value as TOML writes it; a bare word is a string."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text
