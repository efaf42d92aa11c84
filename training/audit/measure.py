"""Measurements of every picture, taken in one resumable pass of worker processes and kept in the cache."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from training.audit.matching import KEYPOINTS, Features, detect, scaled_grey
from training.audit.parallel import spread
from zoo.data import DataSet, Item
from zoo.data.packed import pixel_hash
from zoo.files import atomic_folder, atomic_path
from zoo.imaging.decode import PictureError
from zoo.imaging.decode.raster import PILLOW_NAMES
from zoo.imaging.localise import Cell, find_cell

HEADERS = (*PILLOW_NAMES.values(), "TIFF")  # formats of Pillow that state a size and mode
VERSION = 4  # part of the cache's key: raise when a measurement changes
CHUNK = 128  # pictures in a file of the cache
MIN_PARALLEL = 300  # pictures below which no process is started
THUMBNAIL = 72  # pixels
TILE = 72  # pixels of the square around the nucleus that copies are recognised by
TILE_REACH = 1.45  # nucleus extents from its centre to the tile's edge
RADII, ANGLES, WAVES = 24, 64, 12  # of the polar signature
BINS = 16  # a colour channel, of the histogram
BORDER = 0.06  # of the shorter side

Row = dict[str, Any]  # one picture's measurements by column


@dataclass(frozen=True)
class Measured:
    """Columns, row i for item i: see `_empty` for their shapes.

    `problems` tells why a picture could not be read ("" where it could), `folder` is where the columns are stored.
    """

    columns: dict[str, np.ndarray]
    problems: tuple[str, ...]
    folder: Path

    def __getitem__(self, name: str) -> np.ndarray:
        """A column."""
        return self.columns[name]

    @property
    def readable(self) -> np.ndarray:
        """Mask of the items that could be decoded, bool (n,)."""
        return np.array([not problem for problem in self.problems])

    def features(self, row: int) -> Features:
        """Local features of a picture."""
        return features(self.columns, row)


def features(columns: dict[str, np.ndarray], row: int) -> Features:
    """Local features kept in columns `positions`, `descriptors`, `keypoints`."""
    count = int(columns["keypoints"][row])
    return Features(
        np.asarray(columns["positions"][row, :count], np.float32), np.asarray(columns["descriptors"][row, :count])
    )


def measure(data: DataSet, cache: Path, measure_item: Callable[[Item], Row] | None = None) -> Measured:
    """Measure every picture; if interrupted, the next call goes on where this one stopped.

    Args:
        data: The data set.
        cache: Folder of the cache.
        measure_item: What measures one picture; by default `measure_picture`.

    Returns:
        Memory-mapped columns.

    Raises:
        OSError: The cache cannot be written.
    """
    key = hashlib.sha256(json.dumps([VERSION, [i.file for i in data.items], data.digests]).encode()).hexdigest()[:24]
    folder = cache / "audit" / key
    whole = folder / "columns"
    if not (whole / "problems.json").exists():
        parts = [range(start, min(start + CHUNK, len(data))) for start in range(0, len(data), CHUNK)]
        todo = [(folder / f"chunk-{number:05}.npz", [data.items[i] for i in rows]) for number, rows in enumerate(parts)]
        missing = [job for job in todo if not _is_whole(*job)]
        measure_chunk = partial(_measure_chunk, measure_item or measure_picture)
        for _ in spread(
            measure_chunk, missing, "measuring", "image", _start, (), MIN_PARALLEL, weight=lambda job: len(job[1])
        ):
            pass
        _join([path for path, _ in todo], whole, len(data))
        for path, _ in todo:
            path.unlink(missing_ok=True)
    return open_columns(whole)


def open_columns(folder: Path) -> Measured:
    """Columns of an earlier `measure`, memory-mapped; worker processes share them through the disk cache."""
    columns = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in folder.glob("*.npy")}
    problems = json.loads((folder / "problems.json").read_text(encoding="utf-8"))
    return Measured(columns, tuple(problems), folder)


def _is_whole(path: Path, items: Sequence[Item]) -> bool:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return len(archive["width"]) == len(items)
    except (OSError, ValueError, KeyError, EOFError):
        return False


def _join(paths: Sequence[Path], whole: Path, count: int) -> None:
    with atomic_folder(whole, lambda place: (place / "problems.json").exists()) as temporary:
        written: dict[str, np.memmap] = {}
        problems: list[str] = []
        done = 0
        for path in paths:
            with np.load(path, allow_pickle=False) as archive:
                problems += archive["problem"].tolist()
                rows = len(archive["width"])
                for name in set(archive.files) - {"problem"}:
                    part = archive[name]
                    if name not in written:
                        written[name] = np.lib.format.open_memmap(
                            temporary / f"{name}.npy", "w+", part.dtype, (count, *part.shape[1:])
                        )
                    written[name][done : done + rows] = part
                done += rows
        for array in written.values():
            array.flush()
        (temporary / "problems.json").write_text(json.dumps(problems), encoding="utf-8")


def _start() -> None:
    """A worker process needs no preparation."""


def _measure_chunk(measure_item: Callable[[Item], Row], job: tuple[Path, list[Item]]) -> int:
    path, items = job
    rows = [measure_item(item) for item in items]
    columns: Row = {name: np.stack([row[name] for row in rows]) for name in rows[0] if name != "problem"}
    problems = np.array([row["problem"] for row in rows])
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **columns, problem=problems)
    return len(items)


def _empty() -> Row:
    """One row, of a picture that could not be read."""
    return {
        "problem": "",
        "width": np.int32(0),
        "height": np.int32(0),
        "bytes": np.int64(0),
        "format": np.array("", "<U8"),
        "mode": np.array("", "<U8"),
        "quantisation": np.float32(0),
        "pixels": np.array("", "<U64"),
        "mean": np.zeros(3, np.float32),
        "spread": np.zeros(3, np.float32),
        "border": np.zeros(3, np.float32),
        "sharpness": np.float32(0),
        "confidence": np.float32(0),
        "box": np.zeros(4, np.float32),
        "centre": np.zeros(2, np.float32),
        "diameter": np.float32(0),
        "cell_signature": np.zeros(RADII * WAVES * 3, np.float16),
        "picture_signature": np.zeros(RADII * WAVES * 3, np.float16),
        "tile": np.zeros((TILE, TILE, 3), np.uint8),
        "tile_radius": np.float32(0),
        "extent": np.float32(0),
        "colours": np.zeros(BINS**3 // 8, np.uint8),
        "thumbnail": np.zeros((THUMBNAIL, THUMBNAIL, 3), np.uint8),
        "keypoints": np.int16(0),
        "positions": np.zeros((KEYPOINTS, 2), np.float32),
        "descriptors": np.zeros((KEYPOINTS, 128), np.uint8),
    }


def measure_picture(item: Item) -> Row:
    """All measurements of one picture, by column; those of an unreadable one are empty."""
    row = _empty()
    try:
        content = item.source.content()
        image = item.source.image()
    except PictureError as error:
        row["problem"] = str(error)
        return row
    pixels = np.asarray(image)
    row |= _facts(content, image) | _colours(pixels) | _cell(pixels, find_cell(image))
    row["pixels"] = np.array(pixel_hash(image), "<U64")
    row["thumbnail"] = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    found = detect(scaled_grey(pixels))
    row["keypoints"] = np.int16(len(found.positions))
    row["positions"][: len(found.positions)] = found.positions
    row["descriptors"][: len(found.positions)] = found.descriptors
    return row


def _facts(content: bytes, image: Image.Image) -> Row:
    """Size, format, mode and JPEG quantisation that the stored file's header states."""
    kind, mode, quantisation = "array", "RGB", 0.0
    try:
        with Image.open(io.BytesIO(content), formats=HEADERS) as header:
            kind, mode = header.format or "", header.mode
            tables = getattr(header, "quantization", None) or {}
            quantisation = float(np.mean(tables[0])) if 0 in tables else 0.0
    except (UnidentifiedImageError, OSError, ValueError):
        pass
    return {
        "width": np.int32(image.width),
        "height": np.int32(image.height),
        "bytes": np.int64(len(content)),
        "format": np.array(kind, "<U8"),
        "mode": np.array(mode, "<U8"),
        "quantisation": np.float32(quantisation),
    }


