"""Columns of a table found by their contents: the picture's file, its label, split, group and box."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Self

from zoo.data.kinds import kind_of
from zoo.data.layouts.registry import AmbiguousError
from zoo.data.table import DataError, named, split_name
from zoo.data.tree import Tree, is_picture
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

SAMPLE = 500  # rows by which columns are told
FILE_SHARE = 0.5  # of a column's values that must name pictures
KNOWN_SHARE = 0.5  # of a column's distinct values that must be known kinds
MAX_CLASSES = 100  # distinct values of a column that no name and no known kind tells to be the label
LABELS = (
    "label",
    "class",
    "category",
    "kind",
    "type",
    "diagnosis",
    "annotation",
    "target",
    "klasse",
    "clase",
    "classe",
)
GROUPS = (
    *("patient", "paciente", "subject", "donor", "person", "case", "slide", "smear", "specimen", "sample", "source"),
    "group",
)
CELLS = ("cell", "source_cell", "group")
EDGES, EXTENT, CENTRE = "edges", "extent", "centre"  # what four columns of a box hold
BOXES = (
    *((names, EDGES) for names in (("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"))),
    *((names, EDGES) for names in (("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))),
    *((names, EXTENT) for names in (("x", "y", "width", "height"), ("x", "y", "w", "h"))),
    *((names, EXTENT) for names in (("xmin", "ymin", "width", "height"), ("x_min", "y_min", "width", "height"))),
    *((names, EXTENT) for names in (("left", "top", "width", "height"), ("bbox_x", "bbox_y", "bbox_w", "bbox_h"))),
    (("bbox_x", "bbox_y", "bbox_width", "bbox_height"), EXTENT),
    *((names, CENTRE) for names in (("x_center", "y_center", "width", "height"), ("cx", "cy", "w", "h"))),
)
YES, NO = frozenset(("1", "1.0", "true", "yes", "x")), frozenset(("0", "0.0", "false", "no"))
MAX_DIGITS = 18  # of a number that names a picture


class PictureNames:
    """Pictures of a tree, found by what a table calls them: a path of any machine, or a name without its suffix."""

    def __init__(self, tree: Tree) -> None:
        self._exact = frozenset(tree.pictures)
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._by_number: dict[int, list[str]] = {}
        self._folder = PurePosixPath()
        for name in tree.pictures:
            path = PurePosixPath(name)
            self._by_name.setdefault(path.name.casefold(), []).append(name)
            self._by_stem.setdefault(path.stem.casefold(), []).append(name)
            if path.stem.isdecimal() and len(path.stem) <= MAX_DIGITS:
                self._by_number.setdefault(int(path.stem), []).append(name)

    def beside(self, table: str) -> Self:
        """The same pictures, as a table of this name calls them: names in its folder go first."""
        found = copy(self)
        found._folder = PurePosixPath(table).parent
        return found

    def find(self, value: str) -> str | None:
        """The one picture that a value names; None if there is none, or several."""
        clean = value.strip().strip("\"'").replace("\\", "/").removeprefix("file://").removeprefix("./")
        if "://" in clean:
            clean = clean.partition("?")[0]
        for exact in ((self._folder / clean).as_posix(), clean):
            if exact in self._exact:
                return exact
        path = PurePosixPath(clean)
        known = self._known(path.name.casefold())
        if len(known) == 1:
            return known[0]
        shared = sorted(((_common_end(path, PurePosixPath(name)), name) for name in known), reverse=True)
        return shared[0][1] if len(shared) > 1 and shared[0][0] > shared[1][0] else None

    def _known(self, name: str) -> list[str]:
        """Pictures of this name; of its stem, whatever the suffix; or of its number (spreadsheets drop zeros)."""
        known = self._by_name.get(name) or self._by_stem.get(name)
        if not known and is_picture(name):
            known = self._by_stem.get(PurePosixPath(name).stem)
        if not known and name.isdecimal() and len(name) <= MAX_DIGITS:
            known = self._by_number.get(int(name))
        return known or []


def _common_end(first: PurePosixPath, second: PurePosixPath) -> int:
    """Number of last folders that two paths share, not counting the file."""
    pairs = zip(reversed(first.parts[:-1]), reversed(second.parts[:-1]), strict=False)
    count = 0
    for one, other in pairs:
        if one.casefold() != other.casefold():
            break
        count += 1
    return count


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; None where there is no such column. `kinds` are one-hot columns."""

    file: str
    label: str | None
    split: str | None
    group: str | None
    cell: str | None
    origin: str | None
    box: tuple[str, ...]
    box_kind: str
    kinds: tuple[str, ...]

    def told(self) -> str:
        """The columns in words."""
        label = self.label or (f"one of {named(self.kinds, 3)}" if self.kinds else "no column")
        words = [f"column {self.file} names pictures", f"{label} the label"]
        words += [f"{name} the {what}" for name, what in ((self.split, "split"), (self.group, "group")) if name]
        return ", ".join(words) + (", with boxes" if self.box else "")


