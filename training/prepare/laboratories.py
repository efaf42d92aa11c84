"""How do several laboratories become one training set? Joined by label and source cell, what is tested on kept apart.

Which pictures show one cell is known from the audits that are part of the zoo. Of PBC the test benchmark's pictures are
the test side, of dataset2 its own TEST; BCCD's frames are training only where dataset2's TRAIN was made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from training.prepare.dataset import TrainingDataError
from zoo.audits.reports import BUILTIN, Report, read_report
from zoo.benchmarks import get_benchmark
from zoo.data import DataError, DataSet, FileSource, Item, read_dataset
from zoo.data.table import side

Found = Iterator[Item]


def read_mixed(root: Path, sources: Mapping[str, int], seed: int) -> DataSet:
    """The pictures of some laboratories below `root`, as one data set; `sources` tells the most copies of a cell.

    Files are named with their laboratory's folder, cells likewise, so that nothing is mistaken for another's. Raises
    DataError if a folder is missing, or there is no such laboratory.
    """
    items: list[Item] = []
    for name, copies in sources.items():
        if name not in SOURCES:
            raise TrainingDataError(f"There is no laboratory {name!r} to mix. There are: {', '.join(SOURCES)}.")
        try:
            found = list(SOURCES[name](root))
        except DataError as error:
            raise TrainingDataError(f"{error} Name the folder that holds {', '.join(sources)} with --data.") from error
        items += _few(found, copies, seed)
    return DataSet("mixed", root, "laboratories joined", tuple(items))


def laboratories(sources: Iterable[str]) -> list[str]:
    """The laboratories that the folders of a mix come from."""
    return sorted({LABORATORIES.get(name, name) for name in sources})


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


def _pbc(root: Path) -> Found:
    cells = _report("pbc").source_cells
    tested = set(get_benchmark("pbc-test").rows["file"])
    test_cells = {cells.of.get(file) for file in tested}
    for item in read_dataset(root / "pbc").items:
        cell = cells.of.get(item.file)
        if item.label is None or cell is None or cell in cells.conflicting:
            continue
        if item.file not in tested and cell in test_cells:
            continue  # a copy of what is tested on
        yield _named(item, "pbc", cell, "test" if item.file in tested else "train")


def _dataset2(root: Path) -> Found:
    cells, one = _report("dataset2").source_cells, subjects()
    for item in read_dataset(root / "dataset2").items:
        cell, part = cells.of.get(item.file), side(item.split)
        if item.label is None or cell is None or part not in ("train", "test") or cell in _unfit():
            continue
        if part == "train" and one.get(cell, cell) in _tested():
            continue
        yield _named(item, "dataset2", f"frame-{one.get(cell, cell)}", part)


def _bccd(root: Path) -> Found:
    """Whole frames, at twice the resolution of dataset2's copies."""
    one, labels = subjects(), dict(_train_labels())
    for item in read_dataset(root / "bccd").items:
        name = item.cell or ""
        whole = item.file.partition("#")[0]
        label = labels.pop(name, None)  # a frame comes once, whatever it shows besides
        if label and isinstance(item.source, FileSource) and one.get(name, name) not in _tested():
            frame = replace(item, label=label, file=whole, source=FileSource(item.source.path))
            yield _named(frame, "dataset2", f"frame-{one.get(name, name)}", "train", "bccd")


SAME: Mapping[str, str] = {"ig": "neutrophil"}  # kinds that a laboratory with fewer of them counts as another
LABORATORIES: Mapping[str, str] = {"bccd": "dataset2"}  # a folder whose pictures were taken where another's were
SOURCES: Mapping[str, Callable[[Path], Found]] = {"pbc": _pbc, "dataset2": _dataset2, "bccd": _bccd}


@lru_cache
def _report(name: str) -> Report:
    return read_report(BUILTIN / name).report


def _named(item: Item, laboratory: str, cell: str, part: str, folder: str | None = None) -> Item:
    return replace(
        item,
        file=f"{folder or laboratory}/{item.file}",
        label=str(item.label).lower(),
        cell=f"{laboratory}/{cell}",
        split=part,
        origin=laboratory,
    )


@lru_cache
def subjects() -> dict[str, str]:
    """Of BCCD's photographs that show one cell, the first's name for each."""
    return {name: group[0] for group in _report("dataset2").source_cells.related for name in group}


@lru_cache
def _unfit() -> set[str]:
    """Photographs of one cell under two labels."""
    found = _report("dataset2").source_cells
    return {name for group in found.related_conflicts for name in group} | set(found.conflicting)


@lru_cache
def _tested() -> set[str]:
    """Subjects that dataset2's TEST shows."""
    one = subjects()
    return {
        one.get(cell, cell) for file, cell in _report("dataset2").source_cells.of.items() if file.startswith("TEST/")
    }


@lru_cache
def _train_labels() -> dict[str, str]:
    """The label of each frame that dataset2's TRAIN was made of."""
    found = _report("dataset2").source_cells.of.items()
    return {
        cell: file.split("/")[1].lower() for file, cell in found if file.startswith("TRAIN/") and cell not in _unfit()
    }
