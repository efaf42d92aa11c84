"""Recipes: what is trained, on which data and how."""

from training.recipe.changes import as_set, changed_values, differences
from training.recipe.errors import RecipeError
from training.recipe.load import FOLDER, PUBLISHED, SCRATCH, load_recipe, read_recipe, recipe_ids
from training.recipe.schema import (
    Attributes,
    Augment,
    Balance,
    Clean,
    Head,
    Metric,
    Model,
    Recipe,
    Schedule,
    Stage,
    pretrained_cfg,
)
from training.recipe.versions import SCHEMA_VERSION

__all__ = [
    "FOLDER",
    "PUBLISHED",
    "SCHEMA_VERSION",
    "SCRATCH",
    "Attributes",
    "Augment",
    "Balance",
    "Clean",
    "Head",
    "Metric",
    "Model",
    "Recipe",
    "RecipeError",
    "Schedule",
    "Stage",
    "as_set",
    "changed_values",
    "differences",
    "load_recipe",
    "pretrained_cfg",
    "read_recipe",
    "recipe_ids",
]
