"""What exactly is trained, and how? One TOML file a recipe under `training/recipes/`; unknown keys are refused.

A recipe may `inherit` another file of its folder and change some keys, and the command line may change more. Files
whose name begins with an underscore are there to be inherited only.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import timm
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import zoo.architectures  # noqa: F401 (registers our own networks with timm)

FOLDER = Path(__file__).parents[1] / "recipes"
INHERIT = "inherit"
SCRATCH = "_scratch"  # end of the id of what began with random weights for want of pretrained ones
PUBLISHED = "_as_published"  # end of the id of what was trained under the published protocol
# these add weight decay to the gradient, where it is L2 by another name and scaled by the optimiser
COUPLED = ("sgd", "momentum", "adam", "nadam", "radam", "rmsprop", "rmsproptf", "adamax", "adagrad")
# what says no more than what a recipe is: nothing that decides the weights
_TEXTS: dict[str, Any] = {
    **dict.fromkeys(("title", "summary", "task", "system", "reported", "notes", "published"), True),
    "data": {"credit", "descriptions"},
}


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the key and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))


class Data(_Part):
    """Where the pictures are and how they are split."""

    name: str = Field(description="Short name of the data set, part of the benchmark's name")
    credit: str = Field(description="Source, authors and licence, printed on the card")
    labels: dict[str, str] = Field({}, description="Class folder → label; none: every class of the data, as it is")
    descriptions: dict[str, str] = {}
    parts: list[str] = Field([], description="Official parts that are used (train, val, test); none: all")
    split: Literal["stratified", "official", "grouped", "random"] = Field(
        "stratified",
        description="stratified: identical pixels stay together; grouped: all copies that an audit finds; official: "
        "the data set's own TEST; random: by image, leaky, to reproduce what others published",
    )
    originals: bool = Field(False, description="Pictures are augmented copies: group them by their source frame")
    val_fraction: float = Field(0.1, gt=0, lt=0.5)
    test_fraction: float = Field(0.15, gt=0, lt=0.5)
    mix: dict[str, Annotated[int, Field(gt=0)]] = Field(
        {}, description="Laboratories (folders of --data) that are joined, and how many copies of a cell each gives"
    )
    left_out: str = Field(
        "", description="Laboratory of the mix whose pictures of training are not trained on but tested on; none: empty"
    )
    packed: tuple[int, int] = Field(description="Height and width, in pixels, to which pictures are decoded once")
    crop: Literal["none", "cell", "square", "alone"] = Field(
        "none",
        description="cell: cut out by system E's crop_cell first; square: a square around the cell, of one scale; "
        "alone: the same, with the empty slide in place of the cell's surroundings",
    )


class Model(_Part):
    """Network and its input."""

    architecture: str
    weights: str = Field(
        "none",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="imagenet; none: random; else the entry whose weights it begins with, of the same classes",
    )
    head: list[str] = Field(
        [], description="Layers between the features and the classes, as of zoo.architectures.transfer; none: own head"
    )
    input_size: tuple[int, int] = Field(description="Height and width in pixels")
    crop_pct: float = Field(1.0, gt=0.1, le=1, description="Share of the (square) picture's side that is seen")
    views: Literal[1, 2, 4, 8] = Field(1, description="Turned and mirrored views of a picture that are averaged")
    explanation_layer: str | None = Field(None, description="Layer that maps are made of; none: the last with a map")
    args: dict[str, Any] = {}
    mean: tuple[float, float, float] | None = Field(None, description="None: what the architecture expects")
    std: tuple[float, float, float] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    @property
    def begins_with_entry(self) -> bool:
        """Whether the weights to begin with are another entry's."""
        return self.weights not in ("imagenet", "none")

    @property
    def timm_name(self) -> str:
        """The network's name for `timm.create_model`."""
        return "transfer" if self.head else self.architecture

    @property
    def timm_args(self) -> dict[str, Any]:
        """Options for `timm.create_model`."""
        if not self.head:
            return self.args
        return {"backbone": self.architecture, "head": self.head, "input_size": list(self.input_size), **self.args}


