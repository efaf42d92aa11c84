"""Cells cut out of frames by their boxes, with a margin."""

from __future__ import annotations

import math
from dataclasses import replace

from zoo.data.table import CutSource, Item

MARGIN = 0.2  # of the box's longer side, added on every side
NO_AREA = "its box has no area"
Box = tuple[float, float, float, float]


def cut_item(item: Item, box: Box, relative: bool = False) -> Item | str:
    """The item cut to a box (left, top, right, bottom) and a margin, or why it cannot be.

    The box becomes part of the item's name, so that another box is another item.
    """
    left, top, right, bottom = box
    if not all(map(math.isfinite, box)) or right <= left or bottom <= top:
        return NO_AREA
    if relative and (right <= 0 or bottom <= 0 or left >= 1 or top >= 1):
        return "its box lies outside the picture"
    numbers = "-".join(f"{1000 * value:.0f}" if relative else f"{value:.0f}" for value in box)
    source = CutSource(item.source, box, relative, MARGIN)
    return replace(item, file=f"{item.file}#{numbers}", source=source)
