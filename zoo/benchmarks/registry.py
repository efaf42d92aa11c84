"""What is a model measured on? Named, versioned and hashed sets of pictures, one TOML file each beside this one.

A benchmark's rows (picture, source cell, label, sometimes a box) stand in a CSV file of the same name, so that two
people who say `lisc` mean the same pictures. The pictures themselves are not here: `place` says in which folder of a
data root they lie. Labels are joined by name: a model's label counts as the benchmark's label of the same name, or as
the one that `same` names for it. Adding a benchmark is adding a file.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.benchmarks import corruptions
from zoo.data import DataError, FileSource, Source
from zoo.entry import Entry, Label
from zoo.scores import label_mapping

FOLDER = Path(__file__).parent / "sets"
CROSS_VALIDATION = "-grouped-cv"
LEFT_OUT = "-left-out"  # answers of others of the same recipe, each in a laboratory that it never saw
COLUMNS = ("file", "cell", "label")


class Definition(BaseModel):
    """A benchmark's TOML file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: int = Field(ge=1)
    title: str = Field(min_length=1, max_length=120)
    place: str = Field(description="Folder of the pictures under the data root")
    laboratory: str = Field(description="Where the pictures were taken; a model trained there is at home")
    credit: str
    labels: list[Label] = Field(min_length=2)
    same: dict[str, str] = Field({}, description="Label of a model → the label of this benchmark that it counts as")
    corruptions: Literal["", "blood", "shifted"] = ""
    rows: str = Field("", description="Name of the benchmark whose rows these are; empty: its own")
    note: Annotated[str, Field(max_length=600)] = ""


@dataclass(frozen=True)
class BenchmarkSet:
    """A named evaluation set: `rows` has the columns file, cell, label and, for crops, left, top, right, bottom."""

    name: str
    definition: Definition
    rows: pd.DataFrame

    @property
    def labels(self) -> list[str]:
        """Its classes."""
        return self.definition.labels

    @cached_property
    def hash(self) -> str:
        """SHA-256 of version, labels, mapping, corruptions and rows: another hash is another benchmark."""
        content = self.definition.model_dump_json(include={"version", "labels", "same", "corruptions"})
        table = self.rows.sort_values(list(self.rows.columns)).to_csv(index=False, lineterminator="\n")
        return hashlib.sha256(f"{content}\n{table}".encode()).hexdigest()

    def mapping(self, labels: Sequence[str]) -> dict[str, str]:
        """Label of a model → label here, for those that count."""
        return label_mapping.map_labels(labels, self.labels, self.definition.same)

    def fits(self, entry: Entry) -> bool:
        """Whether the entry can name every class that occurs here."""
        return entry.ok and set(self.mapping(entry.labels).values()) == set(self.labels)

    def answers(self, table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
        """Probabilities of a model's `labels`, summed by label here and scaled to 1: which of *these* is it?

        What a model gives to classes that do not occur here is left out, so that a model of eight classes answers the
        same question as one of four. Where it leaves nothing, all classes are alike.
        """
        given = table[list(labels)].to_numpy()
        found = label_mapping.map_probabilities(given, labels, self.labels, self.definition.same)
        shares = pd.DataFrame(found, index=table.index, columns=self.labels)
        return pd.concat([table[[column for column in COLUMNS if column in table]], shares], axis=1)

    def pictures(self, root: Path) -> list[tuple[str, str, str, Source]]:
        """(name, cell, label, source) of every picture to classify, corrupted copies included.

        Raises DataError if pictures are missing under `root`.
        """
        folder = root / self.definition.place
        gone = [file for file in self.rows["file"] if not (folder / file).is_file()]
        if gone:
            raise DataError(
                f"{len(gone):,} of {len(self.rows):,} pictures of {self.name} are not in {folder}, for instance "
                f"{gone[0]}. Name the folder that holds {self.definition.place} with --data."
            )
        found = []
        for row in self.rows.to_dict("records"):
            file = str(row["file"])
            box = tuple(int(row[side]) for side in ("left", "top", "right", "bottom")) if "left" in row else None
            source = FileSource(folder / file, box)
            if self.definition.corruptions:
                for kind, severity in corruptions.SETS[self.definition.corruptions]:
                    name = corruptions.corrupted_name(file, kind, severity)
                    corrupted = corruptions.CorruptedSource(source, file, kind, severity)
                    found.append((name, row["cell"], row["label"], corrupted))
            else:
                found.append((file, row["cell"], row["label"], source))
        return found


def laboratories_of(entry: Entry) -> set[str]:
    """Where the pictures were taken that the entry was trained on; its data sets' names if no benchmark tells more."""
    places = {definition.place: definition.laboratory for definition in published().values()}
    return {places.get(name, name) for name in entry.data_sets}


def find_source(benchmark: str, name: str, data: str, folders: Sequence[Path]) -> Source | None:
    """Where the picture called `name` in a prediction table lies, if one of the data `folders` holds it; else None.

    `data` is the data set's name where the benchmark is none of the published ones. A name that leads out of its folder
    (an entry from elsewhere may say anything) is never followed.
    """
    file, kind, severity = corruptions.split_name(name)
    known = published().get(benchmark)
    place = known.place if known else data
    for folder in folders:
        path = folder / file
        if folder.name == place and path.resolve().is_relative_to(folder.resolve()) and path.is_file():
            source: Source = FileSource(path, _box(benchmark, file) if known else None)
            return corruptions.CorruptedSource(source, file, kind, severity) if severity else source
    return None


def _box(benchmark: str, file: str) -> tuple[int, int, int, int] | None:
    rows = get_benchmark(benchmark).rows
    if "left" not in rows:
        return None
    found = rows.loc[rows["file"] == file, ["left", "top", "right", "bottom"]]
    return tuple(int(v) for v in found.iloc[0]) if len(found) else None


def published() -> dict[str, Definition]:
    """Every benchmark's definition by its name."""
    return {name: get_definition(name) for name in names()}


def names() -> list[str]:
    """Every benchmark's name."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


@cache
def get_definition(name: str) -> Definition:
    """What a benchmark's TOML file says. Raises DataError if there is none, or it cannot be used."""
    path = FOLDER / f"{name}.toml"
    if name not in names():
        raise DataError(f"There is no benchmark called {name}. There are: {', '.join(names())}.")
    try:
        return Definition.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise DataError(f"{path.name} is not a benchmark: {str(error).splitlines()[0]}") from error


@cache
def get_benchmark(name: str) -> BenchmarkSet:
    """A benchmark by its name. Raises DataError if there is none, or its files cannot be used."""
    definition = get_definition(name)
    rows = pd.read_csv(FOLDER / f"{definition.rows or name}.csv", dtype=dict.fromkeys(COLUMNS, str))
    unknown = set(rows["label"]) - set(definition.labels)
    if unknown:
        raise DataError(f"{name}.csv has labels that {name}.toml lacks: {', '.join(sorted(unknown))}.")
    return BenchmarkSet(name, definition, rows)
