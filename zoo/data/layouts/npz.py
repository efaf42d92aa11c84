"""NumPy archives with `images` and `labels` (or MedMNIST's `train_images`, `train_labels`, …); nothing is unpickled."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from zoo.bounded import ByteCache
from zoo.data.archives import check_zip
from zoo.data.layouts.registry import AmbiguousError, Reading, layout
from zoo.data.options import ReadOptions
from zoo.data.table import DataError, Item, named, split_name
from zoo.data.tree import Stored, Tree
from zoo.imaging.decode import PictureError, from_array
from zoo.imaging.decode.ranges import EIGHT_BIT, Range, find_range, to_8bit
from zoo.limits import DATA_MB, SESSION_MB

IMAGES, LABELS, NAMES = ("images", "x", "data", "imgs"), ("labels", "y", "targets"), ("label_names", "class_names")
DAMAGED = (ValueError, OSError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error, MemoryError)
COPY = re.compile(r"(\s*\(\d+\)|[\s_-]+(copy|kopie|copie|copia))+$")  # what browsers and systems add to a name

_arrays: ByteCache[np.ndarray] = ByteCache(lambda: DATA_MB.bytes, lambda array: array.nbytes)


@dataclass(frozen=True)
class ArraySource:
    """Row `row` of array `key` in the archive `file`; `range` is that of the whole array."""

    file: Stored
    key: str
    row: int
    range: Range

    def content(self) -> bytes:
        """The row's bytes. Raises PictureError if the archive is damaged."""
        pixels = self._pixels()
        return repr((pixels.shape, pixels.dtype.str)).encode() + pixels.tobytes()

    def image(self) -> Image.Image:
        """The row as RGB. Raises PictureError if it holds no finite value, or the archive is damaged."""
        pixels = self._pixels()
        if pixels.dtype != np.uint8:
            if not np.isfinite(pixels).any():
                raise PictureError("The picture holds no finite value.")
            pixels = to_8bit(pixels, self.range, alpha=pixels.ndim == 3 and pixels.shape[-1] == 4)
        return from_array(pixels)

    def _pixels(self) -> np.ndarray:
        try:
            return _array(self.file, self.key)[self.row]
        except DAMAGED as error:
            raise PictureError(f"{self.file.name} is damaged. Download or save it again.") from error


@layout("npz", "an .npz with images and labels (also MedMNIST's)")
def read_npz(tree: Tree, options: ReadOptions) -> Reading | None:
    """One archive of arrays, or a folder that holds one and no pictures.

    Raises DataError if it is damaged, holds objects, or images and labels do not fit.
    """
    found = [name for name in tree.offered if name.lower().endswith(".npz")]
    if not found or (tree.entry is None and tree.pictures):
        return None
    if len(found) > 1:
        raise AmbiguousError(f"{tree.name} holds {len(found)} .npz files: {named(found)}. Name the one to read.")
    file = tree.stored(found[0])
    headers = _headers(file)
    items: list[Item] = []
    for images, labels, split in _pairs(file, headers):
        items += _items(file, headers, images, labels, split)
    return Reading(file.stem, "npz", f"{found[0]} holds the arrays {named(sorted(headers), 6)}", tuple(items))


def _headers(file: Stored) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array, known before any array is loaded."""
    found = {}
    try:
        with file.open() as raw, zipfile.ZipFile(raw) as archive:
            check_zip(archive, file)
            for member in archive.infolist():
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
                    shape, _, dtype = reader[version[0]](stream)
                found[member.filename.removesuffix(".npy")] = (shape, dtype, member.file_size)
    except DataError:
        raise
    except DAMAGED as error:
        raise _damaged(file) from error
    unpacked = sum(size for _, _, size in found.values())
    if file.data is not None and unpacked > SESSION_MB.bytes:
        raise DataError(
            f"{file.name} unpacks to {unpacked / 1e6:,.0f} MB, more than {SESSION_MB.value:,} MB. Use the commands."
        )
    for key, (shape, dtype, size) in found.items():
        if dtype.hasobject:
            raise DataError(
                f"{file.name}: {key} is an array of Python objects. Opening it could run code, so it is refused. Save "
                "plain numbers: np.savez(file, images=np.stack(images).astype('uint8'), labels=np.array(labels))."
            )
        if np.prod(shape, dtype=object) * dtype.itemsize > size:
            raise _damaged(file)
    return {key: (shape, dtype) for key, (shape, dtype, _) in found.items()}


def _damaged(file: Stored) -> DataError:
    return DataError(f"{file.name} is no NumPy archive, or a damaged one. Download or save it again.")


def _pairs(file: Stored, headers: dict) -> list[tuple[str, str, str | None]]:
    """(images, labels, split) keys: MedMNIST's three pairs, or the first names that fit."""
    parts = [key.removesuffix("_images") for key in headers if key.endswith("_images")]
    pairs = [(f"{part}_images", f"{part}_labels", split_name(part)) for part in parts]
    pairs += [(key, f"y_{key[2:]}", split_name(key[2:])) for key in headers if key.lower().startswith("x_")]  # Keras'
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


def _items(file: Stored, headers: dict, images: str, labels: str, split: str | None) -> list[Item]:
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
    found = _range(file, images, dtype)
    prefix = f"{split}/" if split else ""
    width = len(str(max(shape[0] - 1, 0)))
    return [
        Item(f"{prefix}{row:0{width}}", ArraySource(file, images, row, found), label, None, split, file.stem)
        for row, label in enumerate(names)
    ]


def _labels(file: Stored, headers: dict, key: str) -> list[str | None]:
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


def _names(file: Stored, headers: dict) -> dict[int, str]:
    """Names of the label numbers: an array label_names in the archive, or MedMNIST's own list."""
    for key in NAMES:
        if key in headers and headers[key][1].kind == "U":
            return dict(enumerate(_array(file, key).reshape(-1).tolist()))
    flag = re.sub(r"_\d+$", "", COPY.sub("", file.stem.lower()))
    if not flag.endswith("mnist"):
        return {}
    try:
        from medmnist import INFO  # noqa: PLC0415 (imports half of torchvision)
    except ImportError:
        return {}
    # "immature granulocytes(myelocytes, …)" is named as everybody does, by what stands before the bracket
    labels = INFO.get(flag, {}).get("label", {})
    return {int(number): name.split("(")[0].strip() for number, name in labels.items()}


def _array(file: Stored, key: str) -> np.ndarray:
    """An array of the archive; a replaced file is read again."""
    known = (file.version(), key)
    found = _arrays.get(known)
    if found is None:
        with file.open() as raw, np.load(raw, allow_pickle=False) as archive:
            found = archive[key]
        _arrays.put(known, found)
    return found


def _range(file: Stored, key: str, dtype: np.dtype) -> Range:
    """The range of all pictures of an array."""
    if dtype == np.uint8:
        return EIGHT_BIT
    try:
        array = _array(file, key)
    except DAMAGED as error:
        raise _damaged(file) from error
    try:
        return find_range(array[..., :3] if array.ndim == 4 else array)
    except PictureError:
        return EIGHT_BIT  # nothing finite: each picture says so
