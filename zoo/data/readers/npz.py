"""NumPy archives with `images` and `labels` (or MedMNIST's `train_images`, `train_labels`, …); nothing is unpickled."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.data.table import DataError, DataSet, Item, split_name
from zoo.imaging.decode import ImageError, from_array

NAME = "an .npz with images and labels (also MedMNIST's)"
ORDER = 10
IMAGES, LABELS, NAMES = ("images", "x", "data", "imgs"), ("labels", "y", "targets"), ("label_names", "class_names")
DAMAGED = (ValueError, OSError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error, MemoryError)
CHUNK = 512  # pictures looked through at a time for the brightest sample
FLOAT_TOPS = (1.0, 255.0)


@dataclass(frozen=True)
class ArraySource:
    """Row `row` of array `key` in the archive `path`; a sample of value `top` is white."""

    path: Path
    key: str
    row: int
    top: float

    def content(self) -> bytes:
        """The row's bytes. Raises ImageError if the archive is damaged."""
        pixels = self._pixels()
        return repr((pixels.shape, pixels.dtype.str)).encode() + pixels.tobytes()

    def image(self) -> Image.Image:
        """The row as RGB. Raises ImageError if it holds no finite value, or the archive is damaged."""
        pixels = self._pixels()
        if pixels.dtype != np.uint8:
            known = np.isfinite(pixels)
            if not known.any():
                raise ImageError("The picture holds no finite value.")
            pixels = np.rint(np.where(known, pixels, 0).clip(0, self.top) / self.top * 255).astype(np.uint8)
        return from_array(pixels)

    def _pixels(self) -> np.ndarray:
        try:
            return _array(self.path, self.key)[self.row]
        except DAMAGED as error:
            raise ImageError(f"{self.path.name} is damaged. Download or save it again.") from error


def matches(path: Path) -> bool:
    """A file called .npz, or a folder that holds one such file and no picture folders."""
    return path.suffix.lower() == ".npz" or _inside(path) is not None


def read(path: Path) -> DataSet:
    """Read the archive. Raises DataError if it is damaged, holds objects, or images and labels do not fit."""
    file = _inside(path) or path
    headers = _headers(file)
    items: list[Item] = []
    for images, labels, split in _pairs(file, headers):
        items += _items(file, headers, images, labels, split)
    return DataSet(file.stem, path, "npz", tuple(items))


def _inside(path: Path) -> Path | None:
    if not path.is_dir():
        return None
    found = sorted(path.glob("*.npz"))
    return found[0] if len(found) == 1 else None


def _headers(file: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array, known before any array is loaded."""
    found = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
                    shape, _, dtype = reader[version[0]](stream)
                found[member.filename.removesuffix(".npy")] = (shape, dtype, member.file_size)
    except DAMAGED as error:
        raise _damaged(file) from error
    for key, (shape, dtype, size) in found.items():
        if dtype.hasobject:
            raise DataError(
                f"{file.name}: {key} is an array of Python objects. Opening it could run code, so it is refused. Save "
                "plain numbers: np.savez(file, images=np.stack(images).astype('uint8'), labels=np.array(labels))."
            )
        if np.prod(shape, dtype=object) * dtype.itemsize > size:
            raise _damaged(file)
    return {key: (shape, dtype) for key, (shape, dtype, _) in found.items()}


def _damaged(file: Path) -> DataError:
    return DataError(f"{file.name} is no NumPy archive, or a damaged one. Download or save it again.")


def _pairs(file: Path, headers: dict) -> list[tuple[str, str, str | None]]:
    """(images, labels, split) keys: MedMNIST's three pairs, or the first names that fit."""
    parts = [key.removesuffix("_images") for key in headers if key.endswith("_images")]
    pairs = [(f"{part}_images", f"{part}_labels", split_name(part)) for part in parts]
    if not pairs:
        lower = {key.lower(): key for key in headers}
        pairs = [
            (
                next((lower[k] for k in IMAGES if k in lower), ""),
                next((lower[k] for k in LABELS if k in lower), ""),
                None,
            )
        ]
    for images, labels, _ in pairs:
        if images not in headers or labels not in headers:
            there = ", ".join(sorted(headers)) or "nothing"
            raise DataError(f"{file.name} holds {there}; it needs the arrays images and labels.")
    return pairs


def _items(file: Path, headers: dict, images: str, labels: str, split: str | None) -> list[Item]:
    shape, dtype = headers[images]
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[-1] not in (1, 3, 4)):
        raise DataError(
            f"{file.name}: {images} has the shape {shape}. It must be pictures × height × width × 3 (or 1, 4)."
        )
    if not (np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating)):
        raise DataError(f"{file.name}: {images} holds values of type {dtype}, not pixels.")
    names = _labels(file, headers, labels)
    if len(names) != shape[0]:
        raise DataError(f"{file.name}: {shape[0]:,} images, but {len(names):,} labels. Save them in the same order.")
    if shape[0] and min(shape[1:3]) < 2:
        raise DataError(f"{file.name}: its pictures are {shape[2]}×{shape[1]} pixels, too small to show a cell.")
    top = _top(file, images, dtype)
    prefix = f"{split}/" if split else ""
    width = len(str(max(shape[0] - 1, 0)))
    return [
        Item(f"{prefix}{row:0{width}}", ArraySource(file, images, row, top), label, None, split, file.stem)
        for row, label in enumerate(names)
    ]


