"""Sentences on a new entry at the end of its training."""

from __future__ import annotations

import numpy as np

from tests.making import LABELS, add_evaluation, make_entry, make_predictions
from training.start.outcome import describe_outcome
from zoo.entry import read_entry


def test_a_good_model_is_told_by_class(tmp_path):
    folder = make_entry(tmp_path / "good", "cnn60")
    add_evaluation(folder, 1)
    first, second = describe_outcome(read_entry(folder))
    assert first.startswith("Test, 240 pictures: balanced accuracy 0.")
    assert all(f"{label} " in second for label in LABELS)


def test_a_model_that_answers_the_largest_class_is_no_better_than_chance(tmp_path):
    folder = make_entry(tmp_path / "idle", "cnn60")
    table = make_predictions(1)
    table = table[(table["label"] == "neutrophil") | (table.groupby("label").cumcount() < 3)]
    table[LABELS] = np.float32([0.1, 0.1, 0.1, 0.7])
    add_evaluation(folder, 1, table=table)
    lines = describe_outcome(read_entry(folder))
    assert any(line.startswith("! No better than chance") and "0.25" in line for line in lines)
    assert any("Too few test pictures" in line and "monocyte (3)" in line for line in lines)
