"""Fields that hold no white cell, and of whose red cells only some are known, as training fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from training.detection.pictures.crops import Marked
from training.detection.recipe import RedFields
from training.detection.sides import drawn_side
from zoo.data.registry import get_dataset
from zoo.data.table import DataError
from zoo.data.tree import is_picture
from zoo.detection.found import Found
from zoo.detection.objects import OBJECTS, RED
from zoo.imaging.decode import PictureError, decode

SURE = 0.5  # confidence from which a red cell that the first training finds is believed


def read_red_fields(parts: Sequence[RedFields], root: Path, find: Callable[[np.ndarray], Found]) -> list[Marked]:
    """Training fields of all parts; which red cells they hold, an earlier training of the detector says.

    Args:
        parts: Folders of fields, and which of them do hold white cells.
        root: Folder that holds the data sets.
        find: The earlier training: pixels (h, w, 3) to what it finds.

    Raises:
        DataError: A folder holds no pictures.
    """
    found = []
    for part in parts:
        for path in training_files(part, root):
            try:
                pixels = np.asarray(decode(path))
            except PictureError:
                continue
            cells = find(pixels)
            cells = cells.where((cells.numbers == OBJECTS.index(RED)) & (cells.confidences >= SURE))
            height, width = pixels.shape[:2]
            whole = np.array([[0, 0, width, height]], np.float32)
            found.append(Marked(pixels, cells.boxes, cells.numbers, whole[:0], whole))
    return found


def training_files(part: RedFields, root: Path) -> list[Path]:
    """Fields of a part that train: not those with white cells, and not those held out by the hash of their name.

    Raises:
        DataError: The folder holds no pictures.
    """
    folder = root / get_dataset(part.set).place / part.folder
    files = sorted(path for path in folder.glob("*") if is_picture(path.name))
    if not files:
        raise DataError(f"{folder} holds no pictures.")
    return [path for path in files if path.stem not in part.white and not is_held_out(part, path.stem)]


def is_held_out(part: RedFields, stem: str) -> bool:
    """Whether a field, by its file's name without ending, is kept to measure on."""
    return drawn_side(f"{part.set}/{part.folder}/{stem}", part.held_out, 0.0) == "test"
