"""Splits into training, validation and test pictures; all copies of a cell stay on one side unless a split leaks."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from training.prepare.dataset import TrainingDataError
from zoo.data import DataSet, Item
from zoo.data.table import side
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    from scipy import sparse
    from scipy.sparse import csgraph
    from sklearn import model_selection

    from training.audit.measure import Measured
    from training.audit.originals import Cells
else:
    sparse = lazy_module("scipy.sparse")
    csgraph = lazy_module("scipy.sparse.csgraph")
    model_selection = lazy_module("sklearn.model_selection")

SIDES = ("train", "val", "test")
SCHEMES = ("official", "stratified", "grouped", "kfold", "random")  # that a manifest may have
Scheme = Literal["official", "stratified", "grouped", "kfold", "random", "holdout", "first"]


@dataclass(frozen=True)
class Table:
    """Input of a split: file, label, source cell, pixel hash and official side of each row, None if unknown.

    `cells` names what a row shows; rows with one name stay on one side. `known` is False where a picture of an
    augmented set could not be matched with any other, so that it is unknown whose copy it is. `groups` joins cells of
    one patient, slide or frame, which schemes other than official and random keep together; empty: each cell alone.
    """

    files: tuple[str, ...]
    labels: tuple[str, ...]
    cells: tuple[str, ...]
    pixels: tuple[str, ...]
    parts: tuple[str | None, ...]
    known: tuple[bool, ...]
    groups: tuple[str, ...] = ()

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
        columns = (self.files, self.labels, self.cells, self.pixels, self.parts, self.known, self.groups)
        return Table(*(tuple(column[row] for row in rows) if column else () for column in columns))


@dataclass(frozen=True)
class Split:
    """Row numbers a side, source cell of each row, rows left out by reason, and a hash of all of it.

    `leaky` splits put copies of one cell on several sides; `leak_share` is the share of test rows whose cell is in
    training. `extends` is the hash of a split whose sides this one keeps, adding rows of its own; "": of none.
    """

    rows: Mapping[str, np.ndarray]
    cells: tuple[str, ...]
    left_out: Mapping[str, int]
    hash: str
    leaky: bool = False
    leak_share: float = 0.0
    extends: str = ""


def conflicting(labels: Sequence[str], cells: Sequence[str]) -> set[str]:
    """Source cells that carry more than one label; as it is unknown which is right, they are left out."""
    found = defaultdict(set)
    for label, cell in zip(labels, cells, strict=True):
        found[cell].add(label)
    return {cell for cell, names in found.items() if len(names) > 1}


def stratified_split(table: Table, val: float, test: float, seed: int) -> Split:
    """Split stratified by label, whole cells; `val` and `test` are shares of all images.

    Raises TrainingDataError if a class is too small for that.
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
    smallest, fewest = _fewest(labels, groups)
    if fewest < folds:
        raise TrainingDataError(
            f"The smallest class, {smallest}, has {fewest} independent {_units(table)}, too few for {folds} folds. "
            "Choose fewer, or add pictures."
        )
    cutter = model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    rest, tested = list(cutter.split(rows, labels, groups))[fold]
    trained, validated = cut(table, rows[rest], val, seed + 1)
    left = {"one cell under different labels": sum(c in bad for c in table.cells)}
    return finish(table, {"train": trained, "val": validated, "test": rows[tested]}, left)


def random_split(table: Table, val: float, test: float, seed: int) -> Split:
    """The naive split by image that published systems use; copies of one cell end on several sides, so it is leaky."""
    rows = np.arange(len(table.files))
    labels = np.array(table.labels)
    rarest, count = Counter(table.labels).most_common()[-1]
    if count < 3:
        raise TrainingDataError(
            f"The class {rarest} has {count} pictures, fewer than three; it cannot be split. Add more."
        )
    rest, tested = model_selection.train_test_split(rows, test_size=test, random_state=seed, stratify=labels)
    trained, validated = model_selection.train_test_split(
        rest, test_size=val / (1 - test), random_state=seed, stratify=labels[rest]
    )
    sides = {"train": np.sort(trained), "val": np.sort(validated), "test": np.sort(tested)}
    return finish(table, sides, {}, leaky=True)


def holdout_split(table: Table, share: float, seed: int | None) -> Split:
    """Two parts by image, as published systems without a test set have them: the second both validates and tests.

    Args:
        table: What is split; copies of one cell end on both sides, so it is leaky.
        share: Of the second part.
        seed: Of a random cut; None: the first names of each class, as Keras's `validation_split` takes them.
    """
    rows = np.arange(len(table.files))
    labels = np.array(table.labels)
    if seed is None:
        named = [sorted(rows[labels == label], key=lambda row: table.files[row]) for label in np.unique(labels)]
        held = np.array([row for own in named for row in own[: int(share * len(own))]], np.int64)
    else:
        held = model_selection.train_test_split(rows, test_size=share, random_state=seed, stratify=labels)[1]
    if set(labels[held]) != set(labels):
        raise TrainingDataError("A class has too few pictures for this split. Add more, or split another way.")
    sides = {"train": np.setdiff1d(rows, held), "val": np.sort(held), "test": np.sort(held)}
    return finish(table, sides, {}, leaky=True)


