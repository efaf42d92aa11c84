"""Known data sets and laboratories: one TOML file each in `zoo/data/sets`.

Adding a data set is adding a file. What a laboratory keeps to itself goes into a folder of its own that
HEMAZOO_REGISTRY names: its data sets in `data`, its benchmarks in `benchmarks` (see `zoo.benchmarks.registry`).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from zoo.data.layouts import layouts
from zoo.data.table import DataError
from zoo.scores.samples import samples

VARIABLE = "HEMAZOO_REGISTRY"
BUILTIN = Path(__file__).parent / "sets"
AUTO, UNREADABLE = "auto", "none"  # readers: the one that knows the layout; none yet
NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,60}$")

Parsed = TypeVar("Parsed", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Grouping(_Part):
    """Grouping of pictures that must stay on one side of a split: by source cell, smear, slide or patient."""

    by: Literal["picture", "audit", "column", "folder", "file"] = "picture"
    audit: str = Field("", description="Name of the stored audit that tells the source cell of each picture")
    table: str = Field("", description="CSV file in the data set's folder with the column file")
    column: str = Field("", description="Column of the table that names the group")
    pattern: str = Field("", description="Regular expression on the file's name; its first group names the group")
    prefix: str = Field("", description="Put before a group's name")
    test_benchmark: str = Field("", description="Benchmark whose pictures are the test side; empty: the set's own TEST")

    @model_validator(mode="after")
    def _is_complete(self) -> Grouping:
        needed = {"audit": ("audit",), "column": ("table", "column"), "file": ("pattern",)}.get(self.by, ())
        for name in needed:
            if not getattr(self, name):
                raise ValueError(f'by = "{self.by}" needs {name}')
        if self.pattern and re.compile(self.pattern).groups < 1:
            raise ValueError("pattern has no group in brackets")
        return self


class Download(_Part):
    """Source of a data set's download, and its place in what arrives."""

    source: str = Field(alias="from", description="As in `training fetch`: kaggle:OWNER/NAME or hf:OWNER/NAME")
    alias: str = Field("", description="Short name of this download for `training fetch`")
    holds: str = Field("", description="Name of a folder directly inside the data set's folder in the download")


class DataSetInfo(_Part):
    """Description of a data set: origin, licence, role, reader, labels and grouping.

    A data set that was made from another one's pictures names it in `augmented_from`; both are then one laboratory.
    """

    name: str
    title: str = Field(min_length=1, max_length=80)
    laboratory: str = Field(description="Where the pictures were taken; a model trained there is at home")
    place: str = Field(description="Folder below the data root")
    licence: str
    citation: str
    role: Literal["training", "validation", "test"] = Field(
        description="training: models may learn from it; validation: recipes and limits are chosen by it, no weight is "
        "trained on it; test: scored once, at the end"
    )
    reader: str = Field(AUTO, description="Name of a layout, auto, or none where there is no reader yet")
    pictures: Literal["cells", "fields"] = Field("cells", description="One cell a picture, or whole smear fields")
    native_size: tuple[int, int] | None = Field(None, description="Usual width and height in pixels")
    labels: dict[str, str] = Field({}, description="Label in the data set → kind of cell; an empty kind: left out")
    joins: dict[str, str] = Field(
        {}, description="Kind → the coarser kind that this data set's definition counts it as"
    )
    sample: str = Field(
        "", description="What the pictures are a sample of (zoo/scores/samples.toml); empty: chosen by kind"
    )
    scored: list[str] = Field([], description="Kinds whose labels are good enough for scores; empty: all")
    cells: Grouping = Grouping()
    augmented_from: str = Field("", description="Data set whose frames these pictures are augmented copies of")
    frames: str = Field("", description="Folder inside `place` that holds the frames other sets were made from")
    shares_pictures_with: list[str] = Field([], description="Data sets that show some of the same pictures")
    limits_gates: bool = Field(
        False, description="Whether the gates of models of other laboratories take their second limit from its cells"
    )
    thumbnails: list[str] = Field([], description="Patterns of files whose thumbnails may be published; empty: none")
    fetch: Download | None = None
    note: Annotated[str, Field(max_length=600)] = ""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError("may only have small letters, digits, dashes and underscores")
        return value

    @field_validator("place", "frames")
    @classmethod
    def _stays_below(cls, value: str) -> str:
        if value.startswith("/") or ".." in PurePosixPath(value).parts:
            raise ValueError("leads out of the data root")
        return value

    @field_validator("reader")
    @classmethod
    def _is_a_reader(cls, value: str) -> str:
        known = [AUTO, UNREADABLE, *(one.name for one in layouts())]
        if value not in known:
            raise ValueError(f"there is no reader {value}; there are {', '.join(known)}")
        return value

    @field_validator("sample")
    @classmethod
    def _is_a_sample(cls, value: str) -> str:
        if value and value not in samples():
            raise ValueError(f"there is no sample {value}; there are {', '.join(samples())}")
        return value

    @property
    def readable(self) -> bool:
        """Whether some reader can read it."""
        return self.reader != UNREADABLE

    @property
    def credit(self) -> str:
        """Citation, with the licence."""
        return ", ".join(filter(None, (self.citation, self.licence)))

    def kind(self, label: str) -> str:
        """Kind of cell that a label of this data set stands for, empty where its pictures are left out."""
        return self.labels.get(label, label.lower())

    def may_be_published(self, file: str) -> bool:
        """Whether a thumbnail of this picture may be part of the project or of a report."""
        return any(PurePosixPath(file).match(pattern) for pattern in self.thumbnails)


