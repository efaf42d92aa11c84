"""Whole-field statistics, counted as in a counting chamber."""

from __future__ import annotations

import pytest

from zoo.detection.statistics import FieldCount, Seen, count_field

SIZE = (200, 100)


def cell(counted: str, kind: str | None, left: float = 50, top: float = 50) -> Seen:
    return Seen(counted, kind, (left, top, left + 20, top + 20))


def test_cells_at_the_right_and_bottom_edge_are_not_counted_and_those_at_left_and_top_are():
    cells = [cell("white", "monocyte", left=0), cell("white", "monocyte", top=0), cell("red", "red blood cell")]
    cells += [cell("white", "monocyte", left=180), cell("red", "red blood cell", top=79)]
    count = count_field(SIZE, cells)
    assert count.white == {"monocyte": 2}
    assert (count.red_cells, count.on_edge, count.fields) == (1, 2, 1)


def test_two_fields_side_by_side_count_a_cell_on_their_border_once():
    """The cell lies at x = 190 to 210 of a scene of 400, which two fields of 200 show."""
    left = count_field(SIZE, [Seen("white", "monocyte", (190, 50, 200, 70))])
    right = count_field(SIZE, [Seen("white", "monocyte", (0, 50, 10, 70))])
    assert (left + right).white_cells == 1


def test_erythroblasts_and_platelets_are_ratios_and_outside_of_the_differential():
    cells = (
        [cell("white", "neutrophil")] * 4 + [cell("white", "lymphocyte")] + [cell("erythroblast", "erythroblast")] * 2
    )
    cells += [cell("red", "red blood cell")] * 20 + [cell("platelet", "platelet")] * 3 + [cell("none", "artefact")]
    count = count_field(SIZE, cells)
    assert count.white_cells == 5
    assert count.share("neutrophil").value == pytest.approx(0.8)
    assert count.erythroblasts_per_100_white == pytest.approx(40)
    assert count.platelets_per_100_red == pytest.approx(15)
    assert count.other == {"artefact": 1}


def test_without_cells_there_is_no_ratio():
    count = FieldCount()
    assert count.platelets_per_100_red is None
    assert count.erythroblasts_per_100_white is None
    assert (count + count_field(SIZE, [])).fields == 1


def test_a_white_cell_without_a_kind_is_no_part_of_the_differential_and_a_whole_picture_has_no_edge():
    count = count_field(SIZE, [cell("white", None), Seen("white", "basophil", None)])
    assert count.white == {"basophil": 1}
    assert count.other == {None: 1}
