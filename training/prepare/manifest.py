"""Split manifests: a split on disk, with which pictures it was made for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.prepare.dataset import TrainingDataError
from training.prepare.splits import SIDES, Scheme, Split, Table
from zoo.data import DataSet
from zoo.data.table import named
from zoo.files import write_json


class Manifest(BaseModel):
    """A split on disk. `rows` are (file, label, cell, side, SHA-256 of the stored content); `hash` covers all else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(1, ge=1, le=1)
    data: str
    scheme: Scheme
    seed: int
    fractions: tuple[float, ...]
    fold: int | None = None
    folds: int | None = None
    leaky: bool
    leak_share: float
    left_out: dict[str, int]
    rows: list[tuple[str, str, str, str, str]]
    hash: str = ""

    def content_hash(self) -> str:
        """SHA-256 of everything but the hash itself and the order of rows."""
        content = self.model_dump(mode="json", exclude={"hash"})
        content["rows"] = sorted(content["rows"])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_manifest(
    data: DataSet,
    table: Table,
    split: Split,
    scheme: Scheme,
    seed: int,
    fractions: Sequence[float],
    fold: int | None = None,
    folds: int | None = None,
) -> Manifest:
    """The split as it is written; rows of the table are found in the data set by file."""
    digests = dict(zip((item.file for item in data.items), data.digests, strict=True))
    rows = [
        (table.files[i], table.labels[i], table.cells[i], name, digests[table.files[i]])
        for name in SIDES
        for i in split.rows[name].tolist()
    ]
    manifest = Manifest(
        data=data.name,
        scheme=scheme,
        seed=seed,
        fractions=tuple(fractions),
        fold=fold,
        folds=folds,
        leaky=split.leaky,
        leak_share=split.leak_share,
        left_out=dict(split.left_out),
        rows=sorted(rows),
    )
    return manifest.model_copy(update={"hash": manifest.content_hash()})


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest atomically."""
    write_json(path, manifest.model_dump(mode="json"))


def read_manifest(path: Path, data: DataSet) -> Manifest:
    """The manifest at `path`, checked against `data`.

    Raises TrainingDataError if it is missing, damaged, edited, or names pictures that `data` lacks or holds changed.
    """
    try:
        manifest = Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise TrainingDataError(f"The manifest {path} cannot be read: {error.strerror}.") from error
    except (ValidationError, ValueError) as error:
        raise TrainingDataError(f"{path} is no split manifest. Make one with python -m training split.") from error
    if manifest.hash != manifest.content_hash():
        raise TrainingDataError(f"{path} was changed after it was made: its hash does not fit. Make it again.")
    digests = dict(zip((item.file for item in data.items), data.digests, strict=True))
    gone = [file for file, *_ in manifest.rows if file not in digests]
    changed = [file for file, *_, digest in manifest.rows if file in digests and digests[file] != digest]
    labels = {item.file: item.label for item in data.items}
    renamed = [file for file, label, *_ in manifest.rows if file in labels and labels[file] != label]
    for what, files in (("are missing", gone), ("have changed", changed), ("have another label", renamed)):
        if files:
            raise TrainingDataError(
                f"The data set is not the one {path.name} was made for: {len(files):,} pictures {what} "
                f"({named(files, 3)}). Get the data set again, or make a new split."
            )
    return manifest


def split_of_manifest(manifest: Manifest, files: Sequence[str], labels: set[str]) -> Split:
    """The manifest's sides as rows of `files`; pictures that it does not name, or of other `labels`, belong to none.

    Raises TrainingDataError if one of its pictures is not among `files` (it could not be decoded).
    """
    place = {file: row for row, file in enumerate(files)}
    wanted = [row for row in manifest.rows if row[1] in labels]
    gone = [file for file, *_ in wanted if file not in place]
    if gone:
        raise TrainingDataError(f"{len(gone):,} pictures of the split cannot be used ({named(gone, 3)}).")
    cells = [f"unsplit-{row}" for row in range(len(files))]
    rows: dict[str, list[int]] = {name: [] for name in SIDES}
    for file, _, cell, name, _ in wanted:
        cells[place[file]] = cell
        rows[name].append(place[file])
    arrays = {name: np.array(sorted(found), np.int64) for name, found in rows.items()}
    return Split(arrays, tuple(cells), manifest.left_out, manifest.hash, manifest.leaky, manifest.leak_share)
