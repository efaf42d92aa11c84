"""Schema of a recipe: its tables, keys, bounds and defaults. Unknown keys are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from training.fit.augment import AUGMENTATIONS
from training.fit.schedules import SCHEDULES
from training.recipe.ensembles import Ensemble
from training.recipe.errors import RecipeError
from training.recipe.versions import SCHEMA_VERSION, upgrade
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import timm
else:
    timm = lazy_module("timm")

# optimisers that add weight decay to the gradient, where it is L2 by another name and scaled by the optimiser
COUPLED_DECAY = ("sgd", "momentum", "adam", "nadam", "radam", "rmsprop", "rmsproptf", "adamax", "adagrad")
# keys that decide nothing about the weights: texts, and how steps are computed, a matter of rounding as the device is
UNDECISIVE: dict[str, Any] = {
    **dict.fromkeys(("title", "summary", "task", "system", "reported", "notes", "published"), True),
    "data": {"credit", "descriptions"},
    "schedule": {"precision", "channels_last", "fast_depthwise"},
}
RUN_SEED_STEP = 1009  # prime, so that the seeds of a recipe's runs do not meet those of its neighbours


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))


class Data(_Part):
    """[data]: where the pictures are and how they are split."""

    name: str = Field(description="Short name of the data set, part of the benchmark's name")
    credit: str = Field(description="Source, authors and licence, printed on the card")
    labels: dict[str, str] = Field(
        {}, description="Class folder → label; none: every class of the data under its own name"
    )
    descriptions: dict[str, str] = {}
    parts: list[str] = Field([], description="Official parts that are used (train, val, test); none: all")
    split: Literal["stratified", "official", "grouped", "random", "holdout", "first"] = Field(
        "stratified",
        description="stratified: identical pixels stay on one side; grouped: all copies of a cell that an audit finds; "
        "official: the data set's own test part. By image, which leaks, to reproduce published protocols: random; "
        "holdout: test_fraction at random, which validates too; first: the same of the first names of each class",
    )
    originals: bool = Field(False, description="Pictures are augmented copies: group them by their source frame")
    val_fraction: float = Field(0.1, gt=0, lt=0.5)
    test_fraction: float = Field(0.15, gt=0, lt=0.5)
    mix: dict[str, Annotated[int, Field(gt=0)]] = Field(
        {}, description="Laboratories (folders of --data) that are joined, and copies of a cell that each contributes"
    )
    added: list[str] = Field(
        [],
        description="Data sets of the mix that are split by themselves, without a test side, so that the others keep "
        "the sides that they had without them: a model trained on those can be trained on",
    )
    left_out: str = Field(
        "", description="Laboratory of the mix that is held out: tested on instead of trained on; empty: none"
    )
    packed: tuple[int, int] = Field(description="Height and width, in pixels, to which pictures are decoded once")
    crop: Literal["none", "cell", "cell-0.2", "square", "alone", "found", "found-alone", "scaled", "scaled-alone"] = (
        Field(
            "none",
            description="cell: cut out as published system E does; cell-0.2: nearly so, as HemaZoo 0.2 did; square: a "
            "square around the cell; alone: the same, with empty slide in place of what is around the cell; "
            "found, found-alone: the same, where the detector finds the cell; scaled, scaled-alone: these two, 24 µm "
            "wide where at least eight red cells tell the scale, else by the cell's size",
        )
    )


class Model(_Part):
    """[model]: the network and its input."""

    architecture: str
    weights: str = Field(
        "none",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="imagenet; packaged: fetched by fetch-backbone; none: random; else the entry of the same classes "
        "whose weights it starts with",
    )
    head: list[str] = Field(
        [], description="Layers between features and classes, as zoo.architectures.transfer names them; none: own head"
    )
    input_size: tuple[int, int] = Field(description="Height and width in pixels")
    crop_pct: float = Field(1.0, gt=0.1, le=1, description="Middle share of the picture's sides that the network sees")
    views: Literal[1, 2, 4, 8] = Field(
        1, description="Test-time augmentation: turned and mirrored views that are averaged"
    )
    explanation_layer: str | None = Field(
        None, description="Layer that attribution maps use; none: the last with a map"
    )
    args: dict[str, Any] = {}
    mean: tuple[float, float, float] | None = Field(None, description="None: what the architecture expects")
    std: tuple[float, float, float] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    @property
    def begins_with_entry(self) -> bool:
        """Whether it starts with another entry's weights."""
        return self.weights not in ("imagenet", "packaged", "none")

    @property
    def timm_name(self) -> str:
        """Name of the network for `timm.create_model`."""
        return "transfer" if self.head else self.architecture

    @property
    def timm_args(self) -> dict[str, Any]:
        """Options for `timm.create_model`."""
        if not self.head:
            return self.args
        return {"backbone": self.architecture, "head": self.head, "input_size": list(self.input_size), **self.args}


