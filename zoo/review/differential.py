"""The differential with the model's and the reader's shares, and whole-field statistics in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.data.kinds import kind_of
from zoo.detection.statistics import FieldCount, Seen, count_field
from zoo.lazy import lazy_module
from zoo.review.cells import WHOLE, Reviewed
from zoo.review.kinds import Kind, kind_named, kinds, title_of
from zoo.scores.bootstrap import wilson_interval
from zoo.scores.counts import limits

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

Sizes = Mapping[str, tuple[int, int]]  # width and height of each picture, by hash of its content
LOW, HIGH = "↓ low", "↑ high"
COLUMNS = ("kind", "model", "model_share", "corrected", "corrected_share", "low", "high", "normal", "flag")


@dataclass(frozen=True)
class Differential:
    """Counts of the same cells by the model's answers and as the reader corrected them.

    Attributes:
        model, corrected: The counts.
        error: Standard deviation of a share's error that is the model's (`Entry.count_error`); None: not measured.
        undecided: Part of the white cells that no reader decided about, 0..1: only these can hold errors of the model.
    """

    model: FieldCount
    corrected: FieldCount
    error: float | None = None
    undecided: float = 1.0

    @property
    def kinds(self) -> list[Kind]:
        """Kinds of white cells that either of them counts, in the order of the list of kinds."""
        found = set(self.model.white) | set(self.corrected.white)
        order = {name: number for number, name in enumerate(kinds())}
        return [kind_named(name) for name in sorted(found, key=lambda name: (order.get(name, len(order)), name))]

    @property
    def reference_sources(self) -> str:
        """Sources of the normal ranges of the counted kinds: names of works, or that a list names none."""
        found = [kind.source or "the list of kinds, which names no source" for kind in self.kinds if kind.normal]
        return "; ".join(dict.fromkeys(found))

    def table(self, reference: bool = True) -> pd.DataFrame:
        """A row for each kind of white cell, and one for their sum.

        Columns kind; model and corrected (numbers); model_share and corrected_share with the latter's 95 % limits low
        and high for chance and the model's errors (0..1); normal and flag (texts, empty without a reference).

        Args:
            reference: Whether shares are compared with those of healthy adults.
        """
        rows = []
        for kind in self.kinds:
            model, corrected = self.model.share(kind.name), self.corrected.share(kind.name)
            normal = f"{kind.normal[0]:g} to {kind.normal[1]:g} %" if reference and kind.normal else ""
            flag = self._flag(kind) if normal else ""
            numbers = self.model.white.get(kind.name, 0), model.value, self.corrected.white.get(kind.name, 0)
            low, high = self._limits(numbers[2])
            rows.append((kind.title or kind.name, *numbers, corrected.value, low, high, normal, flag))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def statistics(self) -> list[tuple[str, str, str]]:
        """Name and value by the model and as corrected, of what is counted beside the differential; empty without."""
        pairs = (
            ("White cells counted", lambda count: f"{count.white_cells:,}"),
            ("Erythroblasts per 100 white cells", lambda count: _ratio(count.erythroblasts_per_100_white)),
            ("Red cells", lambda count: f"{count.red_cells:,}"),
            ("Platelets", lambda count: f"{count.platelets:,}"),
            ("Platelets per 100 red cells", lambda count: _ratio(count.platelets_per_100_red)),
            ("Cut by an edge, not counted", lambda count: f"{count.on_edge:,}"),
        )
        both = self.model, self.corrected
        rows = [(name, told(self.model), told(self.corrected)) for name, told in pairs]
        names = {name for count in both for name in count.other}
        for name in sorted(names, key=lambda one: one or ""):
            title = f"Not counted: {title_of(name)}" if name else "Not counted: no recognisable cell"
            model, corrected = (f"{count.other.get(name, 0):,}" for count in both)
            rows.append((title, model, corrected))
        return rows

    def _flag(self, kind: Kind) -> str:
        """Whether the share of a kind, its finer kinds included, is surely outside of its reference range."""
        assert kind.normal is not None
        count = sum(n for name, n in self.corrected.white.items() if name == kind.name or kind_of(name) == kind.name)
        low, high = self._limits(count)
        if 100 * high < kind.normal[0]:
            return LOW
        return HIGH if 100 * low > kind.normal[1] else ""

    def _limits(self, count: int) -> tuple[float, float]:
        """95 % limits of a share of the corrected count."""
        total = self.corrected.white_cells
        if self.error is None or not total:
            share = wilson_interval(count, total)
            return share.low, share.high
        low, high = limits(np.array([count]), total, self.error * self.undecided)
        return float(low[0]), float(high[0])


def differential(cells: Sequence[Reviewed], sizes: Sizes, error: float | None = None) -> Differential:
    """Count the cells of some pictures by both answers.

    Args:
        cells: The cells of all pictures.
        sizes: Width and height of each picture.
        error: As in `Differential`.
    """
    by_picture: dict[str, list[Reviewed]] = {picture: [] for picture in sizes}
    for one in cells:
        by_picture.setdefault(one.cell.picture, []).append(one)
    model = corrected = FieldCount()
    for picture, found in by_picture.items():
        size = sizes.get(picture, (0, 0))
        model += count_field(size, [_seen(one, one.cell.answer) for one in found])
        corrected += count_field(size, [_seen(one, one.kind) for one in found])
    asked = [one for one in cells if one.cell.label is not None]
    undecided = sum(one.decision is None for one in asked) / len(asked) if asked else 0.0
    return Differential(model, corrected, error, undecided)


def _seen(one: Reviewed, name: str | None) -> Seen:
    box = None if one.cell.object == WHOLE else one.cell.box
    if name is None:
        return Seen("white", None, box)
    kind = kind_named(name)
    return Seen(kind.counted, kind.name, box)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
