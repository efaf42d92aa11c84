"""Contents of `config.json` and `evaluation.json`, checked by pydantic.

`config.json` is timm's hub layout with our part under "zoo". Field names in the files are fixed, since entries were
published with them; where a Python name differs, the field's alias is the name in the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from zoo.entry.files import ID
from zoo.limits import INPUT_SIDE
from zoo.scores.averages import Mean

FRAMES_SUFFIX = "-frames"  # of evaluation sets made of a data set's whole smear frames

# model_args are passed on to timm.create_model, so that their names and values are limited
ARGUMENT_NAME = re.compile(r"^[a-z][a-z0-9_]{0,60}$")
ARGUMENT_TEXT = re.compile(r"^[A-Za-z0-9_. -]{0,80}$")  # no address, no path
MAX_ARGUMENT_ITEMS = 64  # of a list
MAX_ARGUMENT_NUMBER = 65_536
MAX_ARGUMENT_DEPTH = 4  # of nested lists
RESERVED_ARGUMENTS = {  # arguments of timm.create_model that read files or ask the Hub, or that the zoo sets itself
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

Label = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f-\x9f<>]+$")]


def _check_plain_text(text: str) -> str:
    """Refuse text that a page could render as HTML, as a link or as a picture from another server."""
    if re.search(r"[\x00-\x08\x0b-\x1f<]|\]\s*[(\[:]|!\[|://", text):
        raise ValueError("holds markup or an address; only plain text is allowed")
    return text


PlainText = Annotated[str, Field(max_length=1000), AfterValidator(_check_plain_text)]


def _limited_side(side: int) -> int:
    if side > INPUT_SIDE.value:
        raise ValueError(f"a side of {side} pixels is more than the {INPUT_SIDE.value} allowed")
    return side


Side = Annotated[int, Field(ge=8), AfterValidator(_limited_side)]


class PretrainedCfg(BaseModel):
    """timm's description of the input a network expects."""

    model_config = ConfigDict(extra="allow", frozen=True)
    input_size: tuple[Literal[3], Side, Side]
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