class Optimizer(_Part):
    """[optimizer]: any optimiser that timm's `create_optimizer_v2` knows."""

    name: str = "adamw"
    lr: float = Field(1e-3, gt=0)
    momentum: float | None = Field(None, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, description="Decoupled from the gradient (Loshchilov & Hutter 2019)")
    l2: float = Field(0.0, ge=0, description="Factor of the sum of squared weights (not biases, not norms) in the loss")
    l2_last: bool = Field(True, description="Whether l2 counts the last layer too")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of the gradients")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="Decay of the moving average of the weights")

    @model_validator(mode="after")
    def _decoupled(self) -> Optimizer:
        if self.weight_decay and self.name in COUPLED_DECAY:
            raise ValueError(f"{self.name} has no decoupled weight_decay; set l2, or choose adamw, sgdw or lion")
        return self


Metric = Literal["val_loss", "val_accuracy", "val_balanced_accuracy", "train_loss", "train_accuracy"]


def _known_rate(name: str) -> str:
    if name not in SCHEDULES:
        raise ValueError(f"there is no learning-rate schedule {name!r}. There are: {', '.join(sorted(SCHEDULES))}")
    return name


class Schedule(_Part):
    """[schedule]: epochs, batches, the learning rate, and how it is computed."""

    epochs: int = Field(10, gt=0, description="Epochs of a recipe without stages")
    batch_size: int = Field(32, gt=0)
    accumulate: int = Field(1, gt=0, description="Parts in which a batch is run, one after the other, to save memory")
    rate: Annotated[str, AfterValidator(_known_rate)] = Field(
        "constant", description="Learning-rate schedule, registered in training.fit.schedules"
    )
    warmup_epochs: float = Field(0.0, ge=0)
    plateau_metric: Metric = "val_loss"
    plateau_factor: float = Field(0.3, gt=0, lt=1)
    plateau_patience: int = Field(2, ge=0)
    select: Metric | Literal["last"] = Field(
        "val_loss",
        description="Metric that chooses the best epoch; the validation loss decides between equals. last: the last",
    )
    augment_validation: bool = Field(
        False, description="Validate on pictures changed at random, as some published systems do; not for choosing well"
    )
    stop_metric: Metric = "val_loss"
    stop_patience: int | None = Field(
        None, gt=0, description="Epochs without a better stop_metric before it stops early"
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        description="Number format of a step; auto takes the fastest, measured before the training with the next two",
    )
    channels_last: bool | Literal["auto"] = Field("auto", description="Memory format; auto without a trial: true")
    fast_depthwise: bool | Literal["auto"] = Field(
        "auto", description="Our own gradients of depthwise convolutions on CPUs; auto without a trial: true"
    )
    run: int = Field(
        0,
        ge=0,
        description="Number of this training among several on one split: changes the seed of order and augmentation",
    )
    runs: int = Field(1, gt=0, description="Trainings from one start, whose weights are averaged for the entry")
    compile: bool = False
    cache_features: bool = Field(True, description="Compute the features of a frozen backbone once and keep them")
    views: int = Field(4, gt=0, description="Augmented views of each picture whose features are kept")


class Stage(_Part):
    """[[stages]]: a part of training; keys that are left out are the recipe's."""

    epochs: int = Field(gt=0)
    train: Literal["all", "head"] | list[str] = Field(
        "all",
        description="What is trained: all; head: what follows the backbone; or also modules by the start of their name",
    )
    lr: float | None = Field(None, gt=0)
    input_size: tuple[int, int] | None = Field(None, description="Height and width in this stage, in pixels")


