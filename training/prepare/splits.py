"""Which pictures train, which validate, which test? All copies of one cell stay on one side, unless it is said."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from training.audit.measure import Measured
from training.audit.originals import Cells
from training.prepare.dataset import TrainingDataError
from zoo.data import DataSet
from zoo.data.table import named, side
from zoo.files import write_json

SIDES = ("train", "val", "test")
SCHEMES = ("official", "stratified", "grouped", "kfold", "random")
Scheme = Literal["official", "stratified", "grouped", "kfold", "random"]


@dataclass(frozen=True)
class Table:
    """What a split is made from: file, label, source cell, pixel hash and official side of each row, None if unknown.

    `cells` names what a row shows; rows with one name never cross. `known` is False where a picture of an augmented set
    could not be matched with any other, so that nobody knows whose copy it is.
    """

    files: tuple[str, ...]
    labels: tuple[str, ...]
    cells: tuple[str, ...]
    pixels: tuple[str, ...]
    parts: tuple[str | None, ...]
    known: tuple[bool, ...]

    @classmethod
    def plain(
        cls,
        files: Sequence[str],
        labels: Sequence[str],
        pixels: Sequence[str],
        parts: Sequence[str | None] | None = None,
    ) -> Table:
        """A table where nothing but pixel-identical duplicates is known."""
        count = len(files)
        cells = tuple(value[:16] for value in pixels)
        return cls(tuple(files), tuple(labels), cells, tuple(pixels), tuple(parts or [None] * count), (True,) * count)

    def only(self, rows: np.ndarray) -> Table:
        """The table of some of its rows."""
        columns = (self.files, self.labels, self.cells, self.pixels, self.parts, self.known)
        return Table(*(tuple(column[row] for row in rows) for column in columns))


@dataclass(frozen=True)
class Split:
    """Row numbers a side, source cell of each row, rows left out by reason, and a hash of all of it.

    `leaky` splits put copies of one cell on several sides; `leak_share` is the share of test rows whose cell is in
    training.
    """

    rows: Mapping[str, np.ndarray]
    cells: tuple[str, ...]
    left_out: Mapping[str, int]
    hash: str
    leaky: bool = False
    leak_share: float = 0.0


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


def conflicting(labels: Sequence[str], cells: Sequence[str]) -> set[str]:
    """Source cells that carry more than one label; nobody knows which is right, so they are left out."""
    found = defaultdict(set)
    for label, cell in zip(labels, cells, strict=True):
        found[cell].add(label)
    return {cell for cell, names in found.items() if len(names) > 1}


def stratified_split(table: Table, val: float, test: float, seed: int) -> Split:
    """Stratified by label, whole cells: `val` and `test` are shares of all images. Raises TrainingDataError if a class
    is too small for that.
    """
    bad = conflicting(table.labels, table.cells)
    known = np.array(table.known)
    rows = np.array([i for i, cell in enumerate(table.cells) if cell not in bad and known[i]], np.int64)
    rest, tested = cut(table, rows, test, seed)
    trained, validated = cut(table, rest, val / (1 - test), seed + 1)
    left = {
        "one cell under different labels": int(sum(c in bad for c in table.cells)),
        "source cell unknown": int((~known).sum()),
    }
    return finish(table, {"train": trained, "val": validated, "test": tested}, left)


def official_split(table: Table, val: float, seed: int) -> Split:
    """The data set's own TEST is the test set; its own VAL, or else `val` of TRAIN, validates, whole cells.

    A TRAIN picture of unknown cell, or of a cell that is also in TEST, could leak and is left out. A TEST picture of
    unknown cell stays, as a cell of its own. Raises TrainingDataError without a TRAIN and a TEST.
    """
    parts = np.array([part or "" for part in table.parts])
    if not {"train", "test"} <= set(parts):
        raise TrainingDataError(
            "The data set has no TRAIN and TEST folders of its own. Choose another scheme: grouped is the safe one."
        )
    is_test = parts == "test"
    known = np.array(table.known)
    tested = {cell for cell, test in zip(table.cells, is_test, strict=True) if test}
    bad = conflicting(table.labels, table.cells)
    shared = np.array([cell in tested for cell in table.cells]) & ~is_test
    clash = np.array([cell in bad for cell in table.cells]) & ~is_test
    usable = ~is_test & known & ~shared & ~clash & np.isin(parts, ("train", "val"))
    if (parts == "val").any():
        validated = np.flatnonzero(usable & (parts == "val"))
        seen = {table.cells[i] for i in validated}
        trained = np.array([i for i in np.flatnonzero(usable & (parts == "train")) if table.cells[i] not in seen])
    else:
        trained, validated = cut(table, np.flatnonzero(usable), val, seed)
    left = {
        "source cell unknown": int((~known & ~is_test).sum()),
        "source cell also in TEST": int((shared & known).sum()),
        "one cell under different labels": int((clash & ~shared).sum()),
    }
    return finish(table, {"train": trained, "val": validated, "test": np.flatnonzero(is_test)}, left)


def kfold_split(table: Table, folds: int, fold: int, val: float, seed: int) -> Split:
    """Fold number `fold` (from 0) of `folds` is the test set; `val` of the rest validates; whole cells, stratified."""
    bad = conflicting(table.labels, table.cells)
    rows = np.array([i for i, c in enumerate(table.cells) if c not in bad and table.known[i]], np.int64)
    labels, groups = _columns(table, rows)
    fewest = _fewest(labels, groups)
    if fewest < folds:
        raise TrainingDataError(
            f"The smallest class has {fewest} independent cells, too few for {folds} folds. Choose fewer, or add "
            "pictures."
        )
    cutter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    rest, tested = list(cutter.split(rows, labels, groups))[fold]
    trained, validated = cut(table, rows[rest], val, seed + 1)
    left = {"one cell under different labels": sum(c in bad for c in table.cells)}
    return finish(table, {"train": trained, "val": validated, "test": rows[tested]}, left)


def random_split(table: Table, val: float, test: float, seed: int) -> Split:
    """The naive split by image that published systems use; copies of one cell end on several sides, so it is leaky."""
    rows = np.arange(len(table.files))
    labels = np.array(table.labels)
    if min(Counter(table.labels).values()) < 3:
        raise TrainingDataError("A class has fewer than three pictures; it cannot be split. Add more pictures.")
    rest, tested = train_test_split(rows, test_size=test, random_state=seed, stratify=labels)
    trained, validated = train_test_split(rest, test_size=val / (1 - test), random_state=seed, stratify=labels[rest])
    sides = {"train": np.sort(trained), "val": np.sort(validated), "test": np.sort(tested)}
    return finish(table, sides, {}, leaky=True)


def cut(table: Table, rows: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in two parts, the second about `share` of them, whole cells, stratified by label."""
    labels, groups = _columns(table, rows)
    fewest = _fewest(labels, groups)
    if fewest < 2:
        raise TrainingDataError("A class has fewer than two independent cells; it cannot be split. Add more pictures.")
    folds = max(2, round(1 / share))
    cutter = StratifiedGroupKFold(min(folds, fewest), shuffle=True, random_state=seed)
    first, second = next(cutter.split(rows, labels, groups))
    return rows[first], rows[second]


