"""`python -m training loso`: each laboratory is predicted by a model trained without it, and confidence follows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.making import LABELS, draw_cell, draw_folder, make_predictions, register_benchmark, register_dataset
from tests.training.fit.test_train import RECIPE
from training.cli import main
from training.evaluation import leave_one_lab_out
from training.prepare.dataset import TrainingDataError
from training.prepare.laboratories import parts_without, read_mixed
from zoo.entry import read_entry, read_network_predictions, read_predictions
from zoo.serving.runtime import Runtime

PLACES = ("north", "south", "east")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three drawn laboratories, one of which knows a kind more, and a recipe that mixes them."""
    folder = tmp_path_factory.mktemp("laboratories")
    for part, each in (("TRAIN", 9), ("TEST", 3)):
        for name, size in zip(PLACES, ((64, 64), (48, 48), (56, 56)), strict=True):
            draw_folder(folder / name / part, each, size=size)
        (folder / "north" / part / "basophil").mkdir()
        for number in range(each):
            draw_cell("lymphocyte", 100 + number, (64, 64)).save(folder / "north" / part / "basophil" / f"{number}.png")
    for name in PLACES:
        register_dataset(folder / "registry", name)
    recipe = RECIPE.replace("epochs = 6", "epochs = 1").replace('name = "drawn"', 'name = "mixed"\nsplit = "official"')
    recipe = recipe.replace("labels = {", 'mix = { north = 4, south = 4, east = 4 }\nlabels = { basophil = "basophil",')
    (folder / "drawn.toml").write_text(recipe)
    return folder


