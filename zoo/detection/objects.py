"""The objects that a detector tells apart. What kind a white cell is, a classifier says."""

from __future__ import annotations

from zoo.data.kinds import kind_of

WHITE, RED, PLATELET = "white cell", "red cell", "platelet"
OBJECTS = (WHITE, RED, PLATELET)
RED_KIND = "red blood cell"  # as kinds.toml calls it
STRIDE = 4  # pixels of the picture for each place of a detector's maps
TOUCHING = 2.0  # pixels between a box and an edge of its picture that cuts the cell
NO_CELLS = frozenset(("artefact", "smudge cell"))


def object_of(label: str) -> str | None:
    """The object that a label of a data set names: every nucleated kind is a white cell; None for what is no cell."""
    kind = kind_of(label)
    if label in OBJECTS:
        return label
    if kind is None or kind in NO_CELLS:
        return None
    return {RED_KIND: RED, PLATELET: PLATELET}.get(kind, WHITE)
