"""Sides of fields: which may be trained on, which choose, and which test.

Fields are often copies of pictures that a classifier is scored on. They are compared by small grey pictures, and a copy
goes to the side of what it shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

GREY_SIDE = 40  # pixels of the small grey pictures
SAME = 0.95  # correlation of two that show the same


def grey(image: Image.Image) -> np.ndarray:
    """Small grey picture as a vector of mean 0 and length 1, whatever its brightness and contrast."""
    small = image.convert("L").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BOX)
    values = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6))


def originals(fields: np.ndarray, known: np.ndarray) -> list[int | None]:
    """Row in `known` that each of `fields` is a copy of, or None; both are rows of `grey`."""
    likeness = fields @ known.T
    best = likeness.argmax(axis=1)
    return [int(n) if likeness[row, n] >= SAME else None for row, n in enumerate(best)]


def groups(fields: np.ndarray) -> list[int]:
    """Number of the group of each field; copies of one another are one group."""
    rows, columns = np.nonzero(fields @ fields.T >= SAME)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(fields),) * 2)
    return [int(n) for n in connected_components(graph, directed=False)[1]]


def drawn_side(group: str, test: float, validation: float) -> str:
    """Side of a group by the hash of its name."""
    place = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 2**32
    return "test" if place < test else "validation" if place < test + validation else "train"


def sides(
    files: Sequence[str],
    vectors: np.ndarray,
    known: Sequence[str],
    known_vectors: np.ndarray,
    side_of: Callable[[str], str],
) -> list[tuple[str, str]]:
    """Group and side of each field.

    Args:
        files: Names of the fields.
        vectors: Their rows of `grey`.
        known: Names of pictures that they may be copies of.
        known_vectors: Rows of `grey` of these.
        side_of: Side of a group, by its name: that of a known picture, or of its first field.
    """
    copies = originals(vectors, known_vectors) if len(known) else [None] * len(files)
    numbers = groups(vectors)
    names: dict[int, str] = {}
    for file, copy, number in zip(files, copies, numbers, strict=True):
        name = known[copy] if copy is not None else names.get(number, file)
        names[number] = name
    found = []
    for number in numbers:
        name = names[number]
        found.append((name, side_of(name)))
    return found
