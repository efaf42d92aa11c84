"""Contents of `config.json` and `evaluation.json`, checked by pydantic.

`config.json` is timm's hub layout with our part under "zoo".
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from zoo.entry.files import ID

FRAMES = "-frames"  # end of the name that measures on a data set's whole smear frames are kept under
MAX_SIDE = 2048


WORD = re.compile(r"^[A-Za-z0-9_. -]{0,80}$")  # no address, no path


ARGUMENT = re.compile(r"^[a-z][a-z0-9_]{0,60}$")


RESERVED = {  # what timm.create_model does with files and the Hub, and what is ours to say
    "cache_dir",
    "checkpoint_path",
    "exportable",
    "features_only",
    "file",
    "hf_hub_id",
    "in_chans",
    "kwargs_filter",
    "model_cfg",
    "no_jit",
    "num_classes",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_filter_fn",
    "pretrained_model_args",
    "pretrained_strict",
    "scriptable",
    "url",
}


MOST_ITEMS, LARGEST_NUMBER, DEEPEST = 64, 65_536, 4  # of model_args


Label = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f<>]+$")]


def _shown(text: str) -> str:
    """Text that pages show: nothing in it may be read as HTML, as a link or as a picture from elsewhere."""
    if re.search(r"[\x00-\x08\x0b-\x1f<]|\]\s*[(\[:]|!\[|://", text):
        raise ValueError("holds markup or an address; it is shown as plain text")
    return text


Shown = Annotated[str, Field(max_length=1000), AfterValidator(_shown)]


class PretrainedCfg(BaseModel):
    """timm's description of the input a network expects."""

    model_config = ConfigDict(extra="allow", frozen=True)
    input_size: tuple[Literal[3], Annotated[int, Field(ge=8, le=MAX_SIDE)], Annotated[int, Field(ge=8, le=MAX_SIDE)]]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "random"] = "bicubic"
    crop_pct: float = Field(1.0, gt=0.1, le=1)
    crop_mode: Literal["center", "squash", "border"] = "center"

    @field_validator("std")
    @classmethod
    def _positive(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) <= 0:
            raise ValueError("must be positive")
        return value


class ZooPart(BaseModel):
    """Our part of `config.json`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    schema_version: Literal[1]
    title: Shown = Field(min_length=1, max_length=200)
    task: Shown = Field(min_length=1, max_length=200)
    summary: Shown = ""
    explanation_layer: str | None = None
    temperature: float = Field(1.0, gt=0, description="Logits are divided by it")
    fitted_temperature: float | None = Field(None, gt=0, description="Already divided into the last layer's weights")
    crop: Literal["none", "cell", "square", "alone"] = Field(
        "none", description="What is cut out of a picture before the network sees it"
    )
    views: Literal[1, 2, 4, 8] = Field(
        1, description="How many turned and mirrored views of a picture are looked at; their answers are averaged"
    )
    members: list[Annotated[str, Field(pattern=ID.pattern)]] | None = Field(
        None, min_length=1, max_length=16, description="Ids of the entries whose probabilities are averaged"
    )
    same: dict[Label, Label] | None = Field(
        None,
        description="Label of a member → label here that it counts as; what a member knows beyond is left out and the "
        "rest scaled to 1. None: members know the same labels",
    )
    member_weights: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    split: str = Field("", description="What was trained, validated and tested on, for the card")
    training: dict[str, Any] = Field({}, description="How the weights came about: seconds, images a second, device")
    head: Literal["head.skops"] | None = Field(None, description="A classical classifier in place of the last layer")

    @model_validator(mode="after")
    def _weights_fit(self) -> ZooPart:
        weights = self.member_weights
        if self.members and len(weights or self.members) != len(self.members):
            raise ValueError("member_weights are not as many as members")
        if self.members and len(set(self.members)) != len(self.members):
            raise ValueError("a member is named twice")
        if self.members and len(self.members) == 1 and self.same is None:
            raise ValueError("an ensemble of one member needs the labels that are told apart, in same")
        if weights and abs(sum(weights) - 1) > 1e-3:
            raise ValueError("member_weights do not add up to 1")
        return self


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value is a number, a word, or a short list of these, nested at most `depth` deep."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return abs(value) <= LARGEST_NUMBER
    if isinstance(value, str):
        return bool(WORD.match(value))
    return (
        isinstance(value, list)
        and depth > 0
        and len(value) <= MOST_ITEMS
        and all(_is_plain(v, depth - 1) for v in value)
    )


class Config(BaseModel):
    """`config.json`: timm's hub layout and the zoo's part."""

    model_config = ConfigDict(extra="allow", frozen=True)
    architecture: str = Field(pattern=r"^[A-Za-z0-9_.]+$", max_length=100)
    num_classes: int = Field(ge=2, le=1000)
    label_names: list[Label]
    label_descriptions: dict[Label, Shown] = {}
    model_args: dict[str, Any] = {}
    pretrained_cfg: PretrainedCfg
    zoo: ZooPart

    @field_validator("model_args")
    @classmethod
    def _harmless(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Shapes and switches only: nothing that would make timm read a file, ask the Hub or build without end."""
        for name, given in value.items():
            if not ARGUMENT.match(name) or name in RESERVED:
                raise ValueError(f"{name[:60]!r} is no option that a model may set")
            if not _is_plain(given, DEEPEST):
                raise ValueError(f"{name} is no number, word, or short list of these")
        return value

    @model_validator(mode="after")
    def _labels_fit(self) -> Config:
        if len(self.label_names) != self.num_classes:
            raise ValueError(f"{len(self.label_names)} label_names for num_classes = {self.num_classes}")
        if len(set(self.label_names)) != len(self.label_names):
            raise ValueError("label_names are not all different")
        return self