class Optimizer(_Part):
    """Any optimiser timm's `create_optimizer_v2` knows."""

    name: str = "adamw"
    lr: float = Field(1e-3, gt=0)
    momentum: float | None = Field(None, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, description="Decoupled from the gradient (Loshchilov & Hutter 2019)")
    l2: float = Field(0.0, ge=0, description="Times the sum of squared weights (not biases, not norms), in the loss")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_norm: float | None = Field(None, gt=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _decoupled(self) -> Optimizer:
        if self.weight_decay and self.name in COUPLED:
            raise ValueError(f"{self.name} has no decoupled weight_decay; set l2, or choose adamw, sgdw or lion")
        return self


Metric = Literal["val_loss", "val_accuracy", "val_balanced_accuracy", "train_loss", "train_accuracy"]


class Schedule(_Part):
    """How long, in which portions, and how the learning rate goes."""

    epochs: int = Field(10, gt=0, description="Epochs of a recipe without stages")
    batch_size: int = Field(32, gt=0)
    accumulate: int = Field(1, gt=0, description="Parts a batch is run in, one after the other, to save memory")
    rate: Literal["constant", "cosine", "one_cycle", "plateau"] = "constant"
    warmup_epochs: float = Field(0.0, ge=0)
    plateau_metric: Metric = "val_loss"
    plateau_factor: float = Field(0.3, gt=0, lt=1)
    plateau_patience: int = Field(2, ge=0)
    select: Metric = Field(
        "val_loss", description="What chooses the best epoch, on validation alone; the log loss decides between equals"
    )
    stop_metric: Metric = "val_loss"
    stop_patience: int | None = Field(None, gt=0, description="Epochs without a better stop_metric before it ends")
    precision: Literal["bf16", "fp32"] = "bf16"
    channels_last: bool = True
    keep_statistics: bool = Field(
        False, description="Batch norm keeps the statistics of the weights it begins with; its scales are trained"
    )
    run: int = Field(
        0,
        ge=0,
        description="Which of several trainings on one split: order and changes of pictures are others",
    )
    runs: int = Field(1, gt=0, description="Trained that often from one start; the entry has the mean of their weights")
    compile: bool = False
    cache_features: bool = Field(True, description="A frozen backbone sees each picture once, its features are kept")
    views: int = Field(4, gt=0, description="Augmented views of each picture whose features are kept")


class Stage(_Part):
    """One stretch of training; what it leaves out is as in the recipe."""

    epochs: int = Field(gt=0)
    train: Literal["all", "head"] | list[str] = Field(
        "all",
        description="What is fitted: everything, what follows the backbone, or also modules by their name's start",
    )
    lr: float | None = Field(None, gt=0)
    input_size: tuple[int, int] | None = Field(None, description="Height and width in this stage, in pixels")


class Augment(_Part):
    """Random changes in training: degrees, fractions of the size, or factors around one. MixUp and CutMix mix two."""

    horizontal_flip: bool = False
    vertical_flip: bool = False
    rotation: float = Field(0, ge=0, le=180)
    shift: float = Field(0, ge=0, lt=1)
    zoom: float = Field(0, ge=0, lt=1)
    shear: float = Field(0, ge=0, lt=90)
    crop: float = Field(0, ge=0, lt=1, description="Most that a random crop takes away of the picture's area")
    brightness: float = Field(0, ge=0)
    contrast: float = Field(0, ge=0)
    saturation: float = Field(0, ge=0)
    hue: float = Field(0, ge=0, le=0.5)
    frame: float = Field(
        0, ge=0, le=1, description="Probability of a tight frame around the middle, outside of which is empty slide"
    )
    background: float = Field(
        0, ge=0, le=1, description="Probability of another training picture's surroundings, and of its light and slide"
    )
    colour_transfer: float = Field(
        0, ge=0, le=1, description="Probability of another training picture's colours, or some of the way to them"
    )
    surroundings: float = Field(
        0, ge=0, le=1, description="Probability that a cell that is seen alone (data.crop) keeps what surrounds it"
    )
    tint: float = Field(0, ge=0, le=1, description="White balance and gamma: exponents and factors of each channel")
    light: float = Field(0, ge=0, lt=1, description="Share by which light falls off across the picture, at the most")
    hed: float = Field(0, ge=0, description="Stain jitter: factor and shift of haematoxylin, eosin and residual")
    channel_shuffle: float = Field(0, ge=0, le=1, description="Probability")
    colour_degeneration: float = Field(0, ge=0, le=1, description="Probability of fading towards grey")
    randaugment: int = Field(0, ge=0, le=30, description="Magnitude of RandAugment's two operations")
    augmix: int = Field(0, ge=0, le=10, description="Severity of AugMix")
    blur: float = Field(0, ge=0, description="Largest sigma in pixels of the packed picture")
    resolution: float = Field(
        0,
        ge=0,
        lt=1,
        description="Least share of its sides that half of the pictures are reduced to, and back; 0: none",
    )
    jpeg: int = Field(
        0, ge=0, le=100, description="Lowest JPEG quality that half of the pictures went through; 0: none"
    )
    noise: float = Field(0, ge=0, description="Standard deviation, of a range of 0..1")
    mixup: float = Field(0, ge=0, description="Alpha of the beta distribution two pictures are mixed by")
    cutmix: float = Field(0, ge=0, description="Alpha of the beta distribution of the area cut from another picture")
    mixstyle: float = Field(
        0, ge=0, le=1, description="Probability that a batch's first feature maps swap mean and spread with each other"
    )
    fill: tuple[int, int, int] = (0, 0, 0)

    @property
    def any(self) -> bool:
        """Whether a picture is changed at random at all (mixing is not a change of one picture)."""
        return bool(self.model_dump(exclude_defaults=True, exclude={"fill", "mixup", "cutmix", "mixstyle"}))


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
    laboratories: float = Field(
        0,
        ge=0,
        le=1,
        description="How far laboratories of a mix are evened out: 0 by their cells, 1 all weigh the same",
    )
    resample: Literal["none", "downsample", "oversample"] = "none"


class Attributes(_Part):
    """What else is known of training pictures, learnt beside their kind; the entry tells the kind alone."""

    folder: str = Field(
        "", description="Folder of tables (CSV: img_name, an attribute a column), in that of --data; none: no tables"
    )
    names: bool = Field(False, description="The letters a file's name begins with are an attribute: PBC's subclasses")
    weight: float = Field(0.3, gt=0, description="Of the attributes' mean loss, beside the kind's")

    @model_validator(mode="after")
    def _some(self) -> Attributes:
        if not self.folder and not self.names:
            raise ValueError("name a folder of tables, or set names to true")
        return self


class Head(_Part):
    """A classical classifier on a network's features, or on raw pixels."""

    kind: Literal["knn", "svm", "forest"]
    of: str | None = Field(None, description="Recipe whose fitted network gives the features; none: raw pixels")
    features: int | None = Field(None, gt=0, description="Principal components of the last hidden layer; none: all")
    options: dict[str, Any] = Field({}, description="Of scikit-learn's estimator")


class Ensemble(_Part):
    """Probabilities of several entries, averaged."""

    members: list[str] = Field(min_length=1, description="Ids of entries of the zoo")
    same: dict[str, str] | None = Field(
        None,
        description="Label of a member → label of this recipe that it counts as; what members know beyond is left out",
    )
    weights: Literal["equal", "fitted"] = Field("fitted", description="fitted: least log loss on validation")


class Recipe(_Part):
    """One trained model, from data to entry."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: str
    summary: str = Field(description="One sentence: what the model is good at")
    task: str
    system: Literal["", "A", "B", "C", "D", "E"] = Field("", description="Published system it belongs to")
    reported: str = Field("", description="What its authors reported")
    notes: list[str] = Field([], description="Where it differs from what was published; printed on the card")
    step: bool = Field(False, description="No more than a step towards another recipe: the zoo keeps no weights of it")
    published: dict[str, Any] = Field({}, description="Keys that the published protocol sets otherwise")
    seed: int = 0
    data: Data
    model: Model | None = None
    head: Head | None = None
    ensemble: Ensemble | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    stages: list[Stage] = []
    augment: Augment = Augment()
    clean: Clean = Clean()
    balance: Balance = Balance()
    attributes: Attributes | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Recipe:
        if self.ensemble is None and self.model is None:
            raise ValueError("a recipe needs a [model] or an [ensemble]")
        if self.attributes and (self.augment.mixup or self.augment.cutmix):
            raise ValueError("attributes are those of one picture: they go with neither mixup nor cutmix")
        if self.augment.surroundings and self.data.crop != "alone":
            raise ValueError("augment.surroundings needs cells that are seen alone: set data.crop to alone")
        for stage in self.stages:
            if stage.train != "all" and self.model and not self.model.head:
                raise ValueError("stages that train a part need model.head, the layers after the backbone")
        return self

    @property
    def network(self) -> Model:
        """The model; a RecipeError where the recipe is an ensemble."""
        if self.model is None:
            raise RecipeError(f"{self.id} is an ensemble: it has no network of its own.")
        return self.model

    @property
    def labels(self) -> list[str]:
        """Labels in the order of the outputs."""
        return list(dict.fromkeys(self.data.labels.values()))

    @cached_property
    def course(self) -> list[Stage]:
        """The stages, one of all epochs where the recipe names none."""
        return self.stages or [Stage(epochs=self.schedule.epochs)]

    @property
    def chance(self) -> int:
        """Seed of what is random while it is trained; `seed` alone is that of the split and of the start weights."""
        return self.seed + 1009 * self.schedule.run

    def of_run(self, number: int) -> Recipe:
        """The recipe of one of its runs (`schedule.runs`), from 0."""
        one = {"run": self.schedule.run + number, "runs": 1}
        return self.model_copy(update={"schedule": self.schedule.model_copy(update=one)})

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.course)

    @property
    def needs_cells(self) -> bool:
        """Whether a rule of training asks which pictures show one cell, beyond identical pixels."""
        return self.clean.duplicates == "near" or self.balance.sample_weights

    def fingerprint(self) -> str:
        """What decides the weights, as JSON: not the texts, and not what is left at its default."""
        return self.model_dump_json(exclude=_TEXTS, exclude_defaults=True)


def differences(made: Recipe, named: Recipe) -> list[str]:
    """What must be set to get from `named` to `made`, each as `--set` takes it; texts, `step` and ids do not count.

    A value that was set and is none in `made` cannot be told so, and is left out.
    """
    of, to = (
        _leaves(recipe.model_dump(mode="json", exclude={**_TEXTS, "id": True, "step": True}))
        for recipe in (named, made)
    )
    return as_set({key: value for key, value in to.items() if value is not None and of.get(key) != value})


def as_set(values: Mapping[str, Any]) -> list[str]:
    """Values by dotted key as `--set` and `load_recipe` take them."""
    return [f"{key}={_inline(value)}" for key, value in values.items()]


def recipe_ids() -> list[str]:
    """Ids of all shipped recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml") if not path.stem.startswith("_"))


def load_recipe(name: str, changes: Sequence[str] = (), published: bool = False, scratch: bool = False) -> Recipe:
    """Recipe by id, or from a TOML file's path, resolved: inherited keys filled in, `changes` ("key=value") made.

    `published` takes the published protocol, `scratch` random start weights with nothing frozen; each adds an end to
    the id.

    Raises RecipeError if there is none, it is not TOML, a key is unknown (the nearest is named) or a value is wrong.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise RecipeError(f"There is no recipe {name!r}. {_nearest(name, recipe_ids())}")
    content = _resolve(path, [])
    if scratch:
        content = _from_scratch(content)
    if published:
        for key, value in content.get("published", {}).items():
            _set(content, key, value)
        content["id"] = f"{content.get('id')}{PUBLISHED}"
        content["title"] = f"{content.get('title')} (published protocol)"
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise RecipeError(f"{change!r} is no change. Write key=value, as in optimizer.lr=0.01.")
        _set(content, key.strip(), _value(text.strip()))
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{path.name}: " + "; ".join(_explain(item) for item in error.errors())) from error


def pretrained_cfg(model: Model) -> dict[str, Any]:
    """What timm needs to know of the input: size, interpolation, mean, std.

    The whole picture is squashed into it, or its middle where the model sees a part.
    """
    own = timm.get_pretrained_cfg(model.architecture, allow_unregistered=True)
    return {
        "input_size": [3, *model.input_size],
        "interpolation": model.interpolation,
        "crop_pct": model.crop_pct,
        "crop_mode": "squash" if model.crop_pct == 1 else "center",
        "mean": list(model.mean or (own.mean if own else (0.5, 0.5, 0.5))),
        "std": list(model.std or (own.std if own else (0.5, 0.5, 0.5))),
    }


def _leaves(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Values by dotted key; a list is one value."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= _leaves(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


def _inline(value: Any) -> str:
    """A value as TOML in one line; what is none is left out of tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_inline(part)}" for key, part in value.items() if part is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(part) for part in value) + "]"
    return json.dumps(value)


