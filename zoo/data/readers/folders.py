"""Class folders: DATA/CLASS/*.jpg, or DATA/TRAIN/CLASS/*.jpg; pictures without a class folder have no label."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from zoo.data.table import DataSet, FileSource, Item, natural, split_name
from zoo.imaging.decode import SUFFIXES

NAME = "class folders (flat, or TRAIN, TEST, VAL above them)"
ORDER = 90


@dataclass
class _Walk:
    """Pictures below a folder; links are followed, but never to a folder that is being walked already."""

    root: Path
    problems: dict[str, str] = field(default_factory=dict)

    def files(self, folder: Path, inside: frozenset[Path] = frozenset()) -> Iterator[Path]:
        """Every picture below `folder`, in natural order."""
        real = folder.resolve()
        if real in inside:
            self.problems[self.name(folder)] = "The folder is a link to one that holds it; it was not followed."
            return
        for entry in sorted(os.scandir(folder), key=lambda e: natural(e.name)):
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if _is_dir(entry):
                yield from self.files(path, inside | {real})
            elif path.suffix.lower() in SUFFIXES:
                yield path

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def matches(path: Path) -> bool:
    """Any folder may be one of class folders."""
    return path.is_dir()


def read(path: Path) -> DataSet:
    """Read class folders. Folders that only wrap the data set (as in Kaggle's archives) are stepped into."""
    root = _root(path)
    walk = _Walk(root)
    parts = [(folder, split_name(folder.name)) for folder in _folders(root)]
    items: list[Item] = []
    if any(split for _, split in parts):
        for folder, split in parts:
            items += _classes(walk, folder, split, folder.name)
    else:
        items += _classes(walk, root, None, root.name)
    return DataSet(path.name, path, "class folders", tuple(items), walk.problems)


def _classes(walk: _Walk, folder: Path, split: str | None, origin: str) -> Iterator[Item]:
    for path in walk.files(folder):
        inner = path.relative_to(folder).parts
        # pictures beside the class folders belong to no class
        label = inner[0] if len(inner) > 1 else None
        yield Item(walk.name(path), FileSource(path), label, None, split, origin)


def _root(path: Path) -> Path:
    for _ in range(8):
        inside = _folders(path)
        if len(inside) != 1 or split_name(inside[0].name) or _pictures(path) or _pictures(inside[0]):
            return path
        if not _folders(inside[0]):
            return path
        path = inside[0]
    return path


def _folders(path: Path) -> list[Path]:
    with os.scandir(path) as entries:
        found = [path / entry.name for entry in entries if not entry.name.startswith(".") and _is_dir(entry)]
    return sorted(found, key=lambda folder: natural(folder.name))


def _pictures(path: Path) -> bool:
    with os.scandir(path) as entries:
        return any(Path(entry.name).suffix.lower() in SUFFIXES for entry in entries if not entry.name.startswith("."))


def _is_dir(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
