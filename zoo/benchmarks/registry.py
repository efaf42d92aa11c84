"""Benchmarks: named, versioned and hashed sets of pictures, one TOML file each in `zoo/benchmarks/sets`.

A benchmark's rows (picture, source cell, label, sometimes a box) stand in a CSV file of the same name, so that two
people who name a benchmark mean the same pictures. The pictures themselves are not here: the data set that the
benchmark names says in which folder of a data root they lie, and what sample they show. Labels are joined by name: a
model's label counts as the benchmark's label of the same name, or as the one that the data set joins it with.

Adding a benchmark is adding its two files, here or in the folder `benchmarks` of what HEMAZOO_REGISTRY names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from zoo.benchmarks import corruptions
from zoo.data import DataError, FileSource, Source
from zoo.data.registry import DataSetInfo, definition_files, get_dataset, laboratories, parse_toml
from zoo.entry import Benchmark, Entry, Label
from zoo.lazy import lazy_module
from zoo.scores import label_mapping
from zoo.scores.sample.samples import Sample, samples

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

BUILTIN = Path(__file__).parent / "sets"
CROSS_VALIDATION = "-grouped-cv"
LEFT_OUT = "-left-out"  # answers of others of the same recipe, each in a laboratory that it never saw
CORRUPTED = "-corrupted"  # end of the name of a benchmark's corrupted twin
COLUMNS = ("file", "cell", "label")
BOX = ("left", "top", "right", "bottom")  # further columns of a benchmark of crops, in pixels


class Definition(BaseModel):
    """A benchmark's TOML file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: int = Field(ge=1)
    title: str = Field(min_length=1, max_length=120)
    data: str = Field(description="Name of the data set whose pictures these are")
    labels: list[Label] = Field(min_length=2)
    corruptions: str = Field("", description="What becomes of each picture: a set of zoo.benchmarks.corruptions")
    statistic: str = Field("", description="Score that sums the benchmark up; empty: the corruptions' usual one")
    part: Literal["all", "test", "frames", "sample"] = Field(
        "all",
        description="Which pictures the rows are: all of its classes; the test side of the split of `recipe`; cells of "
        "frames whose copies that recipe does not train on; a sample of another benchmark's rows",
    )
    recipe: str = Field("", description="Recipe whose split the rows are made by")
    rows: str = Field("", description="Benchmark whose rows these are, or are a sample of; empty: its own")
    per_class: int = Field(0, ge=0, description="Pictures of a class in a sample")
    leaderboard: bool = Field(False, description="Whether it is the leaderboard's measure of unseen laboratories")
    known_cells: bool = Field(False, description="Whether its thumbnails are shown as known cells beside new ones")
    note: Annotated[str, Field(max_length=600)] = ""

    @field_validator("corruptions")
    @classmethod
    def _is_a_set(cls, value: str) -> str:
        if value and value not in corruptions.SETS:
            raise ValueError(f"there is no set {value}; there are {', '.join(corruptions.SETS)}")
        return value

    @model_validator(mode="after")
    def _rows_can_be_made(self) -> Definition:
        if self.part in ("test", "frames") and not self.recipe:
            raise ValueError(f'part = "{self.part}" needs recipe')
        if self.part == "sample" and not (self.rows and self.per_class):
            raise ValueError('part = "sample" needs rows and per_class')
        return self

    @property
    def data_set(self) -> DataSetInfo:
        """The data set that the benchmark names. Raises DataError if it is not known."""
        return get_dataset(self.data)

    @property
    def rows_of(self) -> str:
        """The benchmark whose CSV file holds the rows; empty: its own."""
        return "" if self.part == "sample" else self.rows

    @property
    def main_statistic(self) -> str:
        """Name of the score that sums it up."""
        return self.statistic or corruptions.statistic_of(self.corruptions)


@dataclass(frozen=True)
class BenchmarkSet:
    """A named evaluation set: `rows` has the columns file, cell, label and, for crops, left, top, right, bottom.

    `described` tells where its pictures lie and were taken, where that is no data set of the registry; `own_sample`
    what they are a sample of, where that is no sample that a data set may name.
    """

    name: str
    definition: Definition
    rows: pd.DataFrame
    described: DataSetInfo | None = None
    own_sample: Sample | None = None

    @property
    def data_set(self) -> DataSetInfo:
        """The data set that its pictures belong to."""
        return self.described or self.definition.data_set

    @property
    def credit(self) -> str:
        """Citation of its pictures and of their processing."""
        more = corruptions.CREDITS.get(self.definition.corruptions)
        return f"{self.data_set.credit}; {more}" if more else self.data_set.credit

    @property
    def labels(self) -> list[str]:
        """Its classes."""
        return self.definition.labels

    @cached_property
    def hash(self) -> str:
        """SHA-256 of version, labels, mapping, corruptions and rows: another hash is another benchmark."""
        one = self.definition
        joins = {kind: name for kind, name in self.data_set.joins.items() if name in one.labels}
        hashed = {"version": one.version, "labels": one.labels, "same": joins, "corruptions": one.corruptions}
        content = json.dumps(hashed, separators=(",", ":"), ensure_ascii=False)
        table = self.rows.sort_values(list(self.rows.columns)).to_csv(index=False, lineterminator="\n")
        return hashlib.sha256(f"{content}\n{table}".encode()).hexdigest()

    def mapping(self, labels: Sequence[str]) -> dict[str, str]:
        """Label of a model → label here, for those that count."""
        return label_mapping.map_labels(labels, self.labels, self.data_set.joins)

    def fits(self, entry: Entry) -> bool:
        """Whether the entry can name every class that occurs here."""
        return set(self.mapping(entry.labels).values()) == set(self.labels)

    @property
    def sample(self) -> Sample | None:
        """The sample that the pictures show; None where models are asked among the benchmark's kinds only."""
        return self.own_sample or samples().get(self.data_set.sample)

    def pictures(self, root: Path) -> list[tuple[str, str, str, Source]]:
        """(name, cell, label, source) of every picture to classify, corrupted copies included.

        Raises DataError if pictures are missing under `root`.
        """
        folder = root / self.data_set.place
        gone = [file for file in self.rows["file"] if not (folder / file).is_file()]
        if gone:
            raise DataError(
                f"{len(gone):,} of {len(self.rows):,} pictures of {self.name} are not in {folder}, for instance "
                f"{gone[0]}. Name the folder that holds {self.data_set.place} with --data."
            )
        found: list[tuple[str, str, str, Source]] = []
        for row in self.rows.to_dict("records"):
            file = str(row["file"])
            source = FileSource(folder / file, _box(row))
            if self.definition.corruptions:
                for kind, severity in corruptions.SETS[self.definition.corruptions]:
                    name = corruptions.corrupted_name(file, kind, severity)
                    corrupted = corruptions.CorruptedSource(source, file, kind, severity)
                    found.append((name, row["cell"], row["label"], corrupted))
            else:
                found.append((file, row["cell"], row["label"], source))
        return found


