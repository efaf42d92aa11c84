"""What is in a data set? Class folders read into one table: file, label, part of an official split, pixel hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from zoo.images import SUFFIXES, ImageError, decode

READERS = 4  # threads; Pillow decodes outside Python's lock


class TrainingDataError(ValueError):
    """A data set that cannot be trained on; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Sample:
    """One picture of a data set. `file` is its path relative to the data folder; `pixels` hashes the decoded RGB."""

    path: Path
    file: str
    label: str
    part: str | None
    pixels: str


@dataclass(frozen=True)
class Pack:
    """A data set decoded once: `samples` and their pictures, uint8 (n, height, width, 3), and files that failed."""

    samples: tuple[Sample, ...]
    pictures: np.ndarray
    unreadable: Mapping[str, str]


def find_files(
    folder: Path, labels: Mapping[str, str], parts: Sequence[str | None]
) -> list[tuple[Path, str, str | None]]:
    """(path, label, part) of every picture in `folder/[part/]class/`, sorted by path.

    Raises TrainingDataError if the folder or a class is missing or a class is empty.
    """
    if not folder.is_dir():
        raise TrainingDataError(f"There is no folder {folder}. Name the data set's folder with --data.")
    found = []
    for part in parts:
        for name, label in labels.items():
            place = folder / part / name if part else folder / name
            files = sorted(p for p in place.glob("*") if p.suffix.lower() in SUFFIXES)
            if not files:
                raise TrainingDataError(
                    f"There is no picture in {place}. This recipe expects one folder for each class."
                )
            found += [(path, label, part) for path in files]
    return found


def pack(folder: Path, files: Sequence[tuple[Path, str, str | None]], size: tuple[int, int]) -> Pack:
    """Decode every file once, hash its pixels and resize it to `size` (height, width).

    Files that cannot be decoded are named in `unreadable` and left out.
    """
    pictures = np.empty((len(files), *size, 3), np.uint8)

    def read(item: tuple[int, tuple[Path, str, str | None]]) -> str | ImageError:
        row, (path, _, _) = item
        try:
            image = decode(path)
        except ImageError as error:
            return error
        pictures[row] = np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()

    with ThreadPoolExecutor(READERS) as pool:
        hashes = list(tqdm(pool.map(read, enumerate(files)), "reading", total=len(files), unit="image"))
    names = [path.relative_to(folder).as_posix() for path, _, _ in files]
    samples, kept, unreadable = [], [], {}
    for row, ((path, label, part), name, digest) in enumerate(zip(files, names, hashes, strict=True)):
        if isinstance(digest, ImageError):
            unreadable[name] = str(digest)
        else:
            samples.append(Sample(path, name, label, part, digest))
            kept.append(row)
    return Pack(tuple(samples), pictures if not unreadable else pictures[kept], unreadable)
