"""Several laboratories as one training set, joined by kind and source cell, with the test side of each kept apart.

Everything that is particular to a data set stands in its TOML file in `zoo/data/sets`: where it lies, what its labels
mean, how its pictures are grouped, which of them are tested on. Where an audit grouped them, a group is what a picture
shows: two photographs of one field are one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from training.prepare.dataset import TrainingDataError
from zoo.audits.reports import BUILTIN, SourceCells, read_report
from zoo.benchmarks import get_benchmark
from zoo.data import DataError, DataSet, FileSource, Item, read_dataset
from zoo.data.registry import DataSetInfo, augmented_sets, datasets, laboratory_of
from zoo.data.table import side, split_name

GroupOf = Callable[[Item], str | None]


def read_mixed(root: Path, sources: Mapping[str, int], seed: int) -> DataSet:
    """Read some laboratories below `root` as one data set.

    Files are named with their data set, cells with their laboratory, so that nothing is mistaken for another's.

    Args:
        root: The data root, in which each data set has the folder that its TOML file names.
        sources: Name of each data set → the most training pictures of a cell that are taken.
        seed: Of the draw of these pictures.

    Raises:
        DataError: If a folder is missing, or there is no such data set to train on.
    """
    items: list[Item] = []
    known = {name: info for name, info in datasets().items() if info.role == "training" and info.readable}
    for name, copies in sources.items():
        if name not in known:
            raise TrainingDataError(f"There is no laboratory {name!r} to mix. There are: {', '.join(known)}.")
        try:
            pictures = list(read_pictures(known[name], root))
        except DataError as error:
            raise TrainingDataError(f"{error} Name the folder that holds {', '.join(sources)} with --data.") from error
        items += _few(pictures, copies, seed)
    return DataSet("mixed", root, "laboratories joined", tuple(items))


def laboratories(sources: Iterable[str]) -> list[str]:
    """The laboratories that the data sets of a mix come from."""
    return sorted({laboratory_of(name) for name in sources})


def parts_without(data: DataSet, laboratory: str) -> list[str | None]:
    """Official side of each item of a mix that is to hold up in a laboratory it never saw.

    What of that laboratory is trained on otherwise is tested on, as far as the others show such cells; what is tested
    on otherwise takes no part, so that choices made here cannot be fitted to it. Raises TrainingDataError if there is
    no such laboratory, or no other.
    """
    known = sorted({str(item.origin) for item in data.items})
    if laboratory not in known or len(known) < 2:
        raise TrainingDataError(f"{laboratory!r} cannot be left out of a mix of {', '.join(known)}.")
    kinds = {item.label for item in data.items if item.split == "train" and item.origin != laboratory}
    parts: list[str | None] = []
    for item in data.items:
        left = item.origin == laboratory
        usable = item.split == "train" and not (left and item.label not in kinds)
        parts.append(("test" if left else "train") if usable else None)
    return parts


def _few(items: list[Item], copies: int, seed: int) -> list[Item]:
    """At most so many training pictures of each cell, drawn evenly; test pictures all."""
    order = np.random.default_rng(seed).permutation(len(items))
    kept, turns = [], dict.fromkeys((item.cell for item in items), 0)
    for row in order:
        item = items[row]
        turns[item.cell] += item.split == "train"
        if item.split != "train" or turns[item.cell] <= copies:
            kept.append(int(row))
    return [items[row] for row in sorted(kept)]


def read_pictures(info: DataSetInfo, root: Path) -> Iterator[Item]:
    """The labelled pictures of a data set below `root`, each with its kind, group, side (train or test) and laboratory.

    Left out are pictures that could leak: training pictures that show what a test picture shows, and those whose
    source cell is unknown or has two labels. Raises DataError.
    """
    copied = next((copied for copied, original in augmented_sets() if original.name == info.name), None)
    if info.frames and copied is not None:
        yield from _frames(info, copied, root)
        return
    items = list(read_dataset(root / info.place).items)
    group_of, unfit = grouping_of(info, root)
    groups = {item.file: group_of(item) for item in items}
    sides = _sides(info, items)
    tested = {groups[file] for file, part in sides.items() if part == "test"}
    for item in items:
        group, part = groups[item.file], sides[item.file]
        kind = info.kind(item.label) if item.label is not None else ""
        if not kind or group is None or part is None or group in unfit:
            continue
        if part == "train" and group in tested:
            continue  # a copy of what is tested on
        yield _named(item, info, kind, group, part)


def _sides(info: DataSetInfo, items: Iterable[Item]) -> dict[str, str | None]:
    """Train, test or None by file: a benchmark's pictures, or the data set's own TEST, are tested on."""
    if info.cells.test_benchmark:
        tested = set(get_benchmark(info.cells.test_benchmark).rows["file"])
        return {item.file: "test" if item.file in tested else "train" for item in items}
    parts = {item.file: side(item.split) for item in items}
    if not any(parts.values()):
        return dict.fromkeys(parts, "train")
    return {file: part if part in ("train", "test") else None for file, part in parts.items()}


def grouping_of(info: DataSetInfo, root: Path) -> tuple[GroupOf, frozenset[str]]:
    """Function from an item to its group (None: unknown), and the groups that carry two labels. Raises DataError."""
    cells = info.cells
    if cells.by == "audit":
        audit = _audited(cells.audit)
        return (lambda item: audit.subject(audit.of.get(item.file))), audit.unfit
    if cells.by == "column":
        named = _column(root / info.place / cells.table, cells.column)
        return (lambda item: named.get(item.file)), frozenset()
    if cells.by == "folder":
        return (lambda item: str(PurePosixPath(item.file).parent)), frozenset()
    if cells.by == "file":
        return (lambda item: _matched(cells.pattern, item.file)), frozenset()
    return (lambda item: item.cell or item.file), frozenset()


def _matched(pattern: str, file: str) -> str | None:
    found = re.search(pattern, PurePosixPath(file).name)
    return found[1] if found else None


def _column(path: Path, column: str) -> dict[str, str]:
    """The groups that a table beside the pictures names, by file."""
    try:
        table = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}, which groups the pictures, cannot be read.") from error
    if not {"file", column} <= set(table):
        raise DataError(f"{path} needs the columns file and {column}.")
    return dict(table[["file", column]].dropna().itertuples(index=False))


def _frames(info: DataSetInfo, copied: DataSetInfo, root: Path) -> Iterator[Item]:
    """Whole frames, where the copies that another data set holds of them are trained on, under the copies' labels."""
    audit = _audited(copied.cells.audit)
    labels, tested = {}, set()
    for file, cell in audit.of.items():
        folders = PurePosixPath(file).parts
        part = side(split_name(folders[0]))
        if part == "test":
            tested.add(audit.subject(cell))
        elif part == "train" and audit.subject(cell) not in audit.unfit:
            labels[cell] = copied.kind(folders[1])
    for item in read_dataset(root / info.place).items:
        name = item.cell or ""
        kind = labels.pop(name, None)  # a frame comes once, whatever it shows besides
        subject = audit.subject(name)
        if kind and subject is not None and isinstance(item.source, FileSource) and subject not in tested:
            frame = replace(item, file=item.file.partition("#")[0], source=FileSource(item.source.path))
            yield _named(frame, info, kind, subject, "train")


