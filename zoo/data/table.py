"""A data set as a table of items: a reference to a picture, its label, source cell, split and origin."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from zoo.imaging.decode import PictureError, decode, read_bytes
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

COLUMNS = ("file", "label", "cell", "split", "origin")
READERS = 4  # threads; hashing and Pillow's decoding run outside Python's lock
SPLITS = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset", "entrenamiento", "treino"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validationset", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "holdout", "prueba", "teste"), "test"),
}
NUMBERED = re.compile(r"^\d+[_\-.\s]+")  # as in 1_train


class DataError(ValueError):
    """A data set that cannot be used; the message says what is wrong and what to do."""


class Source(Protocol):
    """Place of one picture. Small and picklable, so that worker processes can decode it."""

    def content(self) -> bytes:
        """Stored bytes of the file or array. Raises PictureError if it cannot be read."""
        ...

    def image(self) -> Image.Image:
        """The decoded picture in mode RGB. Raises PictureError if it cannot be decoded."""
        ...


@dataclass(frozen=True)
class FileSource:
    """A picture file, or the part of it inside `box` (left, top, right, bottom in pixels)."""

    path: Path
    box: tuple[int, int, int, int] | None = None

    def content(self) -> bytes:
        """The file's bytes."""
        return read_bytes(self.path)

    def image(self) -> Image.Image:
        """The picture, cropped to `box`."""
        image = decode(self.path)
        return image.crop(self.box) if self.box else image


@lru_cache(maxsize=2)  # frames: their cells are asked for one after the other
def _frame(content: bytes) -> Image.Image:
    return decode(content)


@dataclass(frozen=True)
class CutSource:
    """The part of a picture inside `box` (left, top, right, bottom) and a margin around it.

    The box is in pixels, or in shares of the picture's width and height where it is `relative`.
    """

    whole: Source  # of a picture file
    box: tuple[float, float, float, float]
    relative: bool = False
    margin: float = 0.0  # of the box's longer side

    def content(self) -> bytes:
        """The whole picture's bytes; the box is part of the item's name."""
        return self.whole.content()

    def image(self) -> Image.Image:
        """The cut picture. Raises PictureError if the box lies outside the picture."""
        image = _frame(self.whole.content())
        box = self.pixels(image.size)
        margin = self.margin * max(box[2] - box[0], box[3] - box[1])
        left, top = max(0, round(box[0] - margin)), max(0, round(box[1] - margin))
        right, bottom = min(image.width, round(box[2] + margin)), min(image.height, round(box[3] + margin))
        if right - left < 1 or bottom - top < 1:
            raise PictureError("The box lies outside the picture. Check the annotation.")
        return image.crop((left, top, right, bottom))

    def pixels(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The box in pixels of a picture of `size` (width, height), without the margin."""
        if not self.relative:
            return self.box
        left, top, right, bottom = self.box
        return left * size[0], top * size[1], right * size[0], bottom * size[1]


@dataclass(frozen=True)
class Item:
    """One picture: `file` names it uniquely in its data set; what is not known is None.

    `cell` names what the picture shows; `group` the patient, slide or source that must stay on one side of a split.
    """

    file: str
    source: Source
    label: str | None
    cell: str | None = None
    split: str | None = None
    origin: str = ""
    group: str | None = None


@dataclass(frozen=True)
class DataSet:
    """Items in a fixed order.

    Attributes:
        name: Name of the data set.
        place: Its folder or file.
        layout: The layout it was read as.
        items: The pictures.
        problems: File, row or box that was passed over → reason.
        reason: How the layout was recognised, as the rest of a sentence.
        notes: Sentences on what its labels were taken for.
    """

    name: str
    place: Path
    layout: str
    items: tuple[Item, ...]
    problems: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of items."""
        return len(self.items)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels that occur, in natural order (2 before 10)."""
        return tuple(sorted({item.label for item in self.items if item.label is not None}, key=natural))

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row an item: file, label, cell, split, origin."""
        rows = [(item.file, item.label, item.cell, item.split, item.origin) for item in self.items]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    @cached_property
    def groups(self) -> int:
        """Number of groups (patients, slides) that are known."""
        return len({item.group for item in self.items if item.group is not None})

    def passed_over(self) -> list[tuple[str, list[str]]]:
        """Reason and names of all that was passed over, the most frequent reason first."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.problems.items():
            by_reason.setdefault(reason, []).append(name)
        return sorted(by_reason.items(), key=lambda pair: -len(pair[1]))

    def about(self) -> list[str]:
        """Sentences on the layout, how it was recognised, what was passed over by reason, and labels."""
        lines = [f"Layout: {self.layout}; {self.reason}." if self.reason else f"Layout: {self.layout}."]
        for why, names in self.passed_over():
            lines.append(f"Passed over, {why.rstrip('.')}: {len(names):,} ({named(names, 3)}).")
        return [*lines, *self.notes]

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each item's stored content, "" where it cannot be read; files are read once."""

        def digest(item: Item) -> str:
            try:
                return hashlib.sha256(item.source.content()).hexdigest()
            except PictureError:
                return ""

        with ThreadPoolExecutor(READERS) as pool:
            return tuple(pool.map(digest, self.items))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of names, labels, splits and contents, whatever their order: another hash is another data set."""
        rows = sorted(
            (item.file, item.label or "", item.split or "", digest)
            for item, digest in zip(self.items, self.digests, strict=True)
        )
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def where(self, keep: Callable[[Item], bool]) -> DataSet:
        """The items for which `keep` is true."""
        return replace(self, items=tuple(item for item in self.items if keep(item)))


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which 2 comes before 10."""
    return [_sort_key(part) for part in re.split(r"(\d+)", text) if part]


def _sort_key(part: str) -> tuple[int, int, str]:
    # numbers are compared as text of equal length: Python refuses to convert thousands of digits
    digits = part.lstrip("0")
    return (0, len(digits), digits) if part.isdecimal() else (1, 0, part)


def split_name(folder: str) -> str | None:
    """Split that a folder's or file's name stands for ("TRAIN" → train, "TEST_SIMPLE" → test_simple), or None."""
    name = NUMBERED.sub("", folder.lower())
    first = re.split(r"[_\-.\s]", name, maxsplit=1)[0]
    if first not in SPLITS:
        return None
    rest = re.sub(r"[^a-z0-9]+", "_", name[len(first) :]).strip("_")
    return SPLITS[first] + (f"_{rest}" if rest and not rest.isdecimal() else "")


def side_above(name: str) -> str | None:
    """Side of a split that the folder of a file of this relative name, or one above it, stands for."""
    return next((found for part in name.split("/")[:-1] if (found := split_name(part))), None)


def side(split: str | None) -> str | None:
    """train, val or test: a split called test_simple is on the side of test."""
    return split.split("_")[0] if split else None


def named(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names in words."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
