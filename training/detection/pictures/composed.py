"""Evaluation fields of several white cells, put together from fields that were held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from training.detection.pictures.composites import CutCell, cut_cells, paste_cells
from training.detection.pictures.crops import Marked, marked
from training.evaluation.benchmarks import DecodedPicture
from zoo.data.table import DataError
from zoo.detection.benchmarks import Composed
from zoo.detection.fields import Field
from zoo.detection.objects import OBJECTS, WHITE

TRIES = 8  # of pasting, after which another field is taken
EDGE = 3  # pixels
MAX_COVERED = 0.15  # share of a white cell's box that a pasted one may cover: they touch, and are seen
PER_FIELD = 24  # fields that are tried for each wanted one


def compose(fields: Sequence[Field], wanted: Composed) -> list[Field]:
    """Fields with `wanted.white_cells` white cells each: some of `fields`, with cells of the others pasted in.

    Raises:
        DataError: The fields are too small, or too few, to hold as many.
    """
    whole = [_decoded(field) for field in fields]
    grounds = [_mirrored(field) for field in whole if not _at_right_edge(field)]
    cells = [cell for one in whole for cell in cut_cells(one) if cell.number == OBJECTS.index(WHITE)]
    random = np.random.default_rng(wanted.seed)
    made: list[Field] = []
    for _ in range(PER_FIELD * wanted.fields):
        if len(made) == wanted.fields:
            return made
        full = _filled(grounds[int(random.integers(len(grounds)))], cells, wanted.white_cells, random)
        if full is not None:
            objects = tuple(OBJECTS[number] for number in full.numbers)
            source = DecodedPicture(Image.fromarray(full.pixels))
            made.append(Field(f"composed-{len(made):03}", source, objects, full.boxes, relative=False))
    raise DataError(f"Only {len(made)} of {wanted.fields} fields could be put together: the given ones are too small.")


def _decoded(field: Field) -> Marked:
    image = field.image()
    return marked(np.asarray(image), field.boxes(image.size), field.numbers)


def _at_right_edge(field: Marked) -> bool:
    """Whether a white cell lies where the mirror image will begin."""
    return bool((_white(field)[:, 2] > field.pixels.shape[1] - EDGE).any())


def _mirrored(field: Marked) -> Marked:
    """The field and its mirror image side by side: room for more cells on the same ground."""
    width = field.pixels.shape[1]
    turned = np.stack(
        [2 * width - field.boxes[:, 2], field.boxes[:, 1], 2 * width - field.boxes[:, 0], field.boxes[:, 3]]
    )
    pixels = np.concatenate([field.pixels, field.pixels[:, ::-1]], axis=1)
    return marked(pixels, np.concatenate([field.boxes, turned.T]), np.tile(field.numbers, 2))


def _filled(field: Marked, cells: Sequence[CutCell], wanted: int, random: np.random.Generator) -> Marked | None:
    """The field with cells pasted, so that it has as many white ones as wanted; None where they do not fit."""
    own = _white(field)
    for _ in range(TRIES):
        chosen = [cells[int(number)] for number in random.integers(len(cells), size=wanted - len(own))]
        pasted = paste_cells(field, chosen, random)
        white = _white(pasted)
        if len(white) == wanted and all(_covered(box, white[len(own) :]) <= MAX_COVERED for box in white[: len(own)]):
            return pasted
    return None


def _white(field: Marked) -> np.ndarray:
    """Boxes of its white cells, pasted ones at the end."""
    return field.boxes[field.numbers == OBJECTS.index(WHITE)]


def _covered(box: np.ndarray, others: np.ndarray) -> float:
    """Largest share that a box covers of one of the others, or that one of them covers of it."""
    if not len(others):
        return 0.0
    shared = np.prod(np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    return float((shared / np.minimum(areas, np.prod(box[2:] - box[:2]))).max())
