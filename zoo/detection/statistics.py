"""Whole-field statistics: differential, red cells, platelets and erythroblasts of one field or several.

Cells that the right or bottom edge cuts are not counted, those at the left and top edge are: as in a counting chamber,
so that fields side by side count each cell once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from zoo.detection.objects import TOUCHING
from zoo.scores.bootstrap import Interval, wilson_interval

HUNDRED = 100


@dataclass(frozen=True)
class Seen:
    """A cell to count.

    Attributes:
        counted: "white", "erythroblast", "red", "platelet" or "none".
        kind: Its kind; None where nobody named it.
        box: left, top, right, bottom in pixels; None where the whole picture is the cell.
    """

    counted: str
    kind: str | None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class FieldCount:
    """Counts of one field or of several together; they can be added.

    Attributes:
        white: Number of each kind of the differential.
        other: Number of each kind that belongs to no count, and of white cells without a kind (key None).
        erythroblasts, red_cells, platelets: Numbers of these.
        on_edge: Cells at the right or bottom edge, which are in none of the counts.
        fields: Number of fields.
    """

    white: Mapping[str, int] = field(default_factory=dict)
    other: Mapping[str | None, int] = field(default_factory=dict)
    erythroblasts: int = 0
    red_cells: int = 0
    platelets: int = 0
    on_edge: int = 0
    fields: int = 0

    def __add__(self, more: FieldCount) -> FieldCount:
        return FieldCount(
            dict(Counter(self.white) + Counter(more.white)),
            dict(Counter(self.other) + Counter(more.other)),
            self.erythroblasts + more.erythroblasts,
            self.red_cells + more.red_cells,
            self.platelets + more.platelets,
            self.on_edge + more.on_edge,
            self.fields + more.fields,
        )

    @property
    def white_cells(self) -> int:
        """Number of white cells in the differential."""
        return sum(self.white.values())

    def share(self, kind: str) -> Interval:
        """Share of a kind among the white cells, with Wilson's 95 % interval; nan without white cells."""
        return wilson_interval(self.white.get(kind, 0), self.white_cells)

    @property
    def platelets_per_100_red(self) -> float | None:
        """Platelets per 100 red cells; None without red cells."""
        return HUNDRED * self.platelets / self.red_cells if self.red_cells else None

    @property
    def erythroblasts_per_100_white(self) -> float | None:
        """Erythroblasts per 100 white cells, which do not include them; None without white cells."""
        return HUNDRED * self.erythroblasts / self.white_cells if self.white_cells else None


def count_field(size: tuple[int, int], cells: Iterable[Seen]) -> FieldCount:
    """Count the cells of one picture of `size` (width, height)."""
    numbers: Counter[str] = Counter()
    white: Counter[str] = Counter()
    other: Counter[str | None] = Counter()
    on_edge = 0
    for cell in cells:
        if cell.box is not None and on_counting_edge(cell.box, size):
            on_edge += 1
        elif cell.counted == "white" and cell.kind is not None:
            white[cell.kind] += 1
        elif cell.counted in ("white", "none"):
            other[cell.kind] += 1
        else:
            numbers[cell.counted] += 1
    return FieldCount(
        dict(white), dict(other), numbers["erythroblast"], numbers["red"], numbers["platelet"], on_edge, 1
    )


def on_counting_edge(box: tuple[float, float, float, float], size: tuple[int, int]) -> bool:
    """Whether the right or bottom edge of a picture of `size` cuts a box, so that its cell is not counted."""
    return box[2] > size[0] - TOUCHING or box[3] > size[1] - TOUCHING
