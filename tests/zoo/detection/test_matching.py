"""Scores of a detector on small cases whose right values are known."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.detection.found import Found
from zoo.detection.matching import average_precision, iou, match, recall_at


def found(*cells: tuple[float, float, float, float, float]) -> Found:
    """Red cells: box and confidence, the most confident first."""
    table = np.array(cells, np.float32).reshape(-1, 5)
    return Found(table[:, :4], table[:, 4], np.ones(len(table), np.int64))


MARKED = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
RED = np.ones(2, np.int64)


def test_overlap_of_boxes():
    shared = iou(np.array([[0.0, 0, 10, 10]]), np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]]))
    assert shared[0].tolist() == pytest.approx([1, 1 / 3, 0])


@pytest.mark.parametrize(
    ("given", "precision"),
    [
        ([(0, 0, 10, 10, 0.9), (20, 20, 30, 30, 0.8)], 1.0),
        ([(0, 0, 10, 10, 0.9)], 51 / 101),
        ([(0, 0, 10, 10, 0.9), (0, 0, 10, 10, 0.85), (20, 20, 30, 30, 0.8)], (51 + 50 * 2 / 3) / 101),
        ([(50, 50, 60, 60, 0.9)], 0.0),
        ([], 0.0),
    ],
    ids=["all", "one of two", "one twice", "none right", "nothing"],
)
def test_average_precision(given, precision):
    scores = average_precision([match(found(*given), MARKED, RED, 1)])
    assert scores[0] == pytest.approx(precision)


def test_loose_boxes_count_at_loose_levels_only():
    scores = average_precision([match(found((0, 0, 10, 6, 0.9)), MARKED[:1], RED[:1], 1)])
    assert scores.tolist() == [1, 1, 1, *[0] * 7]  # its overlap is 0.6


def test_an_object_that_is_never_marked_has_no_precision():
    assert np.isnan(average_precision([match(found(), MARKED, RED, 0)])).all()


def test_recall_at_a_precision():
    fields = [match(found((0, 0, 10, 10, 0.9), (50, 50, 60, 60, 0.5), (20, 20, 30, 30, 0.4)), MARKED, RED, 1)]
    recall, limit = recall_at(fields, 0.97)
    assert (recall, limit) == (0.5, pytest.approx(0.9))
    assert recall_at(fields, 0.6)[0] == 1
