"""`python -m training loso`: who answers for a laboratory never saw it, and how sure an answer is there follows."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.making import LABELS, draw_cell, draw_folder, make_predictions, register_dataset
from tests.training.fit.test_train import RECIPE
from training.cli import main
from training.evaluation import leave_one_lab_out as left_out
from training.fit.auxiliary import UNKNOWN, AttributeLoss, narrow, read_attributes, read_known, read_names, widen
from training.fit.network import build_model
from training.prepare.dataset import TrainingDataError
from training.prepare.laboratories import parts_without, read_mixed
from training.recipe import Attributes, Model
from zoo.entry import read_entry, read_predictions
from zoo.serving.runtime import Runtime

PLACES = ("north", "south")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two drawn laboratories, one of which knows a kind more, and a recipe that mixes them."""
    folder = tmp_path_factory.mktemp("laboratories")
    for part, each in (("TRAIN", 9), ("TEST", 3)):
        for name, size in zip(PLACES, ((64, 64), (48, 48)), strict=True):
            draw_folder(folder / name / part, each, size=size)
        (folder / "north" / part / "basophil").mkdir()
        for number in range(each):
            draw_cell("lymphocyte", 100 + number, (64, 64)).save(folder / "north" / part / "basophil" / f"{number}.png")
    for name in PLACES:
        register_dataset(folder / "registry", name)
    recipe = RECIPE.replace("epochs = 6", "epochs = 1").replace('name = "drawn"', 'name = "mixed"\nsplit = "official"')
    recipe = recipe.replace("labels = {", 'mix = { north = 4, south = 4 }\nlabels = { basophil = "basophil",')
    (folder / "drawn.toml").write_text(recipe)
    return folder


@pytest.fixture(autouse=True)
def drawn(monkeypatch, place):
    monkeypatch.setenv("HEMAZOO_REGISTRY", str(place / "registry"))
    monkeypatch.setenv("HEMAZOO_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)


def run(*more: object) -> int:
    return main(["loso", "drawn.toml", "--data", ".", "--place", "out", "--device", "cpu", *map(str, more)])


def test_attributes_are_learnt_beside_the_kind(place, capsys):
    """What is known of some pictures changes what is learnt, and leaves an entry of the kinds alone."""
    (place / "known").mkdir(exist_ok=True)
    names = sorted(path.name for path in (place / "north" / "TRAIN" / "basophil").iterdir())
    table = "img_name,label,shape,granules,path\n" + "".join(
        f"{name},Basophil,{('round', 'lobed', 'band')[k % 3]},{('yes', 'no')[k % 2]},x/{name}\n"
        for k, name in enumerate(names)
    )
    (place / "known" / "some.csv").write_text(table)
    order = ["train", "drawn.toml", "--data", ".", "--device", "cpu"]
    order += ["--set", "augment.mixup=0"]
    change = ["--set", 'attributes.folder="known"', "--set", "attributes.weight=0.5"]
    assert main([*order, "--out", "zoo/beside", *change]) == 0
    assert main([*order, "--out", "zoo/alone"]) == 0
    beside, alone = (read_entry(place / "zoo" / name) for name in ("beside", "alone"))
    assert beside.labels == alone.labels
    first, second = (read_predictions(entry, "mixed-test")[entry.labels].to_numpy() for entry in (beside, alone))
    assert first.shape == second.shape
    assert not np.allclose(first, second)
    assert beside.recipe["attributes"] == {"folder": "known", "names": False, "weight": 0.5}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "no table of attributes"),
        ("name,shape\nx,round\n", "no column img_name"),
        ("img_name,shape\nelsewhere.png,round\n", "No training picture is named"),
    ],
)
def test_attributes_that_tell_nothing_are_refused(table, said, tmp_path):
    if table:
        (tmp_path / "some.csv").write_text(table)
    with pytest.raises(TrainingDataError, match=said):
        read_attributes(tmp_path, ["pbc/neutrophil/a.png"])


