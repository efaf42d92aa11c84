"""A data set as a table of items: a reference to a picture, its label, source cell, split and origin."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import pandas as pd
from PIL import Image

from zoo.imaging.decode import ImageError, decode, read_bytes

COLUMNS = ("file", "label", "cell", "split", "origin")
READERS = 4  # threads; hashing and Pillow's decoding run outside Python's lock
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


class DataError(ValueError):
    """A data set that cannot be used; the message says what is wrong and what to do."""


class Source(Protocol):
    """Place of one picture. Small and picklable, so that worker processes can decode it."""

    def content(self) -> bytes:
        """Stored bytes of the file or array. Raises ImageError if it cannot be read."""
        ...

    def image(self) -> Image.Image:
        """The decoded picture in mode RGB. Raises ImageError if it cannot be decoded."""
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


@dataclass(frozen=True)
class Item:
    """One picture: `file` names it uniquely in its data set; what is not known is None."""

    file: str
    source: Source
    label: str | None
    cell: str | None = None
    split: str | None = None
    origin: str = ""


@dataclass(frozen=True)
class DataSet:
    """Items in a fixed order; `problems` tells what could not be read: file or row → reason."""

    name: str
    place: Path
    layout: str
    items: tuple[Item, ...]
    problems: Mapping[str, str] = field(default_factory=dict)

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
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each item's stored content, "" where it cannot be read; files are read once."""

        def digest(item: Item) -> str:
            try:
                return hashlib.sha256(item.source.content()).hexdigest()
            except ImageError:
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
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def split_name(folder: str) -> str | None:
    """Split that a folder's or file's name stands for ("TRAIN" → train, "TEST_SIMPLE" → test_simple), or None."""
    name = folder.lower()
    first = re.split(r"[_\-.\s]", name, maxsplit=1)[0]
    if first not in SPLITS:
        return None
    rest = re.sub(r"[^a-z0-9]+", "_", name[len(first) :]).strip("_")
    return SPLITS[first] + (f"_{rest}" if rest and not rest.isdecimal() else "")


def side(split: str | None) -> str | None:
    """train, val or test: a split called test_simple is on the side of test."""
    return split.split("_")[0] if split else None


def named(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names in words."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