def find_columns(table: pd.DataFrame, pictures: PictureNames, group: str = "", label: str = "") -> Columns | None:
    """The columns of a table, or None if none of them names pictures.

    Args:
        table: All values as text.
        pictures: The pictures that may be named.
        group: Column that names the group; empty: found by its name.
        label: Column that names the label; empty: found.

    Raises:
        AmbiguousError: Several columns could be the label.
    """
    sample = table.head(SAMPLE)
    file = _file_column(sample, pictures)
    if file is None:
        return None
    boxes = ((_all_called(table, names), kind) for names, kind in BOXES)
    box, box_kind = next(((names, kind) for names, kind in boxes if len(names) == 4), ((), EDGES))
    split = _split_column(sample.drop(columns=[file]))
    grouped = _called(table, group) if group else _group_column(table)
    cell = next((found for name in CELLS if (found := _called(table, name)) and found != file), None)
    origin = _called(table, "origin")
    taken = {file, split, grouped, cell, origin, *box}
    rest = sample[[name for name in sample.columns if name not in taken]]
    if label:
        chosen = _called(table, label)
        if chosen is None:
            raise DataError(f"There is no column {label}. There are: {named(list(table.columns), 12)}.")
        return Columns(file, chosen, split, grouped, cell, origin, box, box_kind, ())
    kinds = _one_hot(rest)
    return Columns(file, None if kinds else _label_column(rest), split, grouped, cell, origin, box, box_kind, kinds)


def _called(table: pd.DataFrame, name: str) -> str | None:
    return next((str(column) for column in table.columns if str(column).strip().casefold() == name.casefold()), None)


def _all_called(table: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(found for name in names if (found := _called(table, name)) is not None)


def _words(column: str) -> list[str]:
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column).lower())


def _file_column(sample: pd.DataFrame, pictures: PictureNames) -> str | None:
    shares = {}
    for column in sample.columns:
        values = _values(sample[column])
        if len(values):
            shares[str(column)] = sum(pictures.find(value) is not None for value in values) / len(values)
    best = max(shares, key=lambda name: shares[name], default=None)
    return best if best is not None and shares[best] >= FILE_SHARE else None


def _split_column(sample: pd.DataFrame) -> str | None:
    for column in sample.columns:
        values = set(_values(sample[column]))
        if values and all(split_name(value) for value in values):
            return str(column)
    return None


def _group_column(table: pd.DataFrame) -> str | None:
    for word in GROUPS:
        for column in table.columns:
            if word in _words(str(column)) and len(_values(table[column])):
                return str(column)
    return None


def _one_hot(sample: pd.DataFrame) -> tuple[str, ...]:
    """Columns called as kinds of cells that hold 0 and 1 only, one 1 a row."""
    found = [
        str(name)
        for name in sample.columns
        if kind_of(str(name)) and {value.lower() for value in _values(sample[name])} <= YES | NO
    ]
    return tuple(found) if len(found) > 1 else ()


def _label_column(sample: pd.DataFrame) -> str | None:
    """The column of labels: by its values, its name, or as the only one with few values."""
    scores: dict[str, int] = {}
    for column in map(str, sample.columns):
        values = set(_values(sample[column]))
        if values:
            known = sum(kind_of(value) is not None for value in values) / len(values) >= KNOWN_SHARE
            scores[column] = 2 * known + any(word in LABELS for word in _words(column))
    best = [name for name, score in scores.items() if score and score == max(scores.values())]
    if len(best) > 1 and not _alike(sample, best):
        exact = [name for name in best if name.strip().lower() in LABELS[:3]]
        best = exact if len(exact) == 1 else best
    if len(best) > 1 and not _alike(sample, best):
        choices = "; ".join(f"--layout table:{name}" for name in best)
        raise AmbiguousError(f"Several columns could be the label: {named(best)}. Choose: {choices}.")
    if best:
        return best[0]
    few = [name for name in map(str, sample.columns) if _is_categorical(_values(sample[name]))]
    return few[0] if len(few) == 1 else None


def _alike(sample: pd.DataFrame, names: Sequence[str]) -> bool:
    """Whether columns name the same kind in every row, in other words."""
    kinds = [[kind_of(value) or value for value in sample[name].astype(str)] for name in names]
    return all(one == kinds[0] for one in kinds)


def _is_categorical(values: Sequence[str]) -> bool:
    distinct = set(values)
    numbers = sum(bool(re.fullmatch(r"-?\d*[.,]?\d+(e-?\d+)?", value)) for value in distinct)
    return 1 < len(distinct) <= min(MAX_CLASSES, len(values) / 2) and numbers < len(distinct) / 2


def _values(column: Iterable[object]) -> list[str]:
    return [text for value in column if (text := str(value).strip()) and text.lower() not in ("nan", "none")]