@pytest.fixture(autouse=True)
def drawn(monkeypatch, place):
    monkeypatch.setenv("HEMAZOO_REGISTRY", str(place / "registry"))
    monkeypatch.setenv("HEMAZOO_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)


def run(*more: object) -> int:
    return main(["loso", "drawn.toml", "--data", ".", "--work", "out", "--device", "cpu", *map(str, more)])


def test_attributes_are_learnt_as_auxiliary_targets(place, capsys):
    """Attributes of some pictures change what is learnt; the entry still predicts the cell kinds only."""
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


def test_each_laboratory_is_predicted_by_a_model_trained_without_it(place, capsys):
    assert main(["train", "drawn.toml", "--data", ".", "--out", "zoo/drawn", "--device", "cpu"]) == 0
    assert run("--into", "zoo/drawn", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    entry = read_entry(place / "zoo" / "drawn")
    table = read_predictions(entry, "mixed-left-out")
    assert told["labels"] == LABELS == list(table.columns[3:])
    assert set(table["label"]) == set(LABELS)  # a kind that only one of them has is left out
    tests = set(read_predictions(entry, "mixed-test")["file"])
    assert not tests & set(table["file"])  # pictures of the final test are not used
    for name in PLACES:
        other = read_entry(place / "out" / f"without-{name}")
        parts = {role: read_predictions(other, f"mixed-{role}") for role in ("test", "validation")}
        assert set(parts["test"]["cell"].str.partition("/")[0]) == {name}
        assert name not in set(parts["validation"]["cell"].str.partition("/")[0])
        balanced = entry.evaluation.other_laboratories.balanced[name]
        assert told["laboratories"][name]["balanced_accuracy"] == balanced.model_dump()
    assert told["temperature"] == entry.evaluation.other_laboratories.temperature
    # existing models are not trained again
    weights = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.safetensors")}
    assert run() == 0
    assert {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.safetensors")} == weights
    with Runtime("cpu", "fp32") as runtime:
        found = runtime.classify(entry, draw_cell(LABELS[0], 3))
    raised = np.array(list(found.probabilities.values())) ** (1 / told["temperature"])
    assert found.unseen_confidence == pytest.approx(raised.max() / raised.sum(), abs=1e-6)


def test_validation_laboratories_are_always_out_and_scored_by_every_model(place, capsys):
    """They are scored by the models of every seed, among the kinds that their TOML files call valid."""
    draw_folder(place / "far", 3, size=(72, 72))
    register_dataset(
        place / "registry", "far", more='sample = "peripheral blood"\nscored = ["lymphocyte", "neutrophil"]\n'
    )
    toml = place / "registry" / "data" / "far.toml"
    toml.write_text(toml.read_text().replace('role = "training"', 'role = "validation"'))
    rows = [f"{kind}/{n:03}.png,{kind}-{n},{kind}" for kind in ("lymphocyte", "neutrophil") for n in range(3)]
    register_benchmark(place / "registry", "far-all", "far", "\n".join(["file,cell,label", *rows]) + "\n")
    toml = place / "registry" / "benchmarks" / "far-all.toml"
    toml.write_text(
        toml.read_text().replace('"eosinophil", "lymphocyte", "monocyte", "neutrophil"', '"lymphocyte", "neutrophil"')
    )
    assert run("--seeds", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    by_name = {one["laboratory"]: one for one in told["scores"]}
    assert set(by_name) == {*PLACES, "far"}
    far, north = by_name["far"], by_name["north"]
    assert (far["role"], far["sample"], far["kinds"]) == (
        "validation",
        "peripheral blood",
        ["lymphocyte", "neutrophil"],
    )
    assert {(one["seed"], one["without"]) for one in far["scores"]} == {
        (seed, name) for seed in (3, 4) for name in PLACES
    }
    assert [(one["seed"], one["without"]) for one in north["scores"]] == [(3, "north"), (4, "north")]
    assert north["kinds"] == LABELS
    model = read_entry(place / "out" / "seed-4" / "without-south")
    assert model.recipe["seed"] == 4
    stored = read_network_predictions(model, "far-all")
    right = stored[model.labels].to_numpy().argmax(1) == [model.labels.index(label) for label in stored["label"]]
    score = next(one for one in far["scores"] if (one["seed"], one["without"]) == (4, "south"))
    assert score["alike"] == pytest.approx(right.mean())  # both kinds have three cells
    means = [np.mean([one["with_sample"] for one in part["scores"]]) for part in told["scores"]]
    assert told["summary"]["with_sample"]["mean"] == pytest.approx(np.mean(means))
    assert told["summary"]["with_sample"]["worst"] == pytest.approx(min(means))
    assert told["summary"]["alike"]["spread"] >= 0


def test_temperature_calibrates_confidence_in_unseen_laboratories():
    """Overconfident answers give a temperature above 1, whatever the number of copies of a cell."""
    tables = []
    for seed, name in enumerate(PLACES):
        table = make_predictions(seed)
        shares = table[LABELS].to_numpy(np.float64) ** 6  # ** 2 would be calibrated, by construction
        table[LABELS] = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
        tables.append((name, LABELS, table.assign(cell=name + "/" + table["cell"])))
    found = leave_one_lab_out.score_unseen_laboratories(tables)
    assert 2 < found.temperature < 5
    name, labels, table = tables[0]
    wrong = table[table[LABELS].to_numpy().argmax(1) != [LABELS.index(label) for label in table["label"]]]
    cell = wrong["cell"].iloc[0]
    copies = table.loc[table["cell"] == cell].assign(file=lambda rows: rows["file"] + "-again")
    again = leave_one_lab_out.score_unseen_laboratories([(name, labels, _joined(table, copies)), *tables[1:]])
    assert again.temperature == pytest.approx(found.temperature)


def test_each_laboratory_is_scored_among_its_own_kinds():
    """A laboratory with fewer kinds narrows the joint table, not the scores of the others."""
    tables = [(name, LABELS, make_predictions(seed)) for seed, name in enumerate(PLACES)]
    whole = leave_one_lab_out.score_unseen_laboratories(tables)
    name, labels, table = tables[0]
    fewer = table[table["label"] != LABELS[0]]
    found = leave_one_lab_out.score_unseen_laboratories([(name, labels, fewer), *tables[1:]])
    assert found.labels == LABELS[1:]
    assert found.scores["south"] == whole.scores["south"]
    assert found.scores[name] != whole.scores[name]


def _joined(table, copies):
    return table.merge(copies, how="outer")


def test_recipes_without_several_laboratories_are_refused(place, tmp_path, capsys):
    assert main(["loso", "cnn60", "--data", ".", "--work", str(tmp_path)]) == 1
    assert "trains on one laboratory" in capsys.readouterr().err
    assert main(["loso", "pbc8-ensemble", "--data", "."]) == 2
    assert "leave laboratories out for its members" in capsys.readouterr().err
    with pytest.raises(TrainingDataError, match="'west' cannot be left out of a mix of east, north, south"):
        parts_without(read_mixed(place, dict.fromkeys(PLACES, 4), 0), "west")
    with pytest.raises(TrainingDataError, match=r"no laboratory 'lisc' to mix. There are: .*north"):
        read_mixed(place, {"north": 4, "lisc": 4}, 0)
