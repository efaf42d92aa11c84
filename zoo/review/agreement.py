"""Agreement of two readers about the same cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.lazy import lazy_module
from zoo.review.cells import Cell, Decision, Journal, Key
from zoo.review.kinds import kind_named, title_of
from zoo.scores.bootstrap import Interval, percentile_interval, resample_weights
from zoo.scores.metrics import cohen_kappa

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")


@dataclass(frozen=True)
class Pair:
    """A cell that both readers decided about."""

    cell: Cell
    first: Decision
    second: Decision

    @property
    def agrees(self) -> bool:
        """Whether both gave the same kind."""
        return kind_named(self.first.kind).name == kind_named(self.second.kind).name


@dataclass(frozen=True)
class Agreement:
    """Decisions of two readers.

    Attributes:
        pairs: Cells that both decided about.
        kappa: Cohen's kappa with its 95 % interval (bootstrap over cells); None without pairs, and where both gave one
            and the same kind to every cell, which leaves kappa undefined.
    """

    pairs: Sequence[Pair]
    kappa: Interval | None

    @property
    def disputed(self) -> list[Pair]:
        """Cells to which the readers gave different kinds."""
        return [pair for pair in self.pairs if not pair.agrees]

    @property
    def same(self) -> int:
        """Number of cells to which both gave the same kind."""
        return len(self.pairs) - len(self.disputed)

    def table(self) -> pd.DataFrame:
        """Number of cells by the kind of the first reader (rows) and of the second (columns), by title."""
        kinds = _kinds(self.pairs)
        counts = _counts(_codes(self.pairs, kinds), len(kinds), np.ones((1, len(self.pairs))))[0]
        titles = [title_of(name) for name in kinds]
        return pd.DataFrame(counts.astype(int), index=titles, columns=titles)


def agreement(cells: Sequence[Cell], first: Journal, second: Mapping[Key, Decision]) -> Agreement:
    """Compare two readers' decisions about the same cells.

    Args:
        cells: The cells as they were found here.
        first: Decisions of the one reader.
        second: Decisions of the other; a box that was found a little differently there still matches.
    """
    own, other = first.matched(cells), Journal(dict(second)).matched(cells)
    pairs = [Pair(cell, own[cell.key], other[cell.key]) for cell in cells if cell.key in own and cell.key in other]
    kinds = _kinds(pairs)
    if len(kinds) < 2:
        return Agreement(pairs, None)
    codes = _codes(pairs, kinds)
    value = float(cohen_kappa(_counts(codes, len(kinds), np.ones((1, len(pairs))))[0]))
    draws = cohen_kappa(_counts(codes, len(kinds), resample_weights(len(pairs))))
    return Agreement(pairs, percentile_interval(value, draws))


def _kinds(pairs: Sequence[Pair]) -> list[str]:
    return sorted({kind_named(one.kind).name for pair in pairs for one in (pair.first, pair.second)})


def _codes(pairs: Sequence[Pair], kinds: Sequence[str]) -> np.ndarray:
    """Number of the pair of kinds of each cell."""
    number = {name: place for place, name in enumerate(kinds)}
    first, second = (
        np.array([number[kind_named(one.kind).name] for one in decisions], int)
        for decisions in zip(*((pair.first, pair.second) for pair in pairs), strict=True)
    )
    return first * len(kinds) + second


def _counts(codes: np.ndarray, kinds: int, weights: np.ndarray) -> np.ndarray:
    """Weighted numbers of cells by both kinds, (rows of weights, kinds, kinds)."""
    chosen = np.zeros((len(codes), kinds * kinds), np.float32)
    chosen[np.arange(len(codes)), codes] = 1
    return (weights @ chosen).reshape(-1, kinds, kinds)
