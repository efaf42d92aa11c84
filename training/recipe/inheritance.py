"""Inheritance of recipe files: a file's keys over those of the file that it names under `inherit`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.recipe.errors import RecipeError
from training.recipe.versions import upgrade

INHERIT = "inherit"


def read_inherited(path: Path, folder: Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a recipe file with all that it inherits, from files beside it or in `folder`.

    Args:
        path: The TOML file.
        folder: Folder of the shipped recipes.
        seen: Files that led here, to notice circles.

    Returns:
        The content, of the current recipe version.

    Raises:
        RecipeError: A file is missing, is not TOML, inherits itself or uses a removed option.
    """
    content = _read(path, seen)
    parent = content.pop(INHERIT, None)
    try:
        content = upgrade(content)
    except RecipeError as error:
        raise RecipeError(f"{path.name}: {error}") from error
    if parent is None:
        return content
    if path.stem in seen:
        raise RecipeError(f"{path.name} inherits itself, by way of {', '.join(seen)}.")
    beside = path.parent / f"{parent}.toml"
    place = beside if beside.is_file() else folder / f"{parent}.toml"
    return merged(read_inherited(place, folder, (*seen, path.stem)), content)


def _read(path: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{seen[-1]} inherits {path.stem!r}, which is not in {path.parent}.") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name} is not valid TOML: {error}.") from error


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` over `base`: tables key by key, all else whole."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merged(base[key], value) if both else value
    return result
