"""Names that a training on pictures of one's own takes from their folder."""

from __future__ import annotations

import re
from pathlib import Path

from training.recipe import PUBLISHED, SCRATCH, Recipe, load_recipe
from zoo import benchmarks
from zoo.data.registry import datasets
from zoo.sources.catalogue import own_folder

DEFAULT_RECIPE = "starter"  # where none is named
MAX_NAME = 60  # characters of the folder's name


def default_target(data: Path, recipe: Recipe) -> Path:
    """Folder of the entry where none is named: the folder's name, where the app lists it."""
    ending = next((end for end in (SCRATCH + PUBLISHED, SCRATCH, PUBLISHED) if recipe.id.endswith(end)), "")
    return own_folder() / f"{_slug(data)}{ending}"


def named_by_folder(recipe: Recipe, data: Path) -> Recipe:
    """The recipe with title, task and data set named by the folder, where they are those of the default recipe."""
    default = load_recipe(DEFAULT_RECIPE)
    name = _title(data)
    values = {}
    if recipe.title.startswith(default.title):
        changed = recipe.network.architecture != default.network.architecture
        network = recipe.network.architecture if changed else default.title.partition(", ")[2]
        values["title"] = f"{name}, {network}{recipe.title.removeprefix(default.title)}"
    if recipe.task == default.task:
        values["task"] = name
    settings = recipe.data
    if settings.name == default.data.name:
        settings = settings.model_copy(update={"name": _slug(data)})
    return recipe.model_copy(update={**values, "data": settings})


def _title(data: Path) -> str:
    """The folder's name in plain words."""
    words = re.sub(r"[^\w.,()+ -]+|_+", " ", data.resolve().name).split()
    return " ".join(words)[:MAX_NAME].strip() or "My cells"


def _slug(data: Path) -> str:
    """The folder's name as an entry's; never that of a published data set or benchmark."""
    slug = re.sub(r"[^a-z0-9]+", "-", data.resolve().name.lower())[:MAX_NAME].strip("-") or "my-cells"
    taken = slug in datasets() or f"{slug}-test" in benchmarks.names()
    return f"my-{slug}" if taken else slug
