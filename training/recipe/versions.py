"""Versions of the recipe format, and how recipes of earlier ones are read.

Published entries embed their recipe, and checkpoints what decides their weights: both keep loading, unless they use an
option that is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.recipe.errors import RecipeError

SCHEMA_VERSION = 2  # 1: recipes without schema_version
# options of version 1 that gained nothing (docs/lab-book.md) and are gone: table, key, value that switched it off
REMOVED_OPTIONS = (
    ("schedule", "keep_statistics", False),
    ("augment", "background", 0),
    ("augment", "mixstyle", 0),
)
REMOVED_ARCHITECTURES = ("efficientnet_lite0_gn",)


def upgrade(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a recipe of any known version to the current one; what was switched off anyway is dropped silently.

    Args:
        content: A recipe's keys, without `schema_version` in version 1.

    Returns:
        The keys with the current `schema_version`.

    Raises:
        RecipeError: The recipe uses a removed option, or a newer version wrote it.
    """
    version = content.get("schema_version", 1)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise RecipeError(
            f"the recipe was written in recipe version {version}, by a newer HemaZoo. This one reads versions up to "
            f"{SCHEMA_VERSION}: update it."
        )
    upgraded = {**content, "schema_version": SCHEMA_VERSION}
    if version < SCHEMA_VERSION:
        for table, key, off in REMOVED_OPTIONS:
            _drop(upgraded, table, key, off)
        model = content.get("model")
        if isinstance(model, Mapping) and model.get("architecture") in REMOVED_ARCHITECTURES:
            raise _removed(f"model.architecture={model['architecture']}")
    return upgraded


def _drop(content: dict[str, Any], table: str, key: str, off: Any) -> None:
    """Leave out a removed option; a table that held it is copied first."""
    options = content.get(table)
    if not isinstance(options, Mapping) or key not in options:
        return
    if options[key] != off:
        raise _removed(f"{table}.{key}={options[key]}")
    content[table] = {name: value for name, value in options.items() if name != key}


def _removed(option: str) -> RecipeError:
    return RecipeError(
        f"{option} is an option of recipe version 1 that version {SCHEMA_VERSION} no longer has. Leave it out, or use "
        "the HemaZoo that wrote the recipe (before version 0.1)."
    )
