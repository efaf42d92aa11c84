"""A first training as somebody meets it: a folder, no recipe, no terminal; then the same from Python."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

import training
from tests.making import LABELS, draw_cell, draw_smears
from training.cli import main
from training.errors import UsageError
from training.recipe import RecipeError
from zoo.entry import read_entry
from zoo.sources.catalogue import list_entries

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Cells of a folder with a name as people give it."""
    folder = tmp_path_factory.mktemp("data") / "Our Cells_24"
    random = np.random.default_rng(0)
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for seed in range(10):
            # turned and moved, so that no two are taken for copies of one
            picture = draw_cell(label, seed, (120, 120)).rotate(float(random.uniform(0, 360)))
            left, top = random.integers(8, 32, 2).tolist()
            picture.crop((left, top, left + 80, top + 80)).save(folder / label / f"{seed}.png")
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HEMAZOO_ZOO", raising=False)
    return tmp_path


QUICK = ["--epochs", "2", "--input-size", "32", "--set", "schedule.precision=fp32", "--set", "schedule.views=1"]
QUICK += ["--set", "data.split=stratified"]


def test_a_folder_becomes_an_entry_that_the_app_lists(place, cells, capsys):
    assert main(["train", "--data", str(cells), *QUICK]) == 0
    said = capsys.readouterr().err
    steps = ["First, an audit", "Training tf_efficientnet_lite0 from ImageNet weights", "Curves and scores", "Recall:"]
    assert sorted(steps, key=said.index) == steps
    assert "balanced accuracy" in said.splitlines()[-4] or "balanced accuracy" in said.splitlines()[-3]
    assert said.splitlines()[-1] == "To see it in the app: make demo"
    assert "\r" not in said  # plain lines
    entry = next(entry for entry in list_entries() if entry.id == "our-cells-24")
    assert entry.title == "Our Cells 24, EfficientNet-Lite0"
    assert "our-cells-24-test" in entry.evaluation.benchmarks
    assert (place / "runs" / "audits" / "our-cells-24" / "index.html").is_file()
    assert "plotly" in (place / "runs" / "reports" / "our-cells-24.html").read_text()


def test_a_changed_recipe_is_not_resumed_and_both_values_are_told(place, cells, capsys, monkeypatch):
    class Ended(Exception):
        """As if the process had ended here."""

    def end(*given):
        raise Ended

    with monkeypatch.context() as ending, pytest.raises(Ended):
        ending.setattr("training.run.write_entry", end)
        main(["train", "starter", "--data", str(cells), *QUICK])
    capsys.readouterr()
    with monkeypatch.context() as before:
        before.setattr("training.run.load_training_data", None)  # said before a picture is read
        assert main(["train", "starter", "--data", str(cells), *QUICK, "--resume", "--batch-size", "7"]) == 1
    assert "schedule.batch_size: 32 before, 7 now" in capsys.readouterr().err
    assert main(["train", "starter", "--data", str(cells), *QUICK, "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "our-cells-24"


def test_the_example_in_python_runs(place, tmp_path_factory, capsys):
    """docs/train_example.py, from the audit to the adapted entry."""
    mine = draw_smears(tmp_path_factory.mktemp("smears") / "my lab", 9)
    theirs = draw_smears(tmp_path_factory.mktemp("smears") / "their lab", 8, (150, 150))
    example = runpy.run_path(str(ROOT / "docs" / "train_example.py"))["main"]
    example(mine, theirs, epochs=2, input_size=(32, 32), set=["schedule.precision=fp32", "schedule.views=1"])
    said = capsys.readouterr().out
    assert "pictures: 36" in said and "entry: my-lab" in said and "another laboratory: " in said
    assert {entry.id for entry in list_entries()} >= {"my-lab", "my-lab-adapted"}
    assert read_entry(place / "my-zoo" / "my-lab").title == "my lab, EfficientNet-Lite0"


def test_functions_raise_what_commands_refuse(place, cells):
    manifest = training.split(cells, "split.json", scheme="random")[0]
    assert {row[3] for row in manifest.rows} == {"train", "val", "test"}
    with pytest.raises(UsageError, match=r"split\.json already exists"):
        training.split(cells, "split.json")
    with pytest.raises(UsageError, match="unrecognized arguments: --speed"):
        training.train(cells, speed=3)
    with pytest.raises(RecipeError, match="There is no recipe"):
        training.train(cells, recipe="starer")
    with pytest.raises(UsageError, match="was not scored"):
        training.evaluate("cnn60", own=cells, name="dataset2-test")
