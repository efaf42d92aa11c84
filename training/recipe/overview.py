"""Summaries of recipes: what `training recipes` prints."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

import zoo.architectures  # noqa: F401 (registers our own networks with timm)
from training.recipe import Recipe


def recipe_overview(recipe: Recipe) -> dict[str, Any]:
    """Summary of a recipe: id, system, title, task, parameters (None for ensembles) and the whole recipe."""
    return {
        "id": recipe.id,
        "system": recipe.system,
        "title": recipe.title,
        "task": recipe.task,
        "parameters": count_parameters(recipe),
        "recipe": recipe.model_dump(mode="json"),
    }


def count_parameters(recipe: Recipe) -> int | None:
    """Number of parameters of the recipe's network, 0 for raw pixels, None for an ensemble."""
    if recipe.model is None:
        return None
    classes = len(recipe.labels) or 2
    with torch.device("meta"):  # builds the network without allocating its weights
        network: Any = timm.create_model(recipe.model.timm_name, num_classes=classes, **recipe.model.timm_args)
    count = _size(network)
    if recipe.head:  # the classical head takes the classifier's place
        count -= _size(network.get_classifier())
    return count


def _size(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