def _labels(file: Path, headers: dict, key: str) -> list[str | None]:
    try:
        values = _array(file, key)
    except DAMAGED as error:
        raise _damaged(file) from error
    if values.ndim == 2 and values.shape[1] > 1:
        if not (np.isin(values, (0, 1)).all() and (values.sum(1) == 1).all()):
            raise DataError(f"{file.name}: {key} has the shape {values.shape}. It must hold one label an image.")
        values = values.argmax(1)
    if values.ndim > 2 or values.ndim == 0:
        raise DataError(f"{file.name}: {key} has the shape {values.shape}. It must hold one label an image.")
    values = values.reshape(-1)
    if values.dtype.kind in "US":
        return [str(v, "utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.tolist()]
    if values.dtype.kind not in "iufb":
        raise DataError(f"{file.name}: {key} holds values of type {values.dtype}, not labels.")
    names = _names(file, headers)
    # a label that is not a number is no label: reported with the picture, never guessed
    return [
        None if not np.isfinite(v) else names.get(int(v), f"{v:g}") if float(v).is_integer() else f"{v:g}"
        for v in values.tolist()
    ]


def _names(file: Path, headers: dict) -> dict[int, str]:
    """Names of the label numbers: an array label_names in the archive, or MedMNIST's own list."""
    for key in NAMES:
        if key in headers and headers[key][1].kind == "U":
            return dict(enumerate(_array(file, key).reshape(-1).tolist()))
    flag = re.sub(r"_\d+$", "", file.stem.lower())
    if not flag.endswith("mnist"):
        return {}
    try:
        from medmnist import INFO  # noqa: PLC0415 (imports half of torchvision)
    except ImportError:
        return {}
    # "immature granulocytes(myelocytes, …)" is named as everybody does, by what stands before the bracket
    labels = INFO.get(flag, {}).get("label", {})
    return {int(number): name.split("(")[0].strip() for number, name in labels.items()}


def _array(file: Path, key: str) -> np.ndarray:
    facts = file.stat()
    return _load(file, key, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=4)
def _load(file: Path, key: str, changed: int, size: int) -> np.ndarray:
    """An array of the archive; `changed` and `size` are part of the key, so that a replaced file is read again."""
    with np.load(file, allow_pickle=False) as archive:
        return archive[key]


def _top(file: Path, key: str, dtype: np.dtype) -> float:
    """The value of white: 255, or 1 where all floats are up to 1, or the smallest usual bit depth."""
    if dtype == np.uint8:
        return 255.0
    try:
        array = _array(file, key)
    except DAMAGED as error:
        raise _damaged(file) from error
    brightest = 0.0
    for start in range(0, len(array), CHUNK):
        part = np.asarray(array[start : start + CHUNK], np.float64)
        brightest = max(brightest, float(part.max(initial=0.0, where=np.isfinite(part))))
    tops = FLOAT_TOPS if np.issubdtype(dtype, np.floating) else (255.0,)
    return next((top for top in (*tops, 1023.0, 4095.0, 65535.0) if brightest <= top), brightest)