def leak_share(table: Table, rows: Mapping[str, np.ndarray]) -> float:
    """Share of test rows whose source cell is also in training."""
    trained = {table.cells[i] for i in rows["train"]}
    tested = [table.cells[i] in trained for i in rows["test"]]
    return float(np.mean(tested)) if tested else 0.0


def finish(table: Table, rows: dict[str, np.ndarray], left: Mapping[str, int], leaky: bool = False) -> Split:
    """The split of these rows. Raises TrainingDataError if a cell crosses and the split is not called leaky."""
    for name in SIDES if not leaky else ():
        others = {table.cells[i] for other in SIDES if other != name for i in rows[other]}
        if others & {table.cells[i] for i in rows[name]}:
            raise TrainingDataError("A source cell is on two sides of the split. Please report this with the data set.")
    digest = hashlib.sha256(
        json.dumps(sorted((table.files[i], table.pixels[i], name) for name in SIDES for i in rows[name])).encode()
    ).hexdigest()
    kept = {reason: count for reason, count in left.items() if count}
    return Split(rows, table.cells, kept, digest, leaky, leak_share(table, rows))


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


def parts_of(data: DataSet) -> list[str | None]:
    """Official side of each item: train, val, test, or None; other test folders (TEST_SIMPLE) are on no side."""
    return [item.split if item.split == side(item.split) else None for item in data.items]


def _columns(table: Table, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.array([table.labels[i] for i in rows]), np.array([table.cells[i] for i in rows])


def _fewest(labels: np.ndarray, groups: np.ndarray) -> int:
    return min(Counter(dict(zip(groups, labels, strict=True)).values()).values(), default=0)


def split_parts(scheme: Scheme, table: Table, fractions: Sequence[float], seed: int, parts: Collection[str]) -> Split:
    """`split_by` of the rows of some official `parts` (train, val, test) of the data set only; none stands for all.

    Raises TrainingDataError if there are no such rows.
    """
    if not parts:
        return split_by(scheme, table, fractions, seed)
    rows = np.array([row for row, part in enumerate(table.parts) if part in parts], np.int64)
    if not len(rows):
        raise TrainingDataError(f"The data set has no part {' or '.join(parts)} (TRAIN, TEST and VAL folders).")
    split = split_by(scheme, table.only(rows), fractions, seed)
    return replace(split, rows={side: rows[found] for side, found in split.rows.items()}, cells=table.cells)


def split_by(
    scheme: Scheme, table: Table, fractions: Sequence[float], seed: int, folds: int = 5, fold: int = 0
) -> Split:
    """The split of `table` by a scheme; `fractions` are the shares of train, val and test. Raises TrainingDataError."""
    _, val, test = fractions
    if scheme == "official":
        return official_split(table, val, seed)
    if scheme == "kfold":
        return kfold_split(table, folds, fold, val, seed)
    if scheme == "random":
        return random_split(table, val, test, seed)
    return stratified_split(table, val, test, seed)


def table_of(data: DataSet, measured: Measured, cells: Cells) -> Table:
    """The readable items of an audited data set; cells are named by what they show, not by photograph."""
    rows = np.flatnonzero(measured.readable).tolist()
    parts = parts_of(data)
    hashes = [str(value) for value in np.asarray(measured["pixels"])]
    return Table(
        tuple(data.items[row].file for row in rows),
        tuple(data.items[row].label for row in rows),
        tuple(_subject_names(cells, rows)),
        tuple(hashes[row] for row in rows),
        tuple(parts[row] for row in rows),
        tuple(cells.cell[row] is not None for row in rows),
    )


def _subject_names(cells: Cells, rows: Sequence[int]) -> list[str]:
    """Name of each row's subject: its first photograph's, so that names mean something; unknown ones are marked so."""
    first: dict[str, str] = {}
    for row in rows:
        name, subject = cells.cell[row], cells.subject[row]
        if name is not None and (subject not in first or name < first[subject]):
            first[subject] = name
    return [
        first.get(cells.subject[row], f"unknown-{row}") if cells.cell[row] is not None else f"unknown-{row}"
        for row in rows
    ]
