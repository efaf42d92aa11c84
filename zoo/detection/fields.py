"""Fields: pictures whose cells have boxes, from a data set in any layout with boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from zoo.data.table import CutSource, DataError, DataSet, FileSource, Source
from zoo.detection.objects import OBJECTS, object_of


@dataclass(frozen=True)
class Field:
    """A picture and the cells that are marked in it.

    Attributes:
        file: Name in its data set.
        source: The whole picture.
        objects: Name of each object, one of `OBJECTS`.
        corners: left, top, right, bottom of each, (n, 4), in pixels, or in shares of the picture if `relative`.
        relative: Unit of `corners`.
        split: Side of a split that the data set names, if any.
    """

    file: str
    source: Source
    objects: tuple[str, ...]
    corners: np.ndarray
    relative: bool
    split: str | None = None

    def image(self) -> Image.Image:
        """The whole picture, RGB. Raises PictureError if it cannot be decoded."""
        return self.source.image()

    def boxes(self, size: tuple[int, int]) -> np.ndarray:
        """Boxes (n, 4) in pixels of the picture of `size` (width, height), clipped to it."""
        width, height = size
        scale = np.array([width, height, width, height], np.float32) if self.relative else np.float32(1)
        return np.clip(self.corners * scale, 0, np.array([width, height, width, height], np.float32))

    @property
    def numbers(self) -> np.ndarray:
        """Number in `OBJECTS` of each object, (n,)."""
        return np.array([OBJECTS.index(name) for name in self.objects], np.int64)


def read_fields(data: DataSet) -> list[Field]:
    """Fields of a data set that was read as a layout with boxes, in its order.

    Raises:
        DataError: None of its items has a box.
    """
    found: dict[str, list[tuple[str, tuple[float, float, float, float], bool, Source]]] = {}
    splits: dict[str, str | None] = {}
    for item in data.items:
        name = object_of(item.label or "")
        if isinstance(item.source, CutSource):
            box, relative, whole = item.source.box, item.source.relative, item.source.whole
        elif isinstance(item.source, FileSource) and item.source.box:
            left, top, right, bottom = item.source.box
            box, relative, whole = (left, top, right, bottom), False, FileSource(item.source.path)
        else:
            continue
        file = item.file.partition("#")[0]
        splits[file] = item.split
        if name:
            found.setdefault(file, []).append((name, box, relative, whole))
    if not found:
        raise DataError(f"{data.place} marks no cells with boxes. A detector needs YOLO, COCO or Pascal VOC boxes.")
    return [
        Field(
            file,
            cells[0][3],
            tuple(cell[0] for cell in cells),
            np.array([cell[1] for cell in cells], np.float32),
            cells[0][2],
            splits[file],
        )
        for file, cells in found.items()
    ]
