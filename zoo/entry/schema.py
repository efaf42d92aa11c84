"""What is a published model? A folder of fixed files, read and checked here; nothing in it is ever unpickled.

`config.json` is timm's hub layout with our part under "zoo"; `evaluation.json` and `predictions/*.parquet` hold what
was measured. Outside input is parsed by pydantic, and every problem becomes a sentence.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from zoo.scores import label_mapping as joining

CONFIG = "config.json"
HEAD = "head.skops"
WEIGHTS = "model.safetensors"
EVALUATION = "evaluation.json"
HISTORY = "history.json"
CARD = "README.md"
PREDICTIONS = "predictions"

ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,192}$")
ELSEWHERE = "Its weights are published elsewhere."
MAX_JSON_BYTES = 20_000_000
MAX_HEADER_BYTES = 10_000_000
MAX_ROWS, MAX_TABLE_BYTES = 2_000_000, 500_000_000  # of stored predictions
MAX_CARD_BYTES = 2_000_000
MAX_PARAMETERS = 1_000_000_000
MAX_SIDE = 2048
WEIGHT_TYPES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I64": 8, "I32": 4, "U8": 1, "I8": 1, "BOOL": 1, "I16": 2}
SLACK = 0.02  # by which stored probabilities may miss adding up to 1
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm: state, not parameters

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
Part = TypeVar("Part", bound=BaseModel)


def _shown(text: str) -> str:
    """Text that pages show: nothing in it may be read as HTML, as a link or as a picture from elsewhere."""
    if re.search(r"[\x00-\x08\x0b-\x1f<]|\]\s*[(\[:]|!\[|://", text):
        raise ValueError("holds markup or an address; it is shown as plain text")
    return text


Shown = Annotated[str, Field(max_length=1000), AfterValidator(_shown)]


class EntryError(ValueError):
    """An entry that cannot be used; the message is a sentence for the user."""


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


class MapQuality(BaseModel):
    """What `training explain-quality` found out about a method's maps."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)
    frames: Pointing | None = Field(None, alias="bccd-frames")
    copies: Pointing | None = Field(None, alias="dataset2-test")
    road: Metric | None = None
    deletion: Metric | None = None
    insertion: Metric | None = None
    sanity: dict[str, float] = {}


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


@dataclass(frozen=True)
class Weights:
    """What a safetensors header says: number of parameters (without batch-norm state) and the file's size in bytes.

    What is not here yet has as many parameters as the Hub says, None if it does not.
    """

    parameters: int | None
    bytes: int


class Origin(Protocol):
    """Where an entry's files come from that are not on this computer yet."""

    def fetch(self, name: str) -> None:
        """Fetch a file if the entry has it and it is not here. Raises EntryError if it cannot be had."""


