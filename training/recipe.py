"""What exactly is trained, and how? One TOML file a recipe under `training/recipes/`; unknown keys are refused."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FOLDER = Path(__file__).parent / "recipes"


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the key and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """Where the pictures are and how they are split."""

    name: str = Field(description="Short name of the data set, part of the benchmark's name")
    credit: str = Field(description="Source, authors and licence, printed on the card")
    labels: dict[str, str] = Field(min_length=2, description="Class folder → label")
    descriptions: dict[str, str] = {}
    split: Literal["stratified", "official", "grouped", "random"] = Field(
        "stratified",
        description="stratified: identical pixels stay together; grouped: all copies that an audit finds; official: "
        "the data set's own TEST; random: by image, leaky, to reproduce what others published",
    )
    originals: bool = Field(False, description="Pictures are augmented copies: group them by their source frame")
    val_fraction: float = Field(0.1, gt=0, lt=0.5)
    test_fraction: float = Field(0.15, gt=0, lt=0.5)
    packed: tuple[int, int] = Field(description="Height and width, in pixels, to which pictures are decoded once")


class Model(_Part):
    """Network and its input."""

    architecture: str
    weights: Literal["imagenet-package", "none"] = "none"
    input_size: tuple[int, int] = Field(description="Height and width in pixels")
    args: dict[str, Any] = {}
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"


class Optimizer(_Part):
    """Anything timm's `create_optimizer_v2` knows."""

    name: str = "adamw"
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_norm: float | None = Field(None, gt=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)


class Schedule(_Part):
    """Warm-up and cosine decay, stepped every batch."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    warmup_epochs: float = Field(0.5, ge=0)
    cosine: bool = True
    select: Literal["val_loss", "val_accuracy", "val_balanced_accuracy"] = Field(
        "val_loss", description="What chooses the best epoch, on validation alone; the log loss decides between equals"
    )


class Augment(_Part):
    """Random changes in training: degrees, fractions of the size, or factors around one."""

    horizontal_flip: bool = False
    vertical_flip: bool = False
    rotation: float = Field(0, ge=0, le=180)
    shift: float = Field(0, ge=0, lt=1)
    zoom: float = Field(0, ge=0, lt=1)
    shear: float = Field(0, ge=0, lt=90)
    brightness: float = Field(0, ge=0)
    contrast: float = Field(0, ge=0)
    saturation: float = Field(0, ge=0)
    hue: float = Field(0, ge=0, le=0.5)
    blur: float = Field(0, ge=0, description="Largest sigma in pixels of the packed picture")
    noise: float = Field(0, ge=0, description="Standard deviation, of a range of 0..1")
    mixup: float = Field(0, ge=0, description="Alpha of the beta distribution two pictures are mixed by")
    fill: tuple[int, int, int] = (0, 0, 0)


class Clean(_Part):
    """What is taken out of training, by an audit; the test set is never cleaned."""

    duplicates: Literal["keep", "pixel", "near"] = "keep"
    outliers: bool = False
    label_errors: bool = False
    contradictory: bool = Field(False, description="Cells that carry several labels")

    @property
    def needs_audit(self) -> bool:
        """Whether a rule asks what only a whole audit knows."""
        return self.outliers or self.label_errors or self.contradictory


class Balance(_Part):
    """How classes, and cells with many copies, are evened out in training."""

    class_weights: bool = Field(False, description="Weigh the loss inversely to the class's frequency")
    sample_weights: bool = Field(False, description="All copies of one source cell weigh as much as one picture")
    resample: Literal["none", "downsample", "oversample"] = "none"


class Recipe(_Part):
    """One trained model, from data to entry."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    summary: str = Field(description="One sentence: what the model is good at")
    task: str
    seed: int = 0
    data: Data
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    augment: Augment = Augment()
    clean: Clean = Clean()
    balance: Balance = Balance()

    @property
    def needs_cells(self) -> bool:
        """Whether a rule of training asks which pictures show one cell, beyond identical pixels."""
        return self.clean.duplicates == "near" or self.balance.sample_weights

    def fingerprint(self) -> str:
        """What decides the weights, as JSON: not the texts, and not what is left at its default."""
        texts = {"title": True, "summary": True, "task": True, "data": {"credit", "descriptions"}}
        return self.model_dump_json(exclude=texts, exclude_defaults=True)


def recipe_ids() -> list[str]:
    """Ids of all shipped recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """Recipe by id, or from a TOML file's path.

    Raises RecipeError if there is none, it is not TOML, a key is unknown (the nearest is named) or a value is wrong.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise RecipeError(f"There is no recipe {name!r}. {_nearest(name, recipe_ids())}")
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name} is not valid TOML: {error}.") from error
    except ValidationError as error:
        raise RecipeError(f"{path.name}: " + "; ".join(_explain(item) for item in error.errors())) from error


def _explain(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{where}: {item['msg'].lower()}"
    part: Any = Recipe
    for step in item["loc"][:-1]:
        part = part.model_fields[step].annotation
    return f"unknown key {where}. {_nearest(str(item['loc'][-1]), list(part.model_fields))}"


def _nearest(word: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(choices)}."
