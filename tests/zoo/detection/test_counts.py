"""Counts of cells found against marked ones: the table, its agreement, and the figure."""

from __future__ import annotations

import pandas as pd
import pytest

from zoo.detection.benchmarks import read_found
from zoo.detection.objects import OBJECTS, PLATELET, RED, WHITE
from zoo.detection.scoring import COLUMNS, agreement, count_table
from zoo.figures.fields import bland_altman, precision_bars
from zoo.sources.catalogue import get_detector

LIMITS = dict.fromkeys(OBJECTS, 0.5)


def cells(file: str, marked: int, *confidences: float, name: str = RED) -> list[tuple]:
    box = (0.0, 0.0, 9.0, 9.0)
    return [(file, True, name, *box, 1.0)] * marked + [(file, False, name, *box, sure) for sure in confidences]


@pytest.fixture
def counts() -> pd.DataFrame:
    rows = [
        *cells("a", 3, 0.9, 0.8, 0.4),
        *cells("b", 2, 0.9, 0.9, 0.9),
        *cells("b", 1, 0.7, name=WHITE),
        ("empty", False, "", *(float("nan"),) * 5),
    ]
    return count_table(pd.DataFrame(rows, columns=list(COLUMNS)), LIMITS)


def test_a_field_has_a_number_for_every_object_and_weak_answers_do_not_count(counts):
    found = {(row.file, row.object): (row.marked, row.found) for row in counts.itertuples()}
    assert found == {
        ("a", WHITE): (0, 0), ("a", RED): (3, 2), ("a", PLATELET): (0, 0),
        ("b", WHITE): (1, 1), ("b", RED): (2, 3), ("b", PLATELET): (0, 0),
        ("empty", WHITE): (0, 0), ("empty", RED): (0, 0), ("empty", PLATELET): (0, 0),
    }  # fmt: skip


def test_the_figure_shows_each_field_and_the_limits_of_agreement(counts):
    figure = bland_altman({"model": counts})
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["white cells", "red cells"]  # nobody marked or found a platelet
    red = figure.data[1]
    assert sorted(zip(red.x, red.y, strict=True)) == [(0, 0), (2.5, -1), (2.5, 1)]
    bias, spread = agreement(pd.Series([0, -1, 1]).to_numpy(float))
    lines = [line.y0 for line in figure.layout.shapes if line.yref == "y2"]
    assert lines == pytest.approx([bias, bias - spread, bias + spread])


def test_published_counts_are_those_of_the_stored_cells():
    entry = get_detector("cells")
    for name, scores in entry.evaluation.fields.items():
        found = count_table(read_found(entry, name), entry.config.zoo.detector.limits)
        for kind, rows in found.groupby("object"):
            bias, spread = agreement((rows["found"] - rows["marked"]).to_numpy(float))
            assert (scores[f"{kind}: count bias"].value, scores[f"{kind}: count spread"].value) == pytest.approx(
                (bias, spread)
            )
    bars = precision_bars({entry.title: scores}).data[0]
    assert list(bars.y) == [scores[f"{kind}: AP50"].value for kind in bars.x]
