"""Pictures that a recipe trains on: a data set of any layout, its labels renamed, its pictures decoded once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zoo.cache import cache_folder
from zoo.data import AS_FOUND, DataError, DataSet, Item, ReadOptions, pack, read_dataset
from zoo.data.kinds import Names, describe, kind_of, name_labels, nearest_kind
from zoo.progress import progress_bar


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


def read_labelled(place: Path, labels: Mapping[str, str] | None, reading: ReadOptions = AS_FOUND) -> DataSet:
    """The data set at `place`, its labels renamed as `map_labels` says, others left out.

    Raises TrainingDataError if a label of the recipe does not occur, or there is but one.
    """
    data = read_dataset(place, reading)
    names = map_labels(data, labels, reading)
    kept = [replace(item, label=names[item.label]) for item in data.items if item.label in names]
    renamed = {label: names.get(label, "") for label in data.labels if names.get(label) != label}
    unknown = {label: nearest_kind(label) for label in names if label not in renamed and kind_of(label) is None}
    notes = describe(Names(renamed, unknown), data)
    return replace(data, items=tuple(kept), notes=tuple(notes))


def map_labels(data: DataSet, labels: Mapping[str, str] | None, reading: ReadOptions = AS_FOUND) -> dict[str, str]:
    """The recipe's label by label of the data set; labels that are left out are not in it.

    Args:
        data: The data set, with its own labels.
        labels: Label in the data set → label wanted, as a recipe gives them. Where one does not occur, labels that name
            the same kind of cell count as it. None takes all labels, by the kinds they name.
        reading: Names that the person gives to labels.

    Raises:
        TrainingDataError: A label of the recipe does not occur, or there is but one.
    """
    names = name_labels(data.labels, reading.labels)
    if labels is None:
        mapped = {label: name for label in data.labels if (name := names.name(label))}
    elif not reading.labels and set(labels) <= set(data.labels):
        mapped = dict(labels)
    else:
        by_kind = {kind_of(label) or label: wanted for label, wanted in labels.items()} | dict(labels)
        found = {label: by_kind.get(names.name(label), labels.get(label)) for label in data.labels}
        mapped = {label: name for label, name in found.items() if name is not None and names.name(label)}
        missing = [label for label, wanted in labels.items() if wanted not in mapped.values()]
        if missing:
            there = ", ".join(data.labels) or "no labels"
            raise TrainingDataError(f"There is no picture labelled {missing[0]} in {data.place}. It has: {there}.")
    if len(set(mapped.values())) < 2:
        only = f"of {next(iter(mapped.values()))} only" if mapped else "without labels only"
        raise TrainingDataError(f"{data.place} has pictures {only}; at least two classes are needed.")
    return mapped


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
    return progress_bar(items, title, total=total, unit="image")


def item_names(items: Iterable[Item]) -> list[str]:
    """File of each item."""
    return [item.file for item in items]