def test_names_tell_subclasses(tmp_path):
    """PBC's files are named after finer classes than their folders."""
    files = ["ig/MMY_1.jpg", "neutrophil/BNE_7.jpg", "neutrophil/bne_8.jpg", "ig/12.jpg"]
    found = read_names(files)[:, 0]
    assert found[1] == found[2] != found[0]
    assert found[3] == UNKNOWN
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "some.csv").write_text("img_name,shape\nMMY_1.jpg,round\n")
    both = read_known(Attributes(folder="known", names=True), tmp_path, files)
    assert both.shape == (4, 2)
    assert both[:, 1].tolist() == found.tolist()


@pytest.mark.parametrize("files", [["a/1.png", "b/2.png"], ["a/cell-1.png", "b/cell-2.png"]])
def test_names_that_tell_nothing_are_left_out(files, tmp_path):
    assert read_names(files) is None
    assert read_known(Attributes(names=True), tmp_path, files) is None


def test_what_is_not_known_weighs_nothing():
    loss = AttributeLoss(2, [3, 2], weight=1.0)
    outputs, known = torch.zeros(2, 7), torch.tensor([[0, 1], [UNKNOWN, UNKNOWN]])
    assert loss(outputs, known).item() == pytest.approx((np.log(3) + np.log(2)) / 2 / 2)
    assert loss(outputs, torch.full((2, 2), UNKNOWN)).item() == 0


def test_outputs_are_added_and_taken_away():
    model = build_model(Model(architecture="test_resnet", input_size=(32, 32)), 4).eval()
    inputs = torch.rand(2, 3, 32, 32)
    before = model(inputs)
    widen(model, 5)
    assert model(inputs).shape == (2, 9)
    assert torch.allclose(model(inputs)[:, :4], before, atol=1e-6)
    narrow(model, 4)
    assert torch.allclose(model(inputs), before, atol=1e-6)


def test_each_laboratory_is_answered_for_by_who_never_saw_it(place, capsys):
    assert main(["train", "drawn.toml", "--data", ".", "--out", "zoo/drawn", "--device", "cpu"]) == 0
    assert run("--into", "zoo/drawn", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    entry = read_entry(place / "zoo" / "drawn")
    table = read_predictions(entry, "mixed-left-out")
    assert told["labels"] == LABELS == list(table.columns[3:])
    assert set(table["label"]) == set(LABELS)  # what one of them alone knows is no question
    tests = set(read_predictions(entry, "mixed-test")["file"])
    assert not tests & set(table["file"])  # what is tested on at the end is not looked at
    for name in PLACES:
        other = read_entry(place / "out" / f"without-{name}")
        parts = {role: read_predictions(other, f"mixed-{role}") for role in ("test", "validation")}
        assert set(parts["test"]["cell"].str.partition("/")[0]) == {name}
        assert name not in set(parts["validation"]["cell"].str.partition("/")[0])
        balanced = entry.evaluation.other_laboratories.balanced[name]
        assert told["laboratories"][name]["balanced_accuracy"] == balanced.model_dump()
    assert told["temperature"] == entry.evaluation.other_laboratories.temperature
    # what is there is not trained again
    weights = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.safetensors")}
    assert run() == 0
    assert {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.safetensors")} == weights
    with Runtime("cpu", "fp32") as runtime:
        found = runtime.classify(entry, draw_cell(LABELS[0], 3))
    raised = np.array(list(found.probabilities.values())) ** (1 / told["temperature"])
    assert found.unseen_confidence == pytest.approx(raised.max() / raised.sum(), abs=1e-6)


def test_how_sure_follows_what_was_right():
    """Answers that are too sure elsewhere ask for a temperature above 1, whatever the number of copies of a cell."""
    tables = []
    for seed, name in enumerate(PLACES):
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
    assert "leave laboratories out for its members" in capsys.readouterr().err
    with pytest.raises(TrainingDataError, match="'east' cannot be left out of a mix of north, south"):
        parts_without(read_mixed(place, dict.fromkeys(PLACES, 4), 0), "east")
    with pytest.raises(TrainingDataError, match=r"no laboratory 'lisc' to mix. There are: .*north"):
        read_mixed(place, {"north": 4, "lisc": 4}, 0)