def _from_scratch(content: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe begun with random weights: nothing that was never trained stays frozen. An ensemble of such ones."""
    ends = {"id": f"{content.get('id')}{SCRATCH}", "title": f"{content.get('title')} (from random weights)"}
    if "ensemble" in content:
        members = [f"{member}{SCRATCH}" for member in content["ensemble"].get("members", [])]
        return {**content, "ensemble": {**content["ensemble"], "members": members}, **ends}
    stages = [{**stage, "train": "all"} for stage in content.get("stages", [])]
    model = {**content.get("model", {}), "weights": "none"}
    return {**content, "model": model, "stages": stages, **ends}


def _resolve(path: Path, seen: list[str]) -> dict[str, Any]:
    """A file's content over what it inherits."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{seen[-1]} inherits {path.stem!r}, which is not in {path.parent}.") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name} is not valid TOML: {error}.") from error
    parent = content.pop(INHERIT, None)
    if parent is None:
        return content
    if path.stem in seen:
        raise RecipeError(f"{path.name} inherits itself, by way of {', '.join(seen)}.")
    beside = path.parent / f"{parent}.toml"
    place = beside if beside.is_file() else FOLDER / f"{parent}.toml"
    return _merge(_resolve(place, [*seen, path.stem]), content)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, tables key by key, all else whole."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; the tables on the way are made anew, so that nothing shared is changed."""
    first, dot, rest = key.partition(".")
    if not dot:
        content[first] = value
        return
    inner = content.get(first)
    if isinstance(inner, list) and rest.partition(".")[0].isdigit() and int(rest.partition(".")[0]) < len(inner):
        number, _, deeper = rest.partition(".")
        items = list(inner)
        items[int(number)] = _with(items[int(number)], deeper, value) if deeper else value
        content[first] = items
        return
    content[first] = _with(inner, rest, value)


def _with(table: Any, key: str, value: Any) -> dict[str, Any]:
    copy = dict(table) if isinstance(table, dict) else {}
    _set(copy, key, value)
    return copy


def _value(text: str) -> Any:
    """A value as TOML writes it; a bare word is a string."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        message = item["msg"].removeprefix("Value error, ")
        return f"{where}: {message[0].lower()}{message[1:]}" if where else message
    part: Any = Recipe
    for step in item["loc"][:-1]:
        part = part if isinstance(step, int) else _inside(part.model_fields[step].annotation)
    return f"unknown key {where}. {_nearest(str(item['loc'][-1]), list(part.model_fields))}"


def _inside(annotation: Any) -> Any:
    """The part of a recipe that an annotation (Part, Part | None, list[Part]) holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(found for found in map(_inside, get_args(annotation)) if found is not None) if annotation else None


def _nearest(word: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(choices)}."
