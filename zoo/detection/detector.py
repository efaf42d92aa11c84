"""A detector's network and limits, ready to find cells in pictures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo.bounded import ByteCache
from zoo.detection.found import Found
from zoo.detection.objects import OBJECTS, RED, TOUCHING, WHITE
from zoo.detection.quality import complaints, measure
from zoo.detection.ruler import MIN_CELLS, Scale, chosen_scale, red_cell_scale
from zoo.detection.scan import search
from zoo.entry import WEIGHTS, Entry, EntryError
from zoo.serving.backends import default_backend
from zoo.serving.backends.choose import serve_maps

if TYPE_CHECKING:
    from torch import nn

ARCHITECTURE = "cell_detector"
# White cells narrower than SMALL red cells must be SURE. Of 124 found in validation fields the smallest is 1.11 wide.
SMALL, SURE = 1.1, 0.7
# a close-up is asked about twice: whether it is one, and by classifiers that cut the cell where it was found
KEPT_PIXELS, KEPT_BYTES, CELL_BYTES = 1 << 20, 8 << 20, 600


@dataclass(frozen=True)
class FoundCell:
    """A cell of a picture.

    Attributes:
        box: left, top, right, bottom in pixels of the picture.
        object: One of `OBJECTS`.
        confidence: 0..1.
        cut: Whether the picture's edge cuts it.
        diameter_um: Mean of its box's sides in micrometres; None without a scale, or where it is cut.
    """

    box: tuple[float, float, float, float]
    object: str
    confidence: float
    cut: bool
    diameter_um: float | None = None

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of its box, (x, y)."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True)
class Cells:
    """Cells of a picture.

    Attributes:
        size: Width and height of the picture.
        cells: Its cells by object, in reading order.
        scale: Micrometres a pixel; None where nothing tells them.
        quality: Sentences on what is poor about the field, see `zoo.detection.quality`.
    """

    size: tuple[int, int]
    cells: tuple[FoundCell, ...]
    scale: Scale | None
    quality: tuple[str, ...] = ()

    def of(self, name: str) -> list[FoundCell]:
        """Cells of one object."""
        return [cell for cell in self.cells if cell.object == name]

    @property
    def counts(self) -> dict[str, int]:
        """Number of each object, all of them."""
        return {name: len(self.of(name)) for name in OBJECTS}


class Detector:
    """Finds cells. Any number of threads may use it; pictures are searched one after the other.

    Args:
        entry: A detector's entry.
        backend: One of `zoo.serving.backends.BACKENDS`; None for that of the environment.

    Raises:
        EntryError: It is no detector, or its weights do not fit.
    """

    def __init__(self, entry: Entry, backend: str | None = None) -> None:
        part = entry.config.zoo.detector
        if part is None or entry.config.architecture != ARCHITECTURE:
            raise EntryError(f"{entry.id} is a classifier. Choose a detector, such as cells.")
        self.id = entry.id
        self.limits = part.limits
        self._maps = serve_maps(entry, lambda: _load(entry), backend or default_backend())
        self._kept: ByteCache[Cells] = ByteCache(lambda: KEPT_BYTES, lambda cells: CELL_BYTES * (1 + len(cells.cells)))

    @property
    def backend(self) -> str:
        """Name of the library that runs the network."""
        return self._maps.backend

    def find(self, image: Image.Image, um_per_px: float | None = None, file_um_per_px: float | None = None) -> Cells:
        """Find the cells of an RGB picture.

        Args:
            image: The picture.
            um_per_px: Micrometres a pixel, where a person knows them.
            file_um_per_px: The same as the picture's file states it.

        Returns:
            Its cells; those of the smaller pictures that were asked about last are known.
        """
        if image.width * image.height > KEPT_PIXELS:
            return self._find(image, um_per_px, file_um_per_px)
        key = (hashlib.sha256(image.tobytes()).digest(), image.size, um_per_px, file_um_per_px)
        cells = self._kept.get(key)
        if cells is None:
            cells = self._find(image, um_per_px, file_um_per_px)
            self._kept.put(key, cells)
        return cells

    def _find(self, image: Image.Image, um_per_px: float | None, file_um_per_px: float | None) -> Cells:
        found = search(image, self.forward, min(self.limits.values())).found
        limits = np.array([self.limits[name] for name in OBJECTS])
        found = found.where(found.confidences >= limits[found.numbers])
        found = without_dark_red_cells(found)
        cells = describe(found, image.size, um_per_px, file_um_per_px)
        return replace(cells, quality=tuple(complaints(measure(image, cells))))

    def forward(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the network on a normalised batch, float32 (B, 3, H, W); see `CellDetector.forward`."""
        return self._maps(batch)


def _load(entry: Entry) -> nn.Module:
    """The network in torch, in evaluation mode. Raises EntryError if its weights do not fit."""
    # a stored converted network needs neither torch nor timm
    from safetensors.torch import load_file  # noqa: PLC0415

    from zoo.detection.network import CellDetector  # noqa: PLC0415

    try:
        network = CellDetector(len(OBJECTS), **entry.config.model_args)
        network.load_state_dict(load_file(str(entry.folder / WEIGHTS)))
    except (RuntimeError, TypeError) as error:
        raise EntryError(f"{entry.id} cannot be loaded: its weights do not fit {ARCHITECTURE}.") from error
    return network.float().eval().requires_grad_(False)


def without_dark_red_cells(found: Found) -> Found:
    """Drop unsure white cells that are no larger than the field's red cells: dark, round red cells look like them."""
    sides = np.sqrt(np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1))
    red = found.numbers == OBJECTS.index(RED)
    if red.sum() < MIN_CELLS:
        return found
    small = (found.numbers == OBJECTS.index(WHITE)) & (sides < SMALL * np.median(sides[red]))
    return found.where(~small | (found.confidences >= SURE))


def describe(
    found: Found, size: tuple[int, int], um_per_px: float | None = None, file_um_per_px: float | None = None
) -> Cells:
    """Cells with diameters from boxes in pixels of a picture of `size`."""
    width, height = size
    edges = np.array([width, height], np.float32)
    boxes = found.boxes
    cut = np.logical_or((boxes[:, :2] < TOUCHING).any(axis=1), (boxes[:, 2:] > edges - TOUCHING).any(axis=1))
    red = found.numbers == OBJECTS.index("red cell")
    scale = chosen_scale(red_cell_scale(boxes[red], found.confidences[red], cut[red]), file_um_per_px, um_per_px)
    cells = []
    for box, confidence, number, is_cut in zip(found.boxes, found.confidences, found.numbers, cut, strict=True):
        left, top, right, bottom = (round(float(value), 1) for value in box)
        diameter = (right - left + bottom - top) / 2 * scale.um_per_px if scale and not is_cut else None
        cells.append(FoundCell((left, top, right, bottom), OBJECTS[number], float(confidence), bool(is_cut), diameter))
    return Cells(size, tuple(sorted(cells, key=_reading_order)), scale)


def _reading_order(cell: FoundCell) -> tuple[int, float, float]:
    x, y = cell.centre
    return OBJECTS.index(cell.object), y, x