class SampleWeights(BaseModel):
    """A sample that an entry is asked with: weights by kind, and the weight of a kind that is not named."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: PlainText = Field(min_length=1, max_length=200)
    weights: dict[Label, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    other: float = Field(1.0, ge=0, allow_inf_nan=False)


class DetectorPart(BaseModel):
    """Limits of a detector: the confidence from which each of its objects counts."""

    model_config = ConfigDict(extra="allow", frozen=True)
    limits: dict[Label, Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)


class ZooPart(BaseModel):
    """Our part of `config.json`."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)
    schema_version: Literal[1]
    hemazoo_version: str = Field(
        "", pattern=r"^[0-9A-Za-z.+-]{0,40}$", description="Version of HemaZoo that wrote the entry"
    )
    title: PlainText = Field(min_length=1, max_length=200)
    task: PlainText = Field(min_length=1, max_length=200)
    summary: PlainText = ""
    explanation_layer: str | None = None
    temperature: float = Field(1.0, gt=0, description="Logits are divided by it")
    fitted_temperature: float | None = Field(None, gt=0, description="Already divided into the last layer's weights")
    crop: Literal["none", "cell", "cell-0.2", "square", "alone", "found", "found-alone", "scaled", "scaled-alone"] = (
        Field("none", description="How the cell is cut out of a picture before the network sees it")
    )
    cut_by: str = Field(
        "", pattern=r"^([0-9a-f]{64})?$", description="SHA-256 of the weights of the detector that cut training's cells"
    )
    views: Literal[1, 2, 4, 8] = Field(
        1, description="Test-time augmentation: number of rotated and mirrored views whose answers are averaged"
    )
    members: list[Annotated[str, Field(pattern=ID.pattern)]] | None = Field(
        None, min_length=1, max_length=16, description="Ids of the entries whose probabilities are averaged"
    )
    merged_labels: dict[Label, Label] | None = Field(
        None,
        alias="same",
        description="Label of a member → label of this entry that it counts as. Other labels of a member are dropped "
        "and the rest is scaled to 1. None: members have the same labels as the entry",
    )
    member_weights: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    member_mean: Mean = Field("arithmetic", description="How members' probabilities are averaged")
    deciding_member: str = Field(
        "", description="Id of the member whose probability of the answer decides on acceptance; empty: the mean's"
    )
    split: str = Field("", description="What was trained, validated and tested on, for the card")
    training: dict[str, Any] = Field({}, description="How the weights were trained: seconds, images a second, device")
    trained_shares: dict[Label, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = Field(
        None, alias="prior_trained", description="Share of each label that training weighed it with; None: not stated"
    )
    sample: SampleWeights | None = Field(
        None, description="What its pictures are a sample of, unless its user says otherwise; None: by its labels"
    )
    head: Literal["head.skops"] | None = Field(None, description="A classical classifier in place of the last layer")
    detector: DetectorPart | None = Field(
        None, description="The entry finds cells and does not classify; None: it does"
    )

    @model_validator(mode="after")
    def _check_members(self) -> ZooPart:
        weights = self.member_weights
        if self.members and len(weights or self.members) != len(self.members):
            raise ValueError("member_weights are not as many as members")
        if self.members and len(set(self.members)) != len(self.members):
            raise ValueError("a member is named twice")
        if self.members and len(self.members) == 1 and self.merged_labels is None:
            raise ValueError("an ensemble of one member needs merged labels, in the field same")
        if weights and abs(sum(weights) - 1) > 1e-3:
            raise ValueError("member_weights do not add up to 1")
        return self


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value is a number, a short text, or a short list of these, nested at most `depth` deep."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return abs(value) <= MAX_ARGUMENT_NUMBER
    if isinstance(value, str):
        return bool(ARGUMENT_TEXT.match(value))
    return (
        isinstance(value, list)
        and depth > 0
        and len(value) <= MAX_ARGUMENT_ITEMS
        and all(_is_plain(v, depth - 1) for v in value)
    )


class Config(BaseModel):
    """`config.json`: timm's hub layout and the zoo's part."""

    model_config = ConfigDict(extra="allow", frozen=True)
    architecture: str = Field(pattern=r"^[A-Za-z0-9_.]+$", max_length=100)
    num_classes: int = Field(ge=2, le=1000)
    label_names: list[Label]
    label_descriptions: dict[Label, PlainText] = {}
    model_args: dict[str, Any] = {}
    pretrained_cfg: PretrainedCfg
    zoo: ZooPart

    @field_validator("model_args")
    @classmethod
    def _check_arguments(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Allow shapes and switches only: nothing that makes timm read a file, ask the Hub or build a huge network."""
        for name, given in value.items():
            if not ARGUMENT_NAME.match(name) or name in RESERVED_ARGUMENTS:
                raise ValueError(f"{name[:60]!r} is not an option that a model may set")
            if not _is_plain(given, MAX_ARGUMENT_DEPTH):
                raise ValueError(f"{name} is not a number, a word, or a short list of these")
        return value

    @model_validator(mode="after")
    def _check_labels(self) -> Config:
        if len(self.label_names) != self.num_classes:
            raise ValueError(f"{len(self.label_names)} label_names for num_classes = {self.num_classes}")
        if len(set(self.label_names)) != len(self.label_names):
            raise ValueError("label_names are not all different")
        detector = self.zoo.detector
        if detector is not None and set(detector.limits) != set(self.label_names):
            raise ValueError("the detector's limits do not name the labels of the entry")
        shares = self.zoo.trained_shares
        if shares is not None and set(shares) != set(self.label_names):
            raise ValueError("prior_trained does not name the labels of the entry")
        return self

    def as_written(self) -> dict[str, Any]:
        """Content of `config.json`, with the field names of the file."""
        return self.model_dump(mode="json", by_alias=True)


class Metric(BaseModel):
    """A value with its 95 % interval (None where none was computed)."""

    model_config = ConfigDict(frozen=True)
    value: float
    low: float | None = None
    high: float | None = None


class Benchmark(BaseModel):
    """Scores on one named evaluation set. `confusion[i][j]` counts images of true label i predicted as label j."""

    model_config = ConfigDict(extra="allow", frozen=True)
    title: PlainText
    role: Literal["test", "validation"] = "test"
    labels: list[Label]
    confusion: list[list[Annotated[int, Field(ge=0)]]]
    metrics: dict[str, Metric]
    one_hot: dict[str, Metric] = Field(
        {}, description="Scores of answers to one-hot labels, see zoo.scores.one_hot; none: not scored so"
    )
    sample: str = Field("", max_length=200, description="Sample that it was asked with; empty: not stated")
    samples: dict[str, dict[str, Metric]] = Field({}, description="Main scores when asked with other samples")
    network_labels: list[Label] | None = Field(
        None, description="Labels of the network's own probabilities, stored beside the answers; None: not stored"
    )
    n_images: int = Field(ge=0)
    n_cells: int = Field(ge=0)
    split_hash: str = ""
    leaky: bool = False
    leak_share: float = Field(0.0, ge=0, le=1, description="Share of test images whose source cell is in training")
    notes: list[str] = []

    @model_validator(mode="after")
    def _check_confusion(self) -> Benchmark:
        size = len(self.labels)
        if len(self.confusion) != size or any(len(row) != size for row in self.confusion):
            raise ValueError(f"confusion is not {size}×{size}")
        return self


class LocalisationScores(BaseModel):
    """Scores of how well maps point at the cell, on pictures whose cell's box is known.

    `pointing` is the share of maps whose maximum lies in the box, `energy` the mean share of a map's sum inside it,
    and `chance` the mean share of the picture that the box covers.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    pointing: Metric
    energy: Metric
    chance: float = Field(ge=0, le=1)
    images: int = Field(ge=0)


def _parse_localisation(value: Any) -> Any:
    """Parse localisation scores; leave other fields, which a later version may have added, as they are."""
    return LocalisationScores.model_validate(value) if isinstance(value, dict) and "pointing" in value else value


def is_on_frames(name: str) -> bool:
    """Whether an evaluation set of this name is made of whole smear frames, not of a benchmark's own pictures."""
    return name.endswith(FRAMES_SUFFIX)


class ExplanationQuality(BaseModel):
    """Scores of one attribution method's maps (`training explain-quality`).

    Localisation scores stand beside the named fields, under the name of their evaluation set (see `localisation`).
    """

    __pydantic_extra__: dict[str, Annotated[Any, BeforeValidator(_parse_localisation)]]
    model_config = ConfigDict(extra="allow", frozen=True)
    road: Metric | None = None
    deletion: Metric | None = None
    insertion: Metric | None = None
    sanity: dict[str, float] = {}

    @property
    def localisation(self) -> dict[str, LocalisationScores]:
        """Localisation scores by evaluation set; those on whole smear frames last."""
        extra = self.model_extra or {}
        scores = {name: value for name, value in extra.items() if isinstance(value, LocalisationScores)}
        return dict(sorted(scores.items(), key=lambda item: is_on_frames(item[0])))


class OodRates(BaseModel):
    """Out-of-distribution results on one kind of picture.

    Shares of pictures that are flagged (beyond the first limit) and rejected (beyond the second), and the AUROC of the
    distance against cells of the home test set.
    """

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)
    flagged: float = Field(ge=0, le=1, alias="marked")
    rejected: float = Field(ge=0, le=1, alias="held_back")
    images: int = Field(ge=0)
    auroc: float | None = None


class OodQuality(BaseModel):
    """Quality of an entry's out-of-distribution check (`training gate`)."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)
    false_alarms: OodRates
    foreign_pictures: dict[str, OodRates] = Field(alias="strangers", description="Pictures that show no blood cell")
    other_laboratories: dict[str, OodRates] = Field({}, alias="cells_elsewhere")


class OtherLaboratories(BaseModel):
    """Expected performance in an unseen laboratory, from models of the same recipe (`training loso`).

    Attributes:
        temperature: Divides the logarithms of the entry's probabilities, so that confidence fits accuracy there.
        balanced: Balanced accuracy by laboratory left out of training.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    temperature: float = Field(gt=0, lt=1000)
    balanced: dict[Label, Metric] = Field(min_length=1)


class AcceptanceLimits(BaseModel):
    """Limits within which an answer is accepted.

    Attributes:
        confidence: Least probability of the answer for a laboratory never seen, asked with the sample.
        classes: The same for answers of a class, by label; what is not named keeps to `confidence`. 1: never accepted.
        network: Least probability of it in the network's own answer, before the sample.
        distance: Largest out-of-distribution distance.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    confidence: float = Field(ge=0, le=1)
    network: float = Field(ge=0, le=1)
    distance: float = Field(ge=0, allow_inf_nan=False)
    classes: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}

    def of(self, labels: Sequence[str]) -> np.ndarray:
        """Limits of confidence for answers of these classes, (K,)."""
        return np.array([self.classes.get(label, self.confidence) for label in labels])


class AcceptedCells(BaseModel):
    """Result in a laboratory with limits and temperature chosen without it.

    Attributes:
        share: Share of its cells that is accepted.
        right: Share of these that is right, over kinds; None where none is accepted.
        ece: Expected calibration error of the confidence there.
        images: Number of cells.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    share: float = Field(ge=0, le=1)
    right: float | None = Field(None, ge=0, le=1)
    ece: float = Field(ge=0, le=1)
    images: int = Field(ge=0)


class AcceptanceQuality(BaseModel):
    """Limits of acceptance, and how they hold in laboratories that they were chosen without (`training accept`).

    Attributes:
        limits: The limits, chosen by all laboratories.
        temperature: Divides the logarithms of the probabilities, so that confidence fits accuracy there.
        laboratories: Results by laboratory.
        unknown_kinds: Share of cells of kinds that the entry does not know that is accepted, by kind.
        chosen_by: Results of the limits in use, in the laboratories that chose them.
        unknown_chosen_by: The same of cells of kinds that the entry does not know.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    limits: AcceptanceLimits
    temperature: float = Field(gt=0, lt=1000)
    laboratories: dict[Label, AcceptedCells] = {}
    unknown_kinds: dict[Label, float] = {}
    chosen_by: dict[Label, AcceptedCells] = {}
    unknown_chosen_by: dict[Label, float] = {}


class CountErrors(BaseModel):
    """Error of counted shares in validation laboratories (`training counts`).

    Attributes:
        error: Standard deviation of a share's error that is the classifier's, 0..1.
        laboratories: By laboratory the mean `absolute` error; `coverage` and `width` of limits set by the others.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    error: float = Field(ge=0, le=1)
    laboratories: dict[Label, dict[str, float]] = {}


class Evaluation(BaseModel):
    """`evaluation.json`."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)
    schema_version: Literal[1] = 1
    explanations: dict[str, ExplanationQuality] = {}
    ood: OodQuality | None = Field(None, alias="gate")
    other_laboratories: OtherLaboratories | None = Field(None, alias="elsewhere")
    acceptance: AcceptanceQuality | None = None
    counts: CountErrors | None = None
    benchmarks: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], Benchmark] = {}
    fields: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], dict[str, Metric]] = Field(
        {}, description="Scores of a detector by evaluation set of fields"
    )

    def as_written(self) -> dict[str, Any]:
        """Content of `evaluation.json`, with the field names of the file; sections never measured are left out."""
        missing = {
            name for name in ("ood", "other_laboratories", "fields", "acceptance", "counts") if not getattr(self, name)
        }
        return self.model_dump(mode="json", by_alias=True, exclude=missing)