def laboratories_of(entry: Entry) -> set[str]:
    """Laboratories of the pictures that the entry was trained on; names of its data sets where these are not known."""
    return set(laboratories(entry.data_sets).values())


def find_source(benchmark: str, name: str, data: str, folders: Sequence[Path]) -> Source | None:
    """Source of the picture called `name` in a prediction table; None if none of the data `folders` holds it.

    `data` is the data set's name where the benchmark is none of the published ones. A name that leads out of its folder
    (an entry from elsewhere may say anything) is never followed.
    """
    file, kind, severity = corruptions.split_name(name)
    known = published().get(benchmark)
    place = Path(known.data_set.place).name if known else data
    for folder in folders:
        path = folder / file
        if folder.name == place and path.resolve().is_relative_to(folder.resolve()) and path.is_file():
            source: Source = FileSource(path, _box_of(benchmark, file) if known else None)
            return corruptions.CorruptedSource(source, file, kind, severity) if severity else source
    return None


def _box_of(benchmark: str, file: str) -> tuple[int, int, int, int] | None:
    rows = get_benchmark(benchmark).rows
    found = rows[rows["file"] == file].to_dict("records")
    return _box(found[0]) if found else None


def _box(row: Mapping) -> tuple[int, int, int, int] | None:
    if BOX[0] not in row:
        return None
    left, top, right, bottom = (int(row[edge]) for edge in BOX)
    return left, top, right, bottom


def published() -> dict[str, Definition]:
    """Every benchmark's definition by its name. Raises DataError if one cannot be used."""
    return {name: _definition(path, path.stat().st_mtime_ns) for name, path in _files().items()}


def benchmark_title(name: str, record: Benchmark) -> str:
    """A benchmark's title for people: the definition's where there is one, else as stored with the scores."""
    return _definition(path, path.stat().st_mtime_ns).title if (path := _files().get(name)) else record.title


def names() -> list[str]:
    """Every benchmark's name."""
    return list(_files())


def get_definition(name: str) -> Definition:
    """A benchmark's definition. Raises DataError if there is none, or it cannot be used."""
    path = _file(name)
    return _definition(path, path.stat().st_mtime_ns)


def get_benchmark(name: str) -> BenchmarkSet:
    """A benchmark by its name. Raises DataError if there is none, or its files cannot be used."""
    own = _file(name)
    rows = _file(get_definition(name).rows_of or name).with_suffix(".csv")
    if not rows.is_file():
        raise DataError(f"The benchmark {name} has no rows: {rows} is not there.")
    return _benchmark(own, own.stat().st_mtime_ns, rows, rows.stat().st_mtime_ns)


def _files() -> dict[str, Path]:
    return definition_files(BUILTIN, "benchmarks")


def _file(name: str) -> Path:
    files = _files()
    if name not in files:
        raise DataError(f"There is no benchmark called {name}. There are: {', '.join(files)}.")
    return files[name]


@cache
def _definition(path: Path, changed: int) -> Definition:
    """A benchmark's TOML file; `changed` is part of the key, so that an edited file is read again."""
    return parse_toml(path, Definition, "a benchmark")


@cache
def _benchmark(path: Path, changed: int, rows_path: Path, rows_changed: int) -> BenchmarkSet:
    """A benchmark's two files; the times of change are part of the key."""
    definition = _definition(path, changed)
    rows = pd.read_csv(rows_path, dtype=dict.fromkeys(COLUMNS, str))
    missing = [column for column in COLUMNS if column not in rows]
    if missing:
        raise DataError(f"{rows_path.name} has no column {', '.join(missing)}.")
    scored = definition.data_set.scored
    if scored and not set(definition.labels) <= set(scored):
        doubtful = ", ".join(sorted(set(definition.labels) - set(scored)))
        raise DataError(f"{path.name} scores {doubtful}, whose labels in {definition.data} are not good enough.")
    unknown = set(rows["label"]) - set(definition.labels)
    if unknown:
        raise DataError(f"{rows_path.name} has labels that {path.name} lacks: {', '.join(sorted(unknown))}.")
    return BenchmarkSet(path.stem, definition, rows)
