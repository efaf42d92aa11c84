"""Every recipe: a few training steps on drawn cells; the entry, loaded by the zoo, predicts what is stored.

Networks beside the typical ones carry the marker `artefacts`.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.making import LABELS, draw_cell
from training.cli import main
from training.recipe import load_recipe, recipe_ids
from zoo.entry import read_entry, read_predictions
from zoo.serving.batch import classify_files
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import BUILTIN, FolderSource, list_entries
from zoo.systems import stored_one_hot_scores

TYPICAL = ("starter", "cnn60", "minicnn", "champion8-small", "resnet50_finetuned", "efficientnet_lite0_frozen")
NETWORKS = [
    pytest.param(name, marks=() if name in TYPICAL else pytest.mark.artefacts)
    for name in recipe_ids()
    # with random weights those from packages are the recipes that they inherit from
    if load_recipe(name).model and not load_recipe(name).head and load_recipe(name).network.weights != "packaged"
]
ON_NETWORKS = [name for name in recipe_ids() if (head := load_recipe(name).head) and head.of]
ENSEMBLES = [name for name in recipe_ids() if load_recipe(name).ensemble]
# what makes it short, and needs no download; frozen parts stay frozen
SHORT = [
    "data.split=stratified",
    "data.originals=false",
    "data.mix={}",
    "data.added=[]",
    "clean.outliers=false",
    "clean.duplicates=keep",
]
SHORT += ["schedule.precision=fp32", "schedule.batch_size=8", "schedule.views=1"]
SHORT += ["data.val_fraction=0.3", "data.test_fraction=0.3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few drawn cells in the class folders of both data sets, and of one's own."""
    place = tmp_path_factory.mktemp("data")
    for name in ("pbc8-efficientnet-lite0", "cnn60", "starter", "champion8"):
        folders = list(load_recipe(name).data.labels) or LABELS
        for number, folder in enumerate(folders):
            inside = place / load_recipe(name).data.name / folder
            inside.mkdir(parents=True)
            for seed in range(5):
                draw_cell(LABELS[number % 4], 10 * number + seed, (96, 80)).save(inside / f"{seed}.png")
    return place


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Folder of networks that stand in for members of ensembles: several ensembles can take them."""
    return tmp_path_factory.mktemp("stand-ins")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path / "zoo"))
    # random weights of a deep network are so badly conditioned that rounding decides
    monkeypatch.setenv("HEMAZOO_PRECISION", "fp32")
    return tmp_path


def train(name, data, out=None, *more):
    recipe = load_recipe(name)
    changes = [*SHORT, *more]
    changes += [f"stages.{n}.epochs=1" for n in range(len(recipe.stages))] or ["schedule.epochs=1"]
    if recipe.model and recipe.network.weights != "none":
        changes.append("model.weights=none")
    if recipe.model and (recipe.network.head or recipe.network.architecture.startswith("tf_")):
        # any size does, and large ones take long
        changes.append("model.input_size=[80, 80]")
        changes += [f"stages.{n}.input_size=[80, 80]" for n, stage in enumerate(recipe.stages) if stage.input_size]
    if recipe.schedule.runs > 2:
        changes.append("schedule.runs=2")
    given = [word for change in changes for word in ("--set", change)]
    return main(["train", name, "--data", str(data / recipe.data.name), "--out", f"zoo/{out or name}", *given])


def check(place, name, data):
    """Compare the entry's answers with its stored predictions."""
    recipe = load_recipe(name)
    entry = next(e for e in list_entries([FolderSource(place / "zoo", "here")]) if e.id == name)
    assert entry.usable, entry.reason
    assert entry.config.zoo.model_extra["recipe"]["id"] == name
    table = read_predictions(entry, f"{recipe.data.name}-test")
    files = [(file, data / recipe.data.name / file) for file in table["file"]]
    with Runtime("cpu", "fp32") as runtime:
        found = np.array([list(r.prediction.network.values()) for r in classify_files(runtime, entry, files)])
    assert np.allclose(found, table[entry.labels].to_numpy(), atol=3e-3)
    assert np.allclose(found.sum(1), 1, atol=1e-5)
    card = (entry.folder / "README.md").read_text()
    assert all(note in card for note in recipe.notes)
    return entry


@pytest.mark.parametrize("name", NETWORKS)
def test_trains_saves_and_loads_a_network(name, place, data):
    torch.manual_seed(0)
    assert train(name, data) == 0
    entry = check(place, name, data)
    training = entry.config.zoo.training
    recipe = load_recipe(name)
    assert training["epochs"] == len(recipe.all_stages) * min(2, recipe.schedule.runs)
    assert training["images_per_second"] > 0
    if name == "resnet50_finetuned":
        assert "the head and layer4" in (entry.folder / "README.md").read_text()