@dataclass(frozen=True)
class Entry:
    """One model of the zoo. A broken one has a `reason` and no `config`."""

    id: str
    folder: Path
    config: Config | None
    evaluation: Evaluation
    weights: Weights | None
    reason: str | None = None
    members: tuple[Entry, ...] = ()
    origin: Origin | None = None

    def file(self, name: str) -> Path:
        """Where one of its files lies, or would. From the Hub it is fetched first.

        Raises EntryError if it cannot be had.
        """
        if self.origin is not None:
            self.origin.fetch(name)
        return self.folder / name

    @property
    def ok(self) -> bool:
        """Whether the entry could be read."""
        return self.config is not None

    @property
    def usable(self) -> bool:
        """Whether the entry can classify: readable and its weights are here (an ensemble's: its members')."""
        return self.ok and self.weights is not None

    def among(self, shares: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """Probabilities (n, len(labels)) of a member, as probabilities of the entry's own labels."""
        same = (self.config.zoo.same if self.config else None) or {}
        return joining.among(shares, labels, self.labels, same)

    def asked(self, label: str, member: Entry) -> int:
        """Which of a member's classes stands for one of the entry's labels: that of its name, else the first of it."""
        if label in member.labels:
            return member.labels.index(label)
        same = (self.config.zoo.same if self.config else None) or {}
        return next(place for place, name in enumerate(member.labels) if same.get(name) == label)

    @property
    def shares(self) -> list[float]:
        """What each member of an ensemble counts, adding up to 1."""
        given = self.config.zoo.member_weights if self.config else None
        return given or [1 / max(len(self.members), 1)] * len(self.members)

    @property
    def counted(self) -> list[tuple[Entry, float]]:
        """An ensemble's members that have a share in its answers, with it; the others need not be asked."""
        return [(member, share) for member, share in zip(self.members, self.shares, strict=True) if share > 0]

    @property
    def networks(self) -> list[Entry]:
        """Those that answer for it: itself, or an ensemble's members that count."""
        return [member for member, _ in self.counted] or [self]

    @property
    def elsewhere(self) -> Elsewhere | None:
        """What is known of its kind in laboratories it never saw; of one model asked for other labels, that model's."""
        only = self.members[0].elsewhere if len(self.members) == 1 else None
        return self.evaluation.elsewhere or only

    @property
    def title(self) -> str:
        """The model's name for people; the id where it is broken."""
        return self.config.zoo.title if self.config else self.id

    @property
    def labels(self) -> list[str]:
        """Labels in the order of the network's outputs; none where the entry is broken."""
        return self.config.label_names if self.config else []

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that the model was trained by, as its config keeps it; empty where it keeps none."""
        recipe = (self.config.zoo.model_extra or {}).get("recipe") if self.config else None
        return recipe if isinstance(recipe, dict) else {}

    @property
    def views(self) -> int:
        """How many turned and mirrored views of a picture it looks at."""
        return self.config.zoo.views if self.config else 1

    def with_views(self, count: Literal[1, 2, 4, 8]) -> Entry:
        """The entry looking at so many views of a picture; an ensemble's members each."""
        if self.config is None:
            return self
        changed = self.config.model_copy(update={"zoo": self.config.zoo.model_copy(update={"views": count})})
        return replace(self, config=changed, members=tuple(member.with_views(count) for member in self.members))

    @property
    def system(self) -> str:
        """Letter of the published system that the model is an account of; empty for all others."""
        found = self.recipe.get("system", "")
        return found if isinstance(found, str) else ""

    @property
    def data(self) -> str:
        """Name of the data set that the model was trained on; empty where it is not told."""
        data = self.recipe.get("data")
        found = data.get("name", "") if isinstance(data, dict) else ""
        return found if isinstance(found, str) else ""

    @property
    def mixed(self) -> tuple[str, ...]:
        """The data sets that were joined for its training; none where it was one."""
        data = self.recipe.get("data")
        mix = data.get("mix") if isinstance(data, dict) else None
        return tuple(map(str, mix)) if isinstance(mix, dict) else ()

    def describe(self, label: str) -> str:
        """The label, with its description where the entry has one."""
        text = self.config.label_descriptions.get(label) if self.config else None
        return f"{label}: {text}" if text else label


def read_entry(folder: Path, name: str | None = None, links: bool = False) -> Entry:
    """Read an entry's folder, called `name` or as it is. Never raises on bad content: it comes back with the reason.

    Files that are `links` out of the folder are refused, unless it is one that we put together ourselves.
    """
    empty, name = Evaluation(), name or folder.name
    try:
        if not links:
            _check_links(folder)
        if not ID.match(name):
            raise EntryError("The folder's name may only have letters, digits, dots, dashes and underscores.")
        config = _parse(folder / CONFIG, Config)
        evaluation = _parse(folder / EVALUATION, Evaluation) if (folder / EVALUATION).exists() else empty
        weights = read_header(folder / WEIGHTS) if (folder / WEIGHTS).exists() else None
        if weights and config.zoo.head:
            weights = _with_head(weights, folder / HEAD)
    except EntryError as error:
        return Entry(name, folder, None, empty, None, str(error))
    if config.zoo.members:
        reason = f"It is an ensemble of {', '.join(config.zoo.members)}, which have to be in the zoo with it."
    else:
        reason = None if weights else f"{ELSEWHERE} Its figures can be compared, but it cannot classify here."
    return Entry(name, folder, config, evaluation, weights, reason)


def _check_links(folder: Path) -> None:
    """A folder that came from somebody else must not show, or send on, what lies elsewhere on this computer."""
    home = folder.resolve()
    for place in (folder, folder / PREDICTIONS):
        for path in place.iterdir() if place.is_dir() else ():
            if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(home)):
                raise EntryError(f"{path.name} is a link that leads out of the entry's folder. Copy the file instead.")


def _with_head(weights: Weights, head: Path) -> Weights:
    try:
        return Weights(weights.parameters, weights.bytes + head.stat().st_size)
    except OSError as error:
        raise EntryError(f"{head.name} cannot be read: {error.strerror}.") from error