def datasets() -> dict[str, DataSetInfo]:
    """Every known data set by its name. Raises DataError if a file cannot be used."""
    found = {}
    for name, path in definition_files(BUILTIN, "data").items():
        found[name] = _parse(name, path, path.stat().st_mtime_ns)
    return found


def get_dataset(name: str) -> DataSetInfo:
    """The data set of this name. Raises DataError if there is none, or its file cannot be used."""
    known = datasets()
    if name not in known:
        raise DataError(f"There is no data set called {name}. There are: {', '.join(known)}.")
    return known[name]


def laboratory_of(name: str) -> str:
    """The laboratory of a data set; its own name where the data set is not known."""
    return laboratories([name])[name]


def laboratories(names: Iterable[str]) -> dict[str, str]:
    """As `laboratory_of` for several data sets, by name; the definitions are looked at once."""
    known = datasets()
    return {name: known[name].laboratory if name in known else name for name in names}


def joins_of(laboratories: Iterable[str]) -> dict[str, str]:
    """Kinds that data sets of these laboratories count as coarser ones."""
    wanted = set(laboratories)
    return {
        kind: coarser for one in datasets().values() if one.laboratory in wanted for kind, coarser in one.joins.items()
    }


def augmented_sets() -> list[tuple[DataSetInfo, DataSetInfo]]:
    """Each data set of augmented copies with the one whose frames these were made of."""
    known = datasets()
    return [(one, known[one.augmented_from]) for one in known.values() if one.augmented_from in known]


def definition_files(builtin: Path, kind: str, environment: Mapping[str, str] | None = None) -> dict[str, Path]:
    """TOML files by name: those of the project, and those in the folder `kind` of what HEMAZOO_REGISTRY names.

    Raises DataError if two files have one name.
    """
    named = (environment if environment is not None else os.environ).get(VARIABLE, "")
    folders = [builtin, *(Path(part).expanduser() / kind for part in named.split(os.pathsep) if part)]
    found: dict[str, Path] = {}
    for path in sorted((path for folder in folders for path in folder.glob("*.toml")), key=lambda path: path.stem):
        if path.stem in found:
            raise DataError(f"{path} and {found[path.stem]} have one name. Rename one of them.")
        found[path.stem] = path
    return found


def parse_toml(path: Path, model: type[Parsed], what: str, **more: str) -> Parsed:
    """A TOML file as a `model`; `more` are fields that the file leaves out.

    Raises DataError with a sentence that names the file, the field and the reason.
    """
    try:
        return model.model_validate({**more, **tomllib.loads(path.read_text(encoding="utf-8"))})
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} is not {what}: {str(error).splitlines()[0]}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        reason = f"there is no key {field}" if first["type"] == "extra_forbidden" else f"{field}: {first['msg']}"
        raise DataError(f"{path.name} is not {what}: {reason.removeprefix(': ')}.") from error


@cache
def _parse(name: str, path: Path, changed: int) -> DataSetInfo:
    """A data set's file; `changed` is part of the key, so that an edited file is read again."""
    info = parse_toml(path, DataSetInfo, "a data set", **{"name": name})
    if info.name != name:
        raise DataError(f"{path.name} describes a data set called {info.name}. Call the file {info.name}.toml.")
    return info