class Metric(BaseModel):
    """A value with its 95 % interval (None where none was computed)."""

    model_config = ConfigDict(frozen=True)
    value: float
    low: float | None = None
    high: float | None = None


class Benchmark(BaseModel):
    """What was measured on one named evaluation set. `confusion[i][j]` counts images of label i called label j."""

    model_config = ConfigDict(extra="allow", frozen=True)
    title: Shown
    role: Literal["test", "validation"] = "test"
    labels: list[Label]
    confusion: list[list[Annotated[int, Field(ge=0)]]]
    metrics: dict[str, Metric]
    n_images: int = Field(ge=0)
    n_cells: int = Field(ge=0)
    split_hash: str = ""
    leaky: bool = False
    leak_share: float = Field(0.0, ge=0, le=1, description="Share of test images whose source cell is in training")
    notes: list[str] = []

    @model_validator(mode="after")
    def _square(self) -> Benchmark:
        size = len(self.labels)
        if len(self.confusion) != size or any(len(row) != size for row in self.confusion):
            raise ValueError(f"confusion is not {size}×{size}")
        return self


class Pointing(BaseModel):
    """Of maps on pictures whose cell's box is known: shares that point into it, of energy inside, and by chance."""

    model_config = ConfigDict(extra="allow", frozen=True)
    pointing: Metric
    energy: Metric
    chance: float = Field(ge=0, le=1)
    images: int = Field(ge=0)


def _parse_pointing(value: Any) -> Any:
    """Parse what holds a pointing game's result; leave what a later version may have added as it is."""
    return Pointing.model_validate(value) if isinstance(value, dict) and "pointing" in value else value


def is_on_frames(name: str) -> bool:
    """Whether maps were measured under this name on whole smear frames, not on a benchmark's own pictures."""
    return name.endswith(FRAMES)


class MapQuality(BaseModel):
    """What `training explain-quality` measured of a method's maps.

    Beside the named measures stands, by the name of a benchmark, what was measured on pictures whose cell's box is
    known (see `pointing`).
    """

    __pydantic_extra__: dict[str, Annotated[Any, BeforeValidator(_parse_pointing)]]
    model_config = ConfigDict(extra="allow", frozen=True)
    road: Metric | None = None
    deletion: Metric | None = None
    insertion: Metric | None = None
    sanity: dict[str, float] = {}

    @property
    def pointing(self) -> dict[str, Pointing]:
        """Measures on pictures whose cell's box is known, by benchmark; those on whole smear frames last."""
        measured = {name: value for name, value in (self.model_extra or {}).items() if isinstance(value, Pointing)}
        return dict(sorted(measured.items(), key=lambda item: is_on_frames(item[0])))


class HeldBack(BaseModel):
    """Of pictures of a kind: shares that the gate marks and holds back; how well distances tell them from known cells.

    Marked is what is not familiar, held back what is unknown.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    marked: float = Field(ge=0, le=1)
    held_back: float = Field(ge=0, le=1)
    images: int = Field(ge=0)
    auroc: float | None = None


class GateQuality(BaseModel):
    """What `training gate` found out about an entry's gate."""

    model_config = ConfigDict(extra="allow", frozen=True)
    false_alarms: HeldBack
    strangers: dict[str, HeldBack]
    cells_elsewhere: dict[str, HeldBack] = {}


class Elsewhere(BaseModel):
    """What others of an entry's recipe were worth in laboratories they never saw (`training loso`).

    Logarithms of the entry's probabilities, divided by `temperature`, fit what they got right there. `balanced` is
    their balanced accuracy by laboratory.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    temperature: float = Field(gt=0, lt=1000)
    balanced: dict[Label, Metric] = Field(min_length=1)


class Evaluation(BaseModel):
    """`evaluation.json`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    schema_version: Literal[1] = 1
    explanations: dict[str, MapQuality] = {}
    gate: GateQuality | None = None
    elsewhere: Elsewhere | None = None
    benchmarks: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], Benchmark] = {}

    def as_written(self) -> dict[str, Any]:
        """What the file says, by the names that it says it with; what was never measured is left out."""
        unmeasured = {name for name in ("gate", "elsewhere") if getattr(self, name) is None}
        return self.model_dump(mode="json", by_alias=True, exclude=unmeasured)
