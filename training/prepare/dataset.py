"""Pictures that a recipe trains on: a data set of any layout, its labels renamed, its pictures decoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zoo.cache import cache_folder
from zoo.data import DataError, DataSet, Item, pack, read_dataset


class TrainingDataError(DataError):
    """A data set that cannot be trained on; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Prepared:
    """Readable, labelled pictures: the data set, uint8 `pictures` (n, height, width, 3) and `pixels`, a hash of each.

    `unreadable` names what could not be decoded, with the reason.
    """

    data: DataSet
    pictures: np.ndarray
    pixels: tuple[str, ...]
    unreadable: Mapping[str, str]


def read_labelled(place: Path, labels: Mapping[str, str] | None) -> DataSet:
    """The data set at `place`, its labels renamed by `labels` (all labels as they are if None), others left out.

    Raises TrainingDataError if a label of the recipe does not occur, or there is but one.
    """
    data = read_dataset(place)
    known = Counter(item.label for item in data.items if item.label is not None)
    names = dict(labels) if labels is not None else {label: label for label in known}
    missing = [name for name in names if name not in known]
    if missing:
        raise TrainingDataError(
            f"There is no picture labelled {missing[0]} in {place}. It has: {', '.join(sorted(known)) or 'no labels'}."
        )
    if len(set(names.values())) < 2:
        raise TrainingDataError(f"{place} has pictures of one class only; at least two are needed.")
    kept = [replace(item, label=names[item.label]) for item in data.items if item.label in names]
    return replace(data, items=tuple(kept))


def prepare(data: DataSet, size: tuple[int, int], crop: str = "none") -> Prepared:
    """Every picture, cut as `crop` says, squashed to `size` (height, width), from the packed cache.

    What cannot be decoded is left out. Raises TrainingDataError if that is every picture.
    """
    packed = pack(data, size, cache_folder(), show_progress, crop)
    rows = [row for row, pixels in enumerate(packed.pixels) if pixels]
    if not rows:
        raise TrainingDataError(
            f"None of the {len(data):,} pictures can be read: {next(iter(packed.problems.values()))}"
        )
    whole = len(rows) == len(data)
    return Prepared(
        data if whole else replace(data, items=tuple(data.items[row] for row in rows)),
        packed.pictures if whole else packed.pictures[rows],
        tuple(packed.pixels[row] for row in rows),
        packed.problems,
    )


def show_progress(items: Iterable, title: str, total: int) -> Iterable:
    """A progress bar on stderr."""
    return tqdm(items, title, total=total, unit="image")


def item_names(items: Iterable[Item]) -> list[str]:
    """File of each item."""
    return [item.file for item in items]