def _colours(pixels: np.ndarray) -> Row:
    height, width = pixels.shape[:2]
    rim = max(1, round(BORDER * min(height, width)))
    edge = np.concatenate([pixels[:rim].reshape(-1, 3), pixels[-rim:].reshape(-1, 3)])
    small = cv2.resize(pixels, (min(width, 96), min(height, 96)), interpolation=cv2.INTER_AREA)
    levels = (small // (256 // BINS)).astype(np.int32).reshape(-1, 3)
    counts = np.bincount(levels @ [BINS * BINS, BINS, 1], minlength=BINS**3)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return {
        "mean": pixels.reshape(-1, 3).mean(0, dtype=np.float64).astype(np.float32),
        "spread": pixels.reshape(-1, 3).std(0, dtype=np.float64).astype(np.float32),
        "border": edge.mean(0).astype(np.float32),
        "sharpness": np.float32(cv2.Laplacian(grey, cv2.CV_32F).std()),
        # which colours occur at all, a bit each: what is drawn into one picture occurs in no other
        "colours": np.packbits(counts >= 3),
    }


def _cell(pixels: np.ndarray, cell: Cell | None) -> Row:
    """The cell's place, and two signatures that turning and mirroring do not change: of the cell and of the picture."""
    height, width = pixels.shape[:2]
    middle = np.array([width / 2, height / 2], np.float32)
    centre, extent = (middle, min(height, width) / 2) if cell is None else (np.array(cell.centre), _extent(cell))
    found = {
        "cell_signature": signature(_polar(pixels, centre, extent)),
        "picture_signature": signature(_polar(pixels, middle, 0.95 * min(height, width) / 2)),
        "tile": _tile(pixels, centre, extent),
        "tile_radius": np.float32(TILE / 2 / TILE_REACH),
        "extent": np.float32(extent),
    }
    if cell is not None:
        found |= {
            "confidence": np.float32(cell.confidence),
            "box": np.array(cell.box, np.float32),
            "centre": np.array(cell.centre, np.float32),
            "diameter": np.float32(cell.nucleus_diameter),
        }
    return found


def _extent(cell: Cell) -> float:
    """Distance from the nucleus's centre to its farthest parts, in the picture's pixels."""
    rows, columns = np.nonzero(cell.nucleus)
    away = np.hypot((columns + 0.5) / cell.scale - cell.centre[0], (rows + 0.5) / cell.scale - cell.centre[1])
    return max(4.0, 1.05 * float(np.percentile(away, 97)))


def _polar(pixels: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """RADII × ANGLES × 3 samples around `centre`."""
    smooth = cv2.GaussianBlur(pixels, (0, 0), 0.7)
    return polar(smooth, centre - 0.5, radius)


def polar(pixels: np.ndarray, centre: Sequence[float] | np.ndarray, radius: float) -> np.ndarray:
    """RADII × ANGLES × 3 float samples of `pixels` on circles around `centre` (x, y), up to `radius`."""
    distances = (np.arange(RADII) + 0.5) / RADII * radius
    angles = np.arange(ANGLES) / ANGLES * 2 * np.pi
    x = (centre[0] + distances[:, None] * np.cos(angles)).astype(np.float32)
    y = (centre[1] + distances[:, None] * np.sin(angles)).astype(np.float32)
    return cv2.remap(pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def signature(samples: np.ndarray) -> np.ndarray:
    """Fourier magnitudes along the angle, of length 1: a rotation shifts the angle, a mirror reverses it."""
    weight = np.sqrt(np.arange(RADII) + 0.5)[:, None, None]  # an outer ring covers more of the picture
    samples = (samples - (samples * weight**2).mean((0, 1)) / (weight**2).mean()) * weight
    waves = np.abs(np.fft.rfft(samples, axis=1))[:, :WAVES].ravel()
    return (waves / (np.linalg.norm(waves) + 1e-6)).astype(np.float16)


def _tile(pixels: np.ndarray, centre: np.ndarray, extent: float) -> np.ndarray:
    """TILE × TILE pixels around the nucleus, scaled so that its extent is always the same."""
    step = extent * TILE_REACH / (TILE / 2)
    first = np.asarray(centre) - 0.5 - step * (TILE / 2 - 0.5)
    matrix = np.array([[step, 0, first[0]], [0, step, first[1]]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, (TILE, TILE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