@pytest.mark.parametrize("name", ON_NETWORKS)
def test_trains_a_classical_head_on_features_of_a_network(name, place, data, capsys):
    of = load_recipe(name).head.of
    # the built-in one has seen other pictures
    assert train(name, data) == 1
    assert "trained on another split" in capsys.readouterr().err
    assert train(of, data) == 0
    assert train(name, data) == 0
    entry = check(place, name, data)
    assert (entry.folder / "head.skops").is_file()
    assert not list(place.glob("zoo/*/*.pkl"))
    # another split would test on what its network was trained on
    assert train(name, data, f"{name}-2", "seed=5") == 1
    assert "trained on another split" in capsys.readouterr().err


def test_trains_a_forest_on_pixels(place, data):
    assert train("pixels_forest", data) == 0
    entry = check(place, "pixels_forest", data)
    assert entry.weights.parameters == 0
    assert entry.config.zoo.crop == "cell"
    assert not any(benchmark.one_hot for benchmark in entry.evaluation.benchmarks.values())
    # as the authors scored it; by the same predictions, stored and computed again
    assert train("pixels_forest", data, "counted", "head.one_hot=true") == 0
    counted = read_entry(place / "zoo" / "counted")
    for name, benchmark in counted.evaluation.benchmarks.items():
        found = stored_one_hot_scores(counted, name)
        assert {key: score.value for key, score in found.items()} == {
            key: pytest.approx(metric.value) for key, metric in benchmark.one_hot.items()
        }
        assert benchmark.one_hot["subset_accuracy"].value <= benchmark.metrics["accuracy"].value
    before = counted.evaluation.benchmarks
    assert main(["evaluate", str(counted.folder), "--rescore"]) == 0
    assert read_entry(counted.folder).evaluation.benchmarks == before


def test_trains_a_forest_on_colour_and_granularity(place, data):
    assert train("colour_forest", data) == 0
    check(place, "colour_forest", data)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_writes_an_ensemble_of_trained_members(name, place, data, stand_ins, capsys):
    recipe = load_recipe(name)
    built_in = {entry.id for entry in list_entries([FolderSource(BUILTIN, "builtin")])}
    if not set(recipe.ensemble.members) <= built_in:
        assert main(["train", name, "--out", f"zoo/{name}"]) == 1
        assert "There is no model" in capsys.readouterr().err
    for number, member in enumerate(recipe.ensemble.members):
        # small stand-ins: what an ensemble does with its members does not depend on their size
        kept = stand_ins / f"{recipe.data.name}-{number % 2}"
        if not kept.exists():
            alike = f"data.name={recipe.data.name}", "optimizer.l2=0"
            stand_in = "cnn60" if recipe.data.name == load_recipe("cnn60").data.name else "minicnn"
            assert train(stand_in, data, kept.name, f"optimizer.lr=1e-{3 + number % 2}", *alike) == 0
            shutil.copytree(place / "zoo" / kept.name, kept)
        shutil.copytree(kept, place / "zoo" / member)
    assert main(["train", name, "--out", f"zoo/{name}"]) == 0
    entry = check(place, name, data)
    assert [member.id for member in entry.members] == recipe.ensemble.members
    assert sum(entry.member_weights) == pytest.approx(1)
    with Runtime("cpu", "fp32") as runtime:
        cell = Image.new("RGB", (80, 80), (200, 150, 190))
        answers = [(member, runtime.classify(member, cell).network) for member in entry.members]
        found = runtime.classify(entry, cell).network
    shares = [entry.map_probabilities(np.array([list(own.values())]), member.labels)[0] for member, own in answers]
    if entry.config.zoo.member_mean == "geometric":
        products = np.prod([share**weight for share, weight in zip(shares, entry.member_weights, strict=True)], axis=0)
        expected = products / products.sum()
    else:
        expected = np.average(shares, axis=0, weights=entry.member_weights)
    assert list(found) == entry.labels
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_an_ensemble_takes_members_trained_from_random_weights(place, data, capsys):
    members = [f"{member}_scratch" for member in load_recipe("ensemble").ensemble.members]
    for number, member in enumerate(members):
        assert train("minicnn", data, f"../runs/entries/{member}", f"optimizer.lr=1e-{3 + number % 2}") == 0
    # under the published protocol there are none, or only such as the built-in zoo keeps without weights
    assert main(["reproduce", "--only", "ensemble", "--data", str(data), "--zoo", "zoo"]) == 1
    told = capsys.readouterr().err
    assert "ensemble_scratch_as_published: " in told
    assert "efficientnet_b3_scratch_as_published" in told
    entry = next(e for e in list_entries([FolderSource(place / "zoo", "here")]) if e.id == "ensemble_scratch")
    assert entry.config.zoo.members == members
    assert "From random weights" in (entry.folder / "README.md").read_text()


def test_refuses_members_of_another_split(place, data, capsys):
    members = load_recipe("pbc8-ensemble").ensemble.members
    for number, member in enumerate(members):
        assert train("minicnn", data, member, f"seed={number}") == 0
    assert main(["train", "pbc8-ensemble", "--out", "zoo/pbc8-ensemble"]) == 1
    assert "not trained and tested on one split" in capsys.readouterr().err
    assert not (place / "zoo" / "pbc8-ensemble").exists()