def with_members(entry: Entry, others: Mapping[str, Entry]) -> Entry:
    """An ensemble with its members found among `others` by id; any other entry as it is.

    Where a member is missing, is unusable, is an ensemble itself or cannot name the labels, the entry stays unusable,
    with the reason.
    """
    if entry.config is None or not entry.config.zoo.members:
        return entry
    found = []
    for name in entry.config.zoo.members:
        # beside it in its own namespace, where it is from the Hub
        member = others.get(f"{entry.id.split('--')[0]}--{name}") if entry.origin else others.get(name)
        if member is None:
            return replace(entry, reason=f"Its member {name} is not in the zoo.")
        if not member.usable or member.config is None or member.config.zoo.members:
            return replace(entry, reason=f"Its member {name} cannot be used here. {member.reason or ''}".strip())
        same = entry.config.zoo.same
        known = member.labels if same is None else joining.mapping(member.labels, entry.labels, same).values()
        if set(known) != set(entry.labels):
            return replace(entry, reason=f"Its member {name} names other classes.")
        found.append(member)
    sizes = [member.weights for member in found if member.weights]
    counts = [size.parameters for size in sizes]
    total = None if None in counts else sum(count for count in counts if count)
    weights = Weights(total, sum(size.bytes for size in sizes))
    return replace(entry, members=tuple(found), weights=weights, reason=None)


def read_header(path: Path) -> Weights:
    """Check a safetensors file by its header alone (https://github.com/huggingface/safetensors#format).

    Raises EntryError if it is no safetensors file, is cut short, or claims other sizes than it has.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise EntryError(f"{path.name} is not a safetensors file, or it is cut short.")
            header = json.loads(file.read(length))
    except OSError as error:
        raise EntryError(f"{path.name} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, EntryError):
            raise
        raise EntryError(f"{path.name} is not a safetensors file: its header is damaged.") from error
    return Weights(_count(path.name, header, size - 8 - length), size)


def read_predictions(entry: Entry, benchmark: str) -> pd.DataFrame:
    """Per-image predictions: columns file, cell, label and one probability column (float32) a label of the benchmark.

    Raises EntryError if they are missing or do not fit the benchmark's labels.
    """
    described = entry.evaluation.benchmarks.get(benchmark)
    path = entry.file(f"{PREDICTIONS}/{benchmark}.parquet")
    if described is None or not path.is_file():
        raise EntryError(f"{entry.id} keeps no predictions for {benchmark}.")
    try:
        told = pq.read_metadata(path)
        size = sum(told.row_group(n).total_byte_size for n in range(told.num_row_groups))
        if told.num_rows > MAX_ROWS or size > MAX_TABLE_BYTES:
            raise EntryError(f"{path.name} of {entry.id} has {told.num_rows:,} rows, more than are read.")
        table = pq.read_table(path).to_pandas()
    except EntryError:
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        raise EntryError(f"{path.name} of {entry.id} is not a readable parquet file.") from error
    columns = ["file", "cell", "label", *(f"p:{label}" for label in described.labels)]
    missing = [name for name in columns if name not in table]
    if missing:
        raise EntryError(f"{path.name} of {entry.id} has no column {', '.join(missing)}.")
    table = table[columns].rename(columns=lambda name: name.removeprefix("p:"))
    unknown = set(table["label"]) - set(described.labels)
    if unknown:
        raise EntryError(f"{path.name} of {entry.id} has labels the benchmark lacks: {', '.join(sorted(unknown))}.")
    table = table.astype(dict.fromkeys(described.labels, np.float32))
    wrong = _not_predictions(table, described.labels)
    if wrong:
        raise EntryError(f"{path.name} of {entry.id} {wrong}.")
    return table


def _not_predictions(table: pd.DataFrame, labels: Sequence[str]) -> str | None:
    """What is wrong with a prediction table, to follow its name in a sentence."""
    shares = table[list(labels)].to_numpy()
    if table.empty:
        return "has no rows"
    if table[["file", "cell", "label"]].isna().to_numpy().any() or not np.isfinite(shares).all():
        return "has values that are missing or not numbers"
    if table["file"].duplicated().any():
        return f"names a picture more than once: {table['file'][table['file'].duplicated()].iloc[0]}"
    # half precision rounds each share by up to 0.0005
    if shares.min() < 0 or np.abs(shares.sum(1) - 1).max() > SLACK:
        return "has shares that are not probabilities: they do not add up to 1"
    return None


def as_stored(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """A prediction table with its probabilities rounded as they are stored: figures recompute exactly."""
    return table.astype(dict.fromkeys(labels, np.float16)).astype(dict.fromkeys(labels, np.float32))


def write_predictions(path: Path, table: pd.DataFrame, labels: list[str]) -> None:
    """Write columns file, cell, label and the labels' probabilities, these in half precision, zstd-compressed."""
    stored = table[["file", "cell", "label", *labels]].astype(dict.fromkeys(labels, np.float16))
    stored = stored.rename(columns={label: f"p:{label}" for label in labels})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(stored, preserve_index=False), path, compression="zstd", compression_level=19)


