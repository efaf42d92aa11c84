"""Loading of recipes, by id or from a file. A recipe is one TOML file of `training/recipes/`.

A recipe may `inherit` another file of its folder and change some keys, and the command line may change more. Files
whose name begins with an underscore are only inherited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.recipe.changes import apply_change, set_key
from training.recipe.errors import RecipeError, explain, nearest
from training.recipe.inheritance import read_inherited
from training.recipe.schema import Recipe

FOLDER = Path(__file__).parents[1] / "recipes"
SCRATCH = "_scratch"  # end of the id of a recipe that begins with random weights for want of pretrained ones
PUBLISHED = "_as_published"  # end of the id of a recipe trained under the published protocol


def recipe_ids() -> list[str]:
    """Ids of all shipped recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml") if not path.stem.startswith("_"))


def load_recipe(name: str, changes: Sequence[str] = (), published: bool = False, scratch: bool = False) -> Recipe:
    """Load a recipe with inherited keys filled in and changes made.

    Args:
        name: A recipe's id, or the path of a TOML file.
        changes: Changes, each "key=value" as `--set` takes it.
        published: Take the published protocol (the recipe's table `published`).
        scratch: Begin with random weights, with nothing frozen.

    Returns:
        The recipe; `published` and `scratch` each add an end to its id.

    Raises:
        RecipeError: There is no such recipe, it is not TOML, a key is unknown (the nearest is named), a value is wrong,
            or it uses an option that this version no longer has.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise RecipeError(f"There is no recipe {name!r}. {nearest(name, recipe_ids())}")
    content = read_inherited(path, FOLDER)
    if scratch:
        content = _from_scratch(content)
    if published:
        for key, value in content.get("published", {}).items():
            set_key(content, key, value)
        content["id"] = f"{content.get('id')}{PUBLISHED}"
        content["title"] = f"{content.get('title')} (published protocol)"
    for change in changes:
        apply_change(content, change)
    _refuse_keys_beside_stages(content, changes)
    return read_recipe(content, path.name)


def _refuse_keys_beside_stages(content: Mapping[str, Any], changes: Sequence[str]) -> None:
    """Raise RecipeError if a change sets the epochs or the rate of a recipe whose stages all have their own."""
    stages = content.get("stages") or []
    changed = {change.partition("=")[0].strip() for change in changes}
    for key, own, option in (("schedule.epochs", "epochs", "--epochs"), ("optimizer.lr", "lr", "--lr")):
        if key in changed and stages and all(isinstance(stage, Mapping) and own in stage for stage in stages):
            keys = " and ".join(f"stages.{number}.{own}" for number in range(len(stages)))
            raise RecipeError(
                f"{key} changes nothing here, because {content.get('id')} trains in stages: set {keys}, or all of them "
                f"with {option}, or stages=[] to train all at once."
            )


def read_recipe(content: Mapping[str, Any], origin: str) -> Recipe:
    """Check a recipe's keys and values, as embedded in an entry's config.json.

    Args:
        content: The keys, of any recipe version.
        origin: Where it comes from, named in errors.

    Raises:
        RecipeError: A key is unknown, a value is wrong, or an option or version is none of this HemaZoo's.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{origin}: {explain(error, Recipe)}") from error


def _from_scratch(content: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with random weights, nothing frozen that was never trained; an ensemble with members of this kind."""
    ends = {"id": f"{content.get('id')}{SCRATCH}", "title": f"{content.get('title')} (from random weights)"}
    if "ensemble" in content:
        members = [f"{member}{SCRATCH}" for member in content["ensemble"].get("members", [])]
        return {**content, "ensemble": {**content["ensemble"], "members": members}, **ends}
    stages = [{**stage, "train": "all"} for stage in content.get("stages", [])]
    model = {**content.get("model", {}), "weights": "none"}
    return {**content, "model": model, "stages": stages, **ends}
