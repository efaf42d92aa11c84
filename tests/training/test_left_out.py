"""`python -m training loso`: who answers for a laboratory never saw it, and how sure an answer is there follows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.making import LABELS, draw_cell, draw_folder, make_predictions
from tests.training.test_train import RECIPE
from training import left_out, mixed
from training.__main__ import main
from training.data import TrainingDataError
from zoo.data import DataSet, Item, read_dataset
from zoo.entry import read_entry, read_predictions
from zoo.runtime import Runtime

PLACES = {"pbc": "north", "dataset2": "south"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two drawn laboratories, one of which knows a kind more, and a recipe that mixes them."""
    folder = tmp_path_factory.mktemp("laboratories")
    draw_folder(folder / "north", 12, size=(64, 64))
    draw_folder(folder / "south", 12, size=(48, 48))
    (folder / "north" / "basophil").mkdir()
    for number in range(12):
        draw_cell("lymphocyte", 100 + number, (64, 64)).save(folder / "north" / "basophil" / f"{number}.png")
    recipe = RECIPE.replace("epochs = 6", "epochs = 1").replace('name = "drawn"', 'name = "mixed"\nsplit = "official"')
    recipe = recipe.replace("labels = {", 'mix = { north = 4, south = 4 }\nlabels = { basophil = "basophil",')
    (folder / "drawn.toml").write_text(recipe)
    return folder


@pytest.fixture(autouse=True)
def drawn(monkeypatch, place):
    monkeypatch.setattr(mixed, "SOURCES", {name: lambda root, name=name: read(root, name) for name in PLACES.values()})
    monkeypatch.setenv("HEMAZOO_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)


def read(root: Path, name: str) -> Iterator[Item]:
    """A drawn laboratory; every fourth picture is tested on."""
    for number, item in enumerate(read_dataset(root / name).items):
        yield mixed._named(item, name, item.file, "test" if number % 4 == 0 else "train")


def run(*more: object) -> int:
    return main(["loso", "drawn.toml", "--data", ".", "--place", "out", "--device", "cpu", *map(str, more)])


def test_each_laboratory_is_answered_for_by_who_never_saw_it(place, capsys):
    assert main(["train", "drawn.toml", "--data", ".", "--out", "zoo/drawn", "--device", "cpu"]) == 0
    assert run("--into", "zoo/drawn", "--json") == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    entry = read_entry(place / "zoo" / "drawn")
    table = read_predictions(entry, "mixed-left-out")
    assert told["labels"] == LABELS == list(table.columns[3:])
    assert set(table["label"]) == set(LABELS)  # what one of them alone knows is no question
    tests = set(read_predictions(entry, "mixed-test")["file"])
    assert not tests & set(table["file"])  # what is tested on at the end is not looked at
    for name in PLACES.values():
        other = read_entry(place / "out" / f"without-{name}")
        parts = {role: read_predictions(other, f"mixed-{role}") for role in ("test", "validation")}
        assert set(parts["test"]["cell"].str.partition("/")[0]) == {name}
        assert name not in set(parts["validation"]["cell"].str.partition("/")[0])
        assert told["laboratories"][name]["balanced_accuracy"] == entry.evaluation.elsewhere.balanced[name].model_dump()
    assert told["temperature"] == entry.evaluation.elsewhere.temperature
    # what is there is not trained again
    weights = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.safetensors")}
    assert run() == 0
    assert {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.safetensors")} == weights
    with Runtime("cpu", "fp32") as runtime:
        found = runtime.classify(entry, draw_cell(LABELS[0], 3))
    raised = np.array(list(found.probabilities.values())) ** (1 / told["temperature"])
    assert found.elsewhere == pytest.approx(raised.max() / raised.sum(), abs=1e-6)


def test_how_sure_follows_what_was_right():
    """Answers that are too sure elsewhere ask for a temperature above 1, whatever the number of copies of a cell."""
    tables = []
    for seed, name in enumerate(PLACES.values()):
        table = make_predictions(seed)
        shares = table[LABELS].to_numpy(np.float64) ** 6  # right would be ** 2, by how they are made
        table[LABELS] = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
        tables.append((name, LABELS, table.assign(cell=name + "/" + table["cell"])))
    found = left_out.judge(tables)
    assert 2 < found.temperature < 5
    name, labels, table = tables[0]
    wrong = table[table[LABELS].to_numpy().argmax(1) != [LABELS.index(label) for label in table["label"]]]
    cell = wrong["cell"].iloc[0]
    copies = table.loc[table["cell"] == cell].assign(file=lambda rows: rows["file"] + "-again")
    again = left_out.judge([(name, labels, _joined(table, copies)), tables[1]])
    assert again.temperature == pytest.approx(found.temperature)


def _joined(table, copies):
    return table.merge(copies, how="outer")


def test_what_cannot_be_left_out_is_said(place, tmp_path, capsys):
    assert main(["loso", "cnn60", "--data", ".", "--place", str(tmp_path)]) == 1
    assert "trains on one laboratory" in capsys.readouterr().err
    assert main(["loso", "pbc8-ensemble", "--data", "."]) == 2
    assert "ask its members" in capsys.readouterr().err
    items = [item for name in PLACES.values() for item in read(place, name)]
    with pytest.raises(TrainingDataError, match="'east' cannot be left out of a mix of north, south"):
        mixed.parts_without(DataSet("mixed", place, "", tuple(items)), "east")