def _named(item: Item, info: DataSetInfo, kind: str, group: str, part: str) -> Item:
    return replace(
        item,
        file=f"{info.name}/{item.file}",
        label=kind,
        cell=f"{info.laboratory}/{info.cells.prefix}{group}",
        split=part,
        origin=info.laboratory,
    )


@dataclass(frozen=True)
class Audited:
    """Source cells as an audit found them: the cell `of` each file, and subjects that carry two labels (`unfit`).

    Cells that show one subject go by the name of the first.
    """

    of: Mapping[str, str]
    first: Mapping[str, str]
    unfit: frozenset[str]

    @classmethod
    def of_report(cls, found: SourceCells) -> Audited:
        """The part of a report that groups pictures."""
        first = {name: group[0] for group in found.related for name in group}
        bad = {name for group in found.related_conflicts for name in group} | set(found.conflicting)
        return cls(found.of, first, frozenset(first.get(name, name) for name in bad))

    def subject(self, cell: str | None) -> str | None:
        """Name of what a cell shows; None for an unknown cell."""
        return None if cell is None else self.first.get(cell, cell)


@lru_cache
def _audited(name: str) -> Audited:
    return Audited.of_report(read_report(BUILTIN / name).report.source_cells)


def subjects(name: str) -> Mapping[str, str]:
    """Cells of an audited data set that are photographs of one subject → the first's name."""
    return _audited(datasets()[name].cells.audit).first
