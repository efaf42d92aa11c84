"""Pictures of a data set decoded once into one memory-mapped array, which is checked by its hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.cache import cache_folder, keep_within, mark_used
from zoo.data.table import READERS, DataSet
from zoo.files import atomic_folder, file_hash, only_writer, write_json
from zoo.imaging.decode import PictureError
from zoo.imaging.localise import CROP_VERSION, locate_cell
from zoo.limits import PACKED_MB

VERSION = 1  # part of the key: raise when decoding or resizing changes
PICTURES, INDEX = "pictures.npy", "index.json"


@dataclass(frozen=True)
class Packed:
    """`pictures`: uint8 (n, height, width, 3), memory-mapped, row i is item i (black where it cannot be read).

    `pixels[i]` hashes the picture's own decoded pixels before resizing, "" where it cannot be read; `problems` says
    why, by file.
    """

    pictures: np.ndarray
    pixels: tuple[str, ...]
    problems: Mapping[str, str]


Progress = Callable[[Iterable, str, int], Iterable]


def _silent(items: Iterable, _title: str, _total: int) -> Iterable:
    return items


def pack(
    data: DataSet,
    size: tuple[int, int],
    cache: Path | None = None,
    progress: Progress = _silent,
    crop: str = "none",
) -> Packed:
    """Decode every picture of a data set, or take them from the cache.

    The key in the cache is the data set's content, so a changed picture is decoded again; a damaged cache is replaced.
    One process decodes, others wait for it. What was used longest ago is removed beyond PACKED_MB.

    Args:
        data: The data set.
        size: Height and width that pictures are squashed to.
        cache: Folder of the cache.
        progress: Wraps the items (items, title, total), for a progress bar.
        crop: What is cut out of each picture first, see `zoo.imaging.localise`.

    Returns:
        The pictures, row by row.

    Raises:
        OSError: The cache cannot be written, or not be read back.
    """
    from zoo.sources.catalogue import crop_detector_hash  # noqa: PLC0415 (imports what reads entries)

    part = "" if crop == "none" else f"{crop}{CROP_VERSION}{crop_detector_hash(crop)}"
    key = hashlib.sha256(f"{VERSION} {size} {data.hash}{part} {[i.file for i in data.items]}".encode()).hexdigest()[:24]
    folder = (cache or cache_folder()) / "packed" / key
    found = _open(folder)
    if found is None:
        with only_writer(folder, wait=math.inf):
            found = _open(folder)  # by the process that was waited for
            if found is None:
                _write(folder, data, size, progress, crop)
                keep_within(folder.parent, PACKED_MB.bytes, folder)
                found = _open(folder)
    mark_used(folder)
    if found is None:
        raise OSError(f"{folder} was written and cannot be read back; is the disk failing?")
    return found


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of size and decoded RGB: equal for equal pixels, whatever the file."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def _write(folder: Path, data: DataSet, size: tuple[int, int], progress: Progress, crop: str) -> None:
    # a good one that another process has made meanwhile is being read
    with atomic_folder(folder, lambda place: _open(place) is not None) as temporary:
        shape = (len(data), *size, 3)
        pictures = np.lib.format.open_memmap(temporary / PICTURES, "w+", np.uint8, shape)

        def decode(row: int) -> str | PictureError:
            try:
                image = data.items[row].source.image()
            except PictureError as error:
                return error
            pictures[row] = np.asarray(locate_cell(image, crop).image.resize(size[::-1], Image.Resampling.BICUBIC))
            return pixel_hash(image)

        with ThreadPoolExecutor(READERS) as pool:
            found = list(progress(pool.map(decode, range(len(data))), "decoding", len(data)))
        pictures.flush()
        problems = {
            item.file: str(result)
            for item, result in zip(data.items, found, strict=True)
            if isinstance(result, PictureError)
        }
        pixels = ["" if isinstance(result, PictureError) else result for result in found]
        write_json(
            temporary / INDEX,
            {"sha256": file_hash(temporary / PICTURES), "pixels": pixels, "problems": problems},
        )


def _open(folder: Path) -> Packed | None:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if file_hash(folder / PICTURES) != index["sha256"]:
            return None
        pictures = np.load(folder / PICTURES, mmap_mode="r", allow_pickle=False)
        return Packed(pictures, tuple(index["pixels"]), dict(index["problems"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