def cut(table: Table, rows: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in two parts, the second about `share` of them, whole cells, stratified by label."""
    labels, groups = _columns(table, rows)
    smallest, fewest = _fewest(labels, groups)
    if fewest < 2:
        raise TrainingDataError(
            f"The class {smallest} has fewer than two independent {_units(table)}; it cannot be split. Add more "
            "pictures."
        )
    folds = max(2, round(1 / share))
    # a class with fewer cells than folds is in some of them only; one that has all classes is taken, since fewer folds
    # are larger, and leave the other classes less to train on
    numbers = [folds, fewest] if fewest < folds <= max(Counter(labels.tolist()).values()) else [min(folds, fewest)]
    cuts = [_cuts(rows, labels, groups, number, seed) for number in numbers]
    whole = [cut for found in cuts for cut in found if all(len(set(labels[part])) == len(set(labels)) for part in cut)]
    first, second = (whole or cuts[-1])[0]  # large groups can leave a class out of every fold
    return rows[first], rows[second]


def _cuts(
    rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each fold with what is outside of it before it, as places among `rows`."""
    cutter = model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        return list(cutter.split(rows, labels, groups))


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


def parts_of(data: DataSet) -> list[str | None]:
    """Official side of each item: train, val, test, or None; other test folders (TEST_SIMPLE) are on no side."""
    return [item.split if item.split == side(item.split) else None for item in data.items]


def _columns(table: Table, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    groups = table.groups or table.cells
    return np.array([table.labels[i] for i in rows]), np.array([groups[i] for i in rows])


def _fewest(labels: np.ndarray, groups: np.ndarray) -> tuple[str, int]:
    """The class with the fewest groups, and their number."""
    counts = Counter(label for label, _ in set(zip(labels.tolist(), groups.tolist(), strict=True)))
    return counts.most_common()[-1] if counts else ("", 0)


def _units(table: Table) -> str:
    return "patients, slides or frames" if table.groups else "cells"


def joined_groups(cells: Sequence[str], items: Sequence[Item]) -> tuple[str, ...]:
    """Group of each row: rows that share a cell, or of whose items the cell or the group are one, are together.

    Empty if no item has either: then each cell is a group.
    """
    if not any(item.group or item.cell for item in items):
        return ()
    edges: list[tuple[int, int]] = []
    for names in (cells, [item.cell for item in items], [item.group for item in items]):
        first: dict[str, int] = {}
        edges += [(row, first.setdefault(name, row)) for row, name in enumerate(names) if name]
    ends = np.array(edges).T
    graph = sparse.coo_array((np.ones(len(edges), bool), (ends[0], ends[1])), (len(items), len(items)))
    numbers = csgraph.connected_components(graph, directed=False)[1]
    return tuple(f"group-{number}" for number in numbers)


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


def extended_split(table: Table, added: np.ndarray, val: float, seed: int) -> Split:
    """The official split of the earlier rows, with rows added that have no test side of their own.

    Args:
        table: All rows.
        added: True for a row that came later.
        val: Share of the training rows that validates, of the earlier and of the added ones.
        seed: Of the draws.

    Raises:
        TrainingDataError: There are no rows of either, the added ones have a test side, or a cell is in both.
    """
    first, second = np.flatnonzero(~added), np.flatnonzero(added)
    if not len(first) or not len(second):
        raise TrainingDataError("data.added needs pictures that are added, and others that were there before.")
    if "test" in {table.parts[row] for row in second}:
        raise TrainingDataError("A data set of data.added has test pictures of its own; leave it out of data.added.")
    before = official_split(table.only(first), val, seed)
    trained, validated = cut(table.only(second), np.arange(len(second)), val, seed)
    rows = {
        "train": np.sort(np.concatenate([first[before.rows["train"]], second[trained]])),
        "val": np.sort(np.concatenate([first[before.rows["val"]], second[validated]])),
        "test": first[before.rows["test"]],
    }
    return replace(finish(table, rows, before.left_out), extends=before.hash)


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
    if scheme in ("holdout", "first"):
        return holdout_split(table, test, seed if scheme == "holdout" else None)
    return stratified_split(table, val, test, seed)


def table_of(data: DataSet, measured: Measured, cells: Cells) -> Table:
    """The readable items of an audited data set; cells are named by what they show, not by photograph."""
    rows = np.flatnonzero(measured.readable).tolist()
    parts = parts_of(data)
    hashes = [str(value) for value in np.asarray(measured["pixels"])]
    names = _subject_names(cells, rows)
    return Table(
        tuple(data.items[row].file for row in rows),
        tuple(str(data.items[row].label) for row in rows),
        tuple(names),
        tuple(hashes[row] for row in rows),
        tuple(parts[row] for row in rows),
        tuple(cells.cell[row] is not None for row in rows),
        joined_groups(names, [data.items[row] for row in rows]),
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