def read_history(entry: Entry) -> pd.DataFrame:
    """Per-epoch curves, one row an epoch; empty where there are none or they cannot be read."""
    try:
        return pd.DataFrame(_json(entry.file(HISTORY)))
    except (EntryError, ValueError):
        return pd.DataFrame()


def read_card(entry: Entry) -> str:
    """The model card's Markdown without its metadata block; empty where there is none."""
    try:
        path = entry.file(CARD)
        if path.stat().st_size > MAX_CARD_BYTES:
            return ""
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, EntryError):
        return ""
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)


def _json(path: Path) -> Any:
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_JSON_BYTES else ""
    except FileNotFoundError as error:
        raise EntryError(f"{path.name} is missing.") from error
    except OSError as error:
        raise EntryError(f"{path.name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise EntryError(f"{path.name} is not valid JSON: it is no text.") from error
    if size > MAX_JSON_BYTES:
        raise EntryError(f"{path.name} is larger than {MAX_JSON_BYTES // 1_000_000} MB.")
    try:
        return json.loads(text)
    # not only damage: Python reads no number of more than some thousand digits
    except (ValueError, RecursionError) as error:
        raise EntryError(f"{path.name} is not valid JSON: {str(error).splitlines()[0]}.") from error


def _parse(path: Path, kind: type[Part]) -> Part:
    value = _json(path)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise EntryError(f"{path.name}: {where + ': ' if where else ''}{first['msg']}{more}.") from error


def _count(name: str, header: Any, data_bytes: int) -> int:
    """Number of parameters in a parsed safetensors header; raises EntryError where its sizes do not add up."""
    if not isinstance(header, dict):
        raise EntryError(f"{name} is not a safetensors file: its header is damaged.")
    total, end = 0, 0
    for key, tensor in header.items():
        if key == "__metadata__":
            continue
        shape, kind, offsets = _tensor(name, key, tensor)
        elements = math.prod(shape)
        if elements > MAX_PARAMETERS or offsets[1] - offsets[0] != elements * WEIGHT_TYPES[kind]:
            raise EntryError(f"{name}: tensor {key!r} claims a size it does not have.")
        end = max(end, offsets[1])
        if not key.endswith(BUFFERS):
            total += elements
    if end != data_bytes:
        raise EntryError(f"{name} is cut short or too long: {data_bytes:,} bytes of weights, {end:,} announced.")
    if total > MAX_PARAMETERS:
        raise EntryError(f"{name} has {total:,} parameters; at most {MAX_PARAMETERS:,} are loaded.")
    return total


def _tensor(name: str, key: str, tensor: Any) -> tuple[list[int], str, list[int]]:
    try:
        shape, kind, offsets = tensor["shape"], tensor["dtype"], tensor["data_offsets"]
        numbers = [*shape, *offsets]
        if kind not in WEIGHT_TYPES or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in numbers):
            raise TypeError
    except (KeyError, TypeError) as error:
        raise EntryError(f"{name}: tensor {key[:80]!r} is not described as safetensors asks.") from error
    return shape, kind, offsets


def summary(entry: Entry) -> Mapping[str, Any]:
    """What `python -m zoo list --json` prints of an entry."""
    config = entry.config
    return {
        "id": entry.id,
        "title": entry.title,
        "task": config.zoo.task if config else "",
        "labels": entry.labels,
        "architecture": config.architecture if config else "",
        "parameters": entry.weights.parameters if entry.weights else None,
        "weights": entry.weights is not None,
        "members": list(config.zoo.members or []) if config else [],
        "status": "ok" if entry.ok else "broken",
        "reason": entry.reason,
        "benchmarks": {
            name: {metric: value.model_dump() for metric, value in benchmark.metrics.items()}
            for name, benchmark in entry.evaluation.benchmarks.items()
        },
        "speed": (entry.evaluation.model_extra or {}).get("speed"),
    }