class BaseAugment(_Part):
    """Keys of [augment] beside the registered ones: the warp's, and what is done to batches and crops.

    Angles are in degrees, lengths fractions of the size.
    """

    rotation: float = Field(0, ge=0, le=180)
    shift: float = Field(0, ge=0, lt=1)
    zoom: float = Field(0, ge=0, lt=1)
    shear: float = Field(0, ge=0, lt=90)
    surroundings: float = Field(
        0, ge=0, le=1, description="Probability that a cell that is cut out alone (data.crop) keeps its surroundings"
    )
    mixup: float = Field(0, ge=0, description="Alpha of the beta distribution by which two pictures are mixed")
    cutmix: float = Field(0, ge=0, description="Alpha of the beta distribution of the area cut from another picture")
    fill: tuple[int, int, int] = (0, 0, 0)

    @property
    def changes_pictures(self) -> bool:
        """Whether single pictures are changed at random (mixing two is not a change of one)."""
        return bool(self.model_dump(exclude_defaults=True, exclude={"fill", "mixup", "cutmix"}))


if TYPE_CHECKING:

    class Augment(BaseAugment):
        """Random changes in training; type checkers see the registered keys as Any."""

        def __init__(self, **values: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    Augment = create_model(
        "Augment",
        __base__=BaseAugment,
        __doc__="Random changes in training: the keys of BaseAugment and of all registered augmentations.",
        **{
            each.key: (type(each.default), Field(each.default, description=each.description, **each.bounds))
            for each in AUGMENTATIONS.values()
        },
    )


class Clean(_Part):
    """[clean]: what an audit takes out of training; the test set is never cleaned."""

    duplicates: Literal["keep", "pixel", "near"] = "keep"
    outliers: bool = False
    label_errors: bool = False
    contradictory: bool = Field(False, description="Cells that carry several labels")

    @property
    def needs_audit(self) -> bool:
        """Whether a rule needs a whole audit."""
        return self.outliers or self.label_errors or self.contradictory


class Balance(_Part):
    """[balance]: how classes, cells with many copies and laboratories are weighted in training."""

    class_weights: bool = Field(False, description="Weight the loss inversely to the class's frequency")
    sample_weights: bool = Field(False, description="All copies of one source cell weigh as much as one picture")
    laboratories: float = Field(
        0,
        ge=0,
        le=1,
        description="Weight of laboratories of a mix: 0 by their number of cells, 1 all the same",
    )
    resample: Literal["none", "downsample", "oversample", "within", "bootstrap"] = Field(
        "none",
        description="Training pictures a class: as many as of the rarest (downsample), of the commonest (oversample), "
        "or within class_sizes; bootstrap: as many as there are, drawn with replacement, anew for each schedule.run",
    )
    class_sizes: tuple[int, int] | None = Field(None, description="Fewest and most training pictures of a class")

    @model_validator(mode="after")
    def _sizes(self) -> Balance:
        if (self.resample == "within") != (self.class_sizes is not None):
            raise ValueError('resample = "within" and class_sizes belong together')
        if self.class_sizes and not 0 < self.class_sizes[0] <= self.class_sizes[1]:
            raise ValueError("class_sizes are the fewest and the most pictures of a class, in this order")
        return self


class Attributes(_Part):
    """[attributes]: other properties of cells, learnt by an auxiliary loss; entries predict the class alone."""

    folder: str = Field(
        "", description="Folder of tables (CSV: img_name, one column for each attribute) inside --data; empty: none"
    )
    names: bool = Field(
        False, description="Take the letters at the start of a file's name as an attribute (which may tell subclasses)"
    )
    weight: float = Field(0.3, gt=0, description="Of the attributes' mean loss, where the class's weighs 1")

    @model_validator(mode="after")
    def _some(self) -> Attributes:
        if not self.folder and not self.names:
            raise ValueError("name a folder of tables, or set names to true")
        return self


class Head(_Part):
    """[head]: a classical classifier on a network's features, or on raw pixels."""

    kind: Literal["knn", "svm", "forest"]
    of: str | None = Field(None, description="Recipe whose trained network computes the features; none: the [model]'s")
    features: int | None = Field(None, gt=0, description="Principal components of the last hidden layer; none: all")
    options: dict[str, Any] = Field({}, description="Of scikit-learn's estimator")
    one_hot: bool = Field(
        False, description="Fit a forest on one-hot labels, and also score such answers (zoo.scores.one_hot)"
    )

    @model_validator(mode="after")
    def _one_hot_forest(self) -> Head:
        if self.one_hot and self.kind != "forest":
            raise ValueError("one_hot is for a forest")
        return self


class Recipe(_Part):
    """One trained model, from data to entry."""

    schema_version: int = Field(SCHEMA_VERSION, description="Version of the recipe format; a recipe without it is of 1")
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: str
    summary: str = Field(description="One sentence: what the model is good at")
    task: str
    system: Literal["", "A", "B", "C", "D", "E"] = Field("", description="Published system it belongs to")
    reported: str = Field("", description="What its authors reported")
    notes: list[str] = Field([], description="Where it differs from what was published; printed on the card")
    step: bool = Field(False, description="Only the start of another recipe: the zoo keeps no weights of it")
    published: dict[str, Any] = Field({}, description="Values of other keys under the published protocol")
    seed: int = Field(0, description="Of the split, of the start weights and of what is random in training")
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

    @model_validator(mode="before")
    @classmethod
    def _of_this_version(cls, content: Any) -> Any:
        return upgrade(content) if isinstance(content, Mapping) else content

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.ensemble is None and self.model is None:
            raise ValueError("a recipe needs a [model] or an [ensemble]")
        if self.attributes and (self.augment.mixup or self.augment.cutmix):
            raise ValueError("attributes belong to one picture: set augment.mixup and augment.cutmix to 0")
        if self.augment.surroundings and self.data.crop != "alone":
            raise ValueError("augment.surroundings needs cells that are cut out alone: set data.crop to alone")
        if set(self.data.added) - set(self.data.mix):
            raise ValueError("data.added may only name data sets of data.mix")
        if self.schedule.augment_validation and self.schedule.cache_features:
            raise ValueError("schedule.augment_validation needs fresh pictures: set schedule.cache_features to false")
        for stage in self.stages:
            if stage.train != "all" and self.model and not self.model.head:
                raise ValueError("stages that train a part need model.head, the layers after the backbone")
        return self

    @property
    def network(self) -> Model:
        """The [model]. Raises RecipeError if the recipe is an ensemble."""
        if self.model is None:
            raise RecipeError(f"{self.id} is an ensemble: it has no network of its own.")
        return self.model

    @property
    def labels(self) -> list[str]:
        """Labels in the order of the outputs."""
        return list(dict.fromkeys(self.data.labels.values()))

    @cached_property
    def all_stages(self) -> list[Stage]:
        """The stages; one of all epochs if the recipe names none."""
        return self.stages or [Stage(epochs=self.schedule.epochs)]

    @property
    def training_seed(self) -> int:
        """Seed of what is random in training; `seed` alone is that of the split and of the start weights."""
        return self.seed + RUN_SEED_STEP * self.schedule.run

    def of_run(self, number: int) -> Recipe:
        """Recipe of one of its runs (`schedule.runs`), numbered from 0."""
        one = {"run": self.schedule.run + number, "runs": 1}
        return self.model_copy(update={"schedule": self.schedule.model_copy(update=one)})

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.all_stages)

    @property
    def needs_cells(self) -> bool:
        """Whether training needs to know which pictures show one cell, beyond identical pixels."""
        return self.clean.duplicates == "near" or self.balance.sample_weights

    def fingerprint(self) -> str:
        """Return what decides the weights as JSON with sorted keys, without what is left at its default."""
        content = self.model_dump(mode="json", exclude=UNDECISIVE, exclude_defaults=True)
        return json.dumps({key: value for key, value in content.items() if value != {}}, sort_keys=True)


def pretrained_cfg(model: Model) -> dict[str, Any]:
    """Return timm's description of a network's input: size, interpolation, mean, standard deviation and crop.

    The whole picture is squashed into the input, or its middle where the model sees a part.
    """
    import zoo.architectures  # noqa: F401, PLC0415 (registers our own networks with timm, which takes seconds)

    own = timm.get_pretrained_cfg(model.architecture, allow_unregistered=True)
    return {
        "input_size": [3, *model.input_size],
        "interpolation": model.interpolation,
        "crop_pct": model.crop_pct,
        "crop_mode": "squash" if model.crop_pct == 1 else "center",
        "mean": list(model.mean or (own.mean if own else (0.5, 0.5, 0.5))),
        "std": list(model.std or (own.std if own else (0.5, 0.5, 0.5))),
    }
