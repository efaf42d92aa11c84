"""Pictures of one cell each, from data sets with kinds and without boxes, as training fields.

An earlier training of the detector finds the cell in the middle, else its stain does; of what lies around it nothing is
known, so that the detector may answer anything there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from training.detection.pictures.crops import Marked
from training.detection.recipe import CloseUps
from zoo.benchmarks.registry import get_benchmark
from zoo.data import read_dataset
from zoo.data.registry import get_dataset
from zoo.detection.found import Found
from zoo.detection.matching import iou
from zoo.detection.objects import OBJECTS, PLATELET, WHITE
from zoo.imaging.decode import PictureError
from zoo.imaging.localise import find_cell

AREAS = (0.03, 0.8)  # of the box, in shares of the picture, between which it is believed
SURE = 0.5  # confidence of the cell that is found by its stain
SAME_CELL = 0.4  # overlap of two boxes of one cell, one of which may hold its nucleus only


def read_close_ups(
    parts: Sequence[CloseUps], root: Path, seed: int, find: Callable[[np.ndarray], Found]
) -> list[Marked]:
    """Training fields of all parts; cells that are not found in the middle of their pictures are left out.

    Args:
        parts: Data sets, and how many pictures a kind to take of each.
        root: Folder that holds the data sets.
        seed: Of the choice of pictures.
        find: The earlier training: pixels (h, w, 3) to what it finds.

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
            if item.label and known.labels.get(item.label, item.label) and item.file not in scored:
                by_kind.setdefault(item.label, []).append(item)
        for label, items in sorted(by_kind.items()):
            name = PLATELET if PLATELET in label.lower() else WHITE
            for number in random.permutation(len(items))[: part.per_kind]:
                try:
                    pixels = np.asarray(items[number].source.image())
                except PictureError:
                    continue
                if (box := middle_box(pixels, find(pixels), OBJECTS.index(name))) is not None:
                    height, width = pixels.shape[:2]
                    around = np.array([[0, 0, width, height]], np.float32)
                    found.append(Marked(pixels, box[None], np.array([OBJECTS.index(name)]), around))
    return found


def middle_box(pixels: np.ndarray, found: Found, number: int) -> np.ndarray | None:
    """Box (4,) of the cell over the picture's middle; None where none is clearly there.

    A box of the wanted object that fits the stain is the tightest. Where the stain shows no cell, the surest box over
    the middle is taken, whichever object it was thought to be: a platelet's only for a platelet.
    """
    by_stain = _box_by_stain(pixels)
    if by_stain is not None:
        overlap = iou(found.boxes, by_stain[None])[:, 0] * (found.numbers == number)
        return found.boxes[overlap.argmax()] if len(overlap) and overlap.max() >= SAME_CELL else by_stain
    platelet = OBJECTS.index(PLATELET)
    alike = (found.numbers == platelet) == (number == platelet)
    fitting = [box for box, fits in zip(found.boxes, alike, strict=True) if fits and _is_in_the_middle(box, pixels)]
    return fitting[0] if fitting else None


def _box_by_stain(pixels: np.ndarray) -> np.ndarray | None:
    cell = find_cell(Image.fromarray(pixels))
    if cell is None or cell.confidence < SURE:
        return None
    box = np.array(cell.box, np.float32)
    return box if _is_in_the_middle(box, pixels) else None


def _is_in_the_middle(box: np.ndarray, pixels: np.ndarray) -> bool:
    """Whether a box holds the picture's middle and a credible share of the picture."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    share = (right - left) * (bottom - top) / (width * height)
    return bool(left < width / 2 < right and top < height / 2 < bottom and AREAS[0] < share < AREAS[1])
