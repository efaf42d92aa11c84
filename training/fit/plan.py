"""Sentences on what a training does: before it begins, and on the model card."""

from __future__ import annotations

from collections.abc import Mapping

from training.backbones.table import backbones
from training.fit.batches import divide
from training.fit.processor.forecast import Forecast
from training.recipe import Recipe, Stage
from zoo.progress import duration

START = {"imagenet": "ImageNet weights", "none": "random weights"}


def describe_plan(recipe: Recipe, pictures: Mapping[str, int], seconds_a_picture: float | None = None) -> str:
    """Say what a training will do, and about how long it takes.

    Args:
        recipe: What is trained.
        pictures: Number of pictures of each side of the split.
        seconds_a_picture: Of a training step, where it is known.
    """
    height, width = recipe.network.input_size
    stages = ", then ".join(
        f"{stage.epochs} epoch{'s' if stage.epochs > 1 else ''} of {trained_layers(stage)} at a learning rate of "
        f"{stage.lr or recipe.optimizer.lr:g}"
        for stage in recipe.all_stages
    )
    runs = f"{recipe.schedule.runs} times, whose weights are averaged: " if recipe.schedule.runs > 1 else ""
    batch = max(divide(pictures["train"], recipe.schedule.batch_size))
    text = (
        f"Training {recipe.network.architecture} from {start_weights(recipe)} on {pictures['train']:,} pictures of "
        f"{len(recipe.labels)} classes, {height}×{width} pixels: {runs}{stages}, in batches of {batch}. "
        f"{pictures['val']:,} pictures choose the best epoch, {pictures['test']:,} are scored once at the end."
    )
    seconds = Forecast.of(recipe, pictures, seconds_a_picture, recipe.schedule.runs - 1).seconds
    return text if seconds is None else f"{text} About {duration(seconds)} in all."


def start_weights(recipe: Recipe) -> str:
    """Phrase naming the weights that a training starts from."""
    known = {one.architecture: one for one in backbones().values()}
    if recipe.network.weights == "packaged" and recipe.network.architecture in known:
        backbone = known[recipe.network.architecture]
        return f"the weights of {backbone.origin}, trained before on {backbone.trained}"
    return START.get(recipe.network.weights, f"the weights of {recipe.network.weights}")


def trained_layers(stage: Stage) -> str:
    """Phrase naming the layers that a stage of the training changes."""
    if isinstance(stage.train, str):
        return {"all": "all layers", "head": "the head"}[stage.train]
    return f"the head and {', '.join(stage.train)}"
