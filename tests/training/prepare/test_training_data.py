"""Things told of a data set before it is trained on."""

from __future__ import annotations

import pytest

from tests.making import LABELS, draw_cell
from training.prepare.training_data import DataOptions, load_training_data, with_labels
from training.recipe import load_recipe

OWN_SIDES = "own train and test folders"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Drawn cells in train and test folders."""
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    for part, seeds in (("train", range(6)), ("test", range(6, 9))):
        for label in LABELS:
            folder = tmp_path / "cells" / part / label
            folder.mkdir(parents=True)
            for seed in seeds:
                draw_cell(label, seed, (64, 64)).save(folder / f"{seed}.png")
    return tmp_path / "cells"


@pytest.mark.parametrize(("split", "told"), [("stratified", True), ("official", False)])
def test_sides_of_a_data_set_that_are_not_kept_are_told(data, capsys, split, told):
    recipe = with_labels(load_recipe("starter", [f"data.split={split}"]), data)
    load_training_data(recipe, DataOptions(data))
    said = capsys.readouterr().err
    assert (OWN_SIDES in said) == told
    assert "train: " in said and "test: " in said
