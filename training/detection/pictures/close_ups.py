"""Pictures of one cell each, from data sets with kinds and without boxes, as training fields.

The cell in the middle is found by its stain; of what lies around it nothing is known, so that the detector may answer
anything there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from training.detection.pictures.crops import Marked
from training.detection.recipe import CloseUps
from zoo.benchmarks.registry import get_benchmark
from zoo.data import read_dataset
from zoo.data.registry import get_dataset
from zoo.detection.objects import OBJECTS, PLATELET, WHITE
from zoo.imaging.decode import PictureError
from zoo.imaging.localise import find_cell

AREAS = (0.03, 0.8)  # of the box, in shares of the picture, between which it is believed
SURE = 0.5  # confidence of the cell that is found by its stain


def read_close_ups(parts: Sequence[CloseUps], root: Path, seed: int) -> list[Marked]:
    """Training fields of all parts; cells that are not found in the middle of their pictures are left out.

    Args:
        parts: Data sets, and how many pictures a kind to take of each.
        root: Folder that holds the data sets.
        seed: Of the choice of pictures.

    Raises:
        DataError: A data set is missing.
    """
    random = np.random.default_rng(seed)
    found = []
    for part in parts:
        known = get_dataset(part.set)
        data = read_dataset(root / known.place)
        scored = set(get_benchmark(part.leave_out).rows["file"]) if part.leave_out else set()
        by_kind: dict[str, list] = {}
        for item in data.items:
            if item.label and item.file not in scored:
                by_kind.setdefault(item.label, []).append(item)
        for label, items in sorted(by_kind.items()):
            name = PLATELET if PLATELET in label.lower() else WHITE
            for number in random.permutation(len(items))[: part.per_kind]:
                try:
                    pixels = np.asarray(items[number].source.image())
                except PictureError:
                    continue
                if (box := _middle_box(pixels)) is not None:
                    height, width = pixels.shape[:2]
                    around = np.array([[0, 0, width, height]], np.float32)
                    found.append(Marked(pixels, box[None], np.array([OBJECTS.index(name)]), around))
    return found


def _middle_box(pixels: np.ndarray) -> np.ndarray | None:
    """Box (4,) of the cell over the picture's middle; None where none is clearly there."""
    cell = find_cell(Image.fromarray(pixels))
    if cell is None or cell.confidence < SURE:
        return None
    height, width = pixels.shape[:2]
    left, top, right, bottom = cell.box
    share = (right - left) * (bottom - top) / (width * height)
    over_middle = left < width / 2 < right and top < height / 2 < bottom
    return np.array(cell.box, np.float32) if over_middle and AREAS[0] < share < AREAS[1] else None
