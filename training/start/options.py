"""Options with the usual names (`--epochs`, `--lr`, …), translated into changes of a recipe's keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from training.recipe import Recipe, RecipeError, as_set, load_recipe

SIDE_STEP = 8  # pixels: sides of a stage's own input are multiples of it


@dataclass(frozen=True)
class Usual:
    """Values of the options that most training programs have; None leaves the recipe's.

    Attributes:
        epochs: Epochs of all stages together.
        batch_size: Pictures of a batch.
        lr: Learning rate; where stages have their own, the highest of them.
        seed: Seed of the split, the start weights and the training.
        input_size: Height and width of the network's input, in pixels.
        model: The network, as timm names it, or one of ours.
    """

    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int | None = None
    input_size: tuple[int, int] | None = None
    model: str | None = None


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of "96", "96x128" or "96,128". Raises ValueError if it is neither."""
    found = re.fullmatch(r"\s*(\d+)\s*(?:[x×,]\s*(\d+)\s*)?", text)
    if not found:
        raise ValueError(f"{text!r} is no size: write 96, or height and width as 96x128")
    return int(found[1]), int(found[2] or found[1])


def load_changed(
    name: str, changes: Sequence[str] = (), usual: Usual | None = None, published: bool = False, scratch: bool = False
) -> Recipe:
    """Load a recipe with changes of its keys and with usual options, which come last.

    Raises:
        RecipeError: As `load_recipe`, or an option does not fit the recipe.
    """
    recipe = load_recipe(name, changes, published, scratch)
    more = _changes(recipe, usual or Usual())
    return load_recipe(name, [*changes, *more], published, scratch) if more else recipe


def _changes(recipe: Recipe, usual: Usual) -> list[str]:
    """The usual options as changes of a recipe, as `--set` takes them."""
    values: dict[str, object] = {}
    if usual.model is not None:
        values["model.architecture"] = usual.model
    if usual.seed is not None:
        values["seed"] = usual.seed
    if usual.batch_size is not None:
        values["schedule.batch_size"] = usual.batch_size
    if usual.epochs is not None:
        values |= _epochs(recipe, usual.epochs)
    if usual.lr is not None:
        values |= _rates(recipe, usual.lr)
    if usual.input_size is not None:
        values |= _sizes(recipe, usual.input_size)
    if values and recipe.model is None:
        raise RecipeError(f"{recipe.id} is an ensemble: it is not trained, and {', '.join(values)} change nothing.")
    return as_set(values)


def _epochs(recipe: Recipe, epochs: int) -> dict[str, object]:
    """Epochs of the whole training, shared among its stages as the recipe shares them."""
    if not recipe.stages:
        return {"schedule.epochs": epochs}
    count = len(recipe.stages)
    if epochs < count:
        raise RecipeError(f"{recipe.id} trains in {count} stages: give at least {count} epochs, or --set stages=[].")
    shares = [stage.epochs * epochs / recipe.epochs for stage in recipe.stages]
    given = [max(1, int(share)) for share in shares]
    # what rounding left over, or took too much of, where it matters least
    while sum(given) != epochs:
        step = 1 if sum(given) < epochs else -1
        pairs = zip(shares, given, strict=True)
        gaps = [step * (share - own) if own + step > 0 else -float("inf") for share, own in pairs]
        given[gaps.index(max(gaps))] += step
    return {f"stages.{number}.epochs": own for number, own in enumerate(given)}


def _rates(recipe: Recipe, lr: float) -> dict[str, object]:
    """Learning rates of optimiser and stages, in the recipe's proportions, with `lr` as the highest that is used."""
    base = recipe.optimizer.lr
    factor = lr / max(stage.lr or base for stage in recipe.all_stages)
    stages: dict[str, object] = {
        f"stages.{n}.lr": _rounded(stage.lr * factor) for n, stage in enumerate(recipe.stages) if stage.lr
    }
    every = bool(stages) and len(stages) == len(recipe.stages)
    return stages if every else {"optimizer.lr": _rounded(base * factor), **stages}


def _rounded(rate: float) -> float:
    return float(f"{rate:.6g}")


def _sizes(recipe: Recipe, size: tuple[int, int]) -> dict[str, object]:
    """Input of the network and of stages with their own, and the size of stored pictures where it is too small."""
    before = recipe.network.input_size
    factors = [new / old for new, old in zip(size, before, strict=True)]
    values: dict[str, object] = {"model.input_size": list(size)}
    if "input_size" in recipe.network.args:
        values["model.args.input_size"] = list(size)
    for number, stage in enumerate(recipe.stages):
        if stage.input_size:
            scaled = zip(stage.input_size, factors, strict=True)
            values[f"stages.{number}.input_size"] = [
                max(SIDE_STEP, SIDE_STEP * round(side * factor / SIDE_STEP)) for side, factor in scaled
            ]
    packed = [max(old, round(old * factor)) for old, factor in zip(recipe.data.packed, factors, strict=True)]
    if any(new > old for new, old in zip(size, recipe.data.packed, strict=True)):
        values["data.packed"] = packed
    return values
