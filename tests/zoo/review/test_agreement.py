"""Two readers: pairs of decisions, kappa with its interval, and cells in dispute."""

from __future__ import annotations

import pytest
from sklearn.metrics import cohen_kappa_score

from zoo.review.agreement import agreement
from zoo.review.cells import Cell, Decision, Journal

FIRST = ["neutrophil"] * 12 + ["lymphocyte"] * 6 + ["blast", "monocyte"]
SECOND = ["neutrophil"] * 11 + ["lymphocyte"] * 7 + ["blast", "lymphocyte"]


def cells(count: int) -> list[Cell]:
    return [Cell("one", n, (30.0 * n, 0.0, 30.0 * n + 20, 20.0), "white cell", "neutrophil", 0.9) for n in range(count)]


def decisions(found: list[Cell], kinds: list[str], reader: str, shift: float = 0.0) -> dict:
    return {
        (cell.picture, (cell.box[0] + shift, *cell.box[1:])): Decision(kind, cell.answer, reader)
        for cell, kind in zip(found, kinds, strict=False)
    }


def test_kappa_is_that_of_scikit_learn_and_inside_its_interval():
    found = cells(len(FIRST) + 1)  # nobody decided about the last one
    both = agreement(found, Journal(decisions(found, FIRST, "A")), decisions(found, SECOND, "B", shift=2.0))
    assert len(both.pairs) == len(FIRST)
    assert both.kappa is not None
    assert both.kappa.value == pytest.approx(cohen_kappa_score(FIRST, SECOND))
    assert both.kappa.low < both.kappa.value < both.kappa.high <= 1
    assert both.same == sum(a == b for a, b in zip(FIRST, SECOND, strict=True))
    assert [(pair.cell.number, pair.first.reader, pair.second.kind) for pair in both.disputed] == [
        (n, "A", b) for n, (a, b) in enumerate(zip(FIRST, SECOND, strict=True)) if a != b
    ]
    table = both.table()
    assert table.loc["neutrophil", "lymphocyte"] == 1
    assert table.to_numpy().sum() == len(FIRST)


def test_one_kind_alone_and_other_pictures_have_no_kappa():
    found = cells(3)
    same = decisions(found, ["neutrophil"] * 3, "A")
    assert agreement(found, Journal(same), same).kappa is None
    elsewhere = {("two", box): decision for (_, box), decision in same.items()}
    assert agreement(found, Journal(same), elsewhere).pairs == []
