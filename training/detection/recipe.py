"""Recipes of detectors: TOML files in `training/recipes/detectors`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.recipe import RecipeError
from training.recipe.changes import apply_change
from training.recipe.errors import explain

FOLDER = Path(__file__).parents[1] / "recipes" / "detectors"
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(_Part):
    """Backbone by timm's name, and the channels of the pyramid."""

    backbone: str = "tf_efficientnet_lite0"
    width: int = Field(64, ge=8, le=512)
    pretrained: bool = True


class Data(_Part):
    """A data set of fields: how it is read, and the table that names the side of each."""

    set: str = ""
    layout: str = ""
    labels: dict[str, str] = {}
    sides: str = Field("", description="Name of a table in training/detection/tables; empty: the data set's own split")


class Crops(_Part):
    """Training crops: their side in pixels, and shares of them."""

    side: int = Field(256, ge=64, multiple_of=32)
    composites: Share = 0.35
    without_cells: Share = 0.05


class Schedule(_Part):
    """Length and rate of the training. The rate falls as a cosine after a linear warm-up; weights are averaged."""

    steps: int = Field(ge=1)
    batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(gt=0)
    warmup: int = Field(150, ge=0)
    weight_decay: float = Field(0.02, ge=0)
    average: float = Field(0.998, ge=0, lt=1)


class CloseUps(_Part):
    """A data set of pictures of one cell each: how many of a kind are used, and a benchmark whose pictures are not."""

    set: str
    per_kind: int = Field(ge=1)
    leave_out: str = ""


class Refinement(_Part):
    """A second training on top of the first one, in which close-ups are a share of the crops."""

    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    share: Share = 0.3


class DetectorRecipe(_Part):
    """A detector's recipe."""

    id: str
    title: str
    summary: str = ""
    seed: int = 1
    model: Network = Network()
    data: Data = Data()
    crops: Crops = Crops()
    schedule: Schedule
    close_ups: tuple[CloseUps, ...] = ()
    refinement: Refinement | None = None

    def refined(self) -> DetectorRecipe | None:
        """The recipe of the second training; None where there is none."""
        if self.refinement is None:
            return None
        changed = {"steps": self.refinement.steps, "learning_rate": self.refinement.learning_rate}
        return self.model_copy(update={"schedule": self.schedule.model_copy(update=changed)})


def detector_recipes() -> list[str]:
    """Ids of the shipped recipes of detectors, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_detector_recipe(name: str, changes: tuple[str, ...] = ()) -> DetectorRecipe:
    """Load a shipped recipe of a detector, with changes as `--set` takes them.

    Raises:
        RecipeError: There is none of this name, a key is unknown, or a value is wrong.
    """
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        raise RecipeError(f"There is no recipe of a detector called {name!r}: {', '.join(detector_recipes())}.")
    content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    for change in changes:
        apply_change(content, change)
    return read_detector_recipe(content, path.name)


def read_detector_recipe(content: Mapping[str, Any], origin: str) -> DetectorRecipe:
    """Check the keys and values of a recipe from `origin`. Raises RecipeError."""
    try:
        return DetectorRecipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{origin}: {explain(error, DetectorRecipe)}") from error
