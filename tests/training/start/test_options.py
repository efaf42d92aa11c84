"""Usual options (`--epochs`, `--lr`, …), and what is refused before a picture is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.cli import main
from training.fit.networks.network import PACKAGED, WeightsError
from training.recipe import RecipeError, load_recipe
from training.start.checks import check_start
from training.start.folder import default_target, named_by_folder
from training.start.options import Usual, load_changed, parse_size


@pytest.mark.parametrize(("text", "size"), [("96", (96, 96)), ("96x128", (96, 128)), ("96,128", (96, 128))])
def test_a_size_is_one_side_or_two(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("epochs", [2, 3, 5, 9, 18, 100])
def test_epochs_are_those_of_all_stages(epochs):
    stages = load_changed("starter", usual=Usual(epochs=epochs)).stages
    assert sum(stage.epochs for stage in stages) == epochs
    assert stages[0].epochs >= stages[1].epochs >= 1  # 10 and 8 in the recipe


def test_the_rate_is_the_highest_of_the_stages():
    recipe = load_changed("starter", usual=Usual(lr=1e-3))
    assert [stage.lr for stage in recipe.stages] == [1e-3, 1e-4]
    assert load_changed("cnn60", usual=Usual(lr=0.02)).optimizer.lr == 0.02


def test_the_input_size_is_that_of_network_stages_and_stored_pictures():
    recipe = load_changed("starter", usual=Usual(input_size=(256, 192)))
    assert (recipe.network.input_size, recipe.data.packed) == ((256, 192), (320, 240))
    small = load_changed("pbc8-efficientnet-lite0", usual=Usual(input_size=(80, 80)))
    assert [stage.input_size for stage in small.stages] == [(56, 56), None]
    assert small.data.packed == load_recipe("pbc8-efficientnet-lite0").data.packed


def test_usual_options_come_after_set():
    recipe = load_changed("cnn60", ["seed=4", "schedule.batch_size=8"], Usual(seed=5))
    assert (recipe.seed, recipe.schedule.batch_size) == (5, 8)


@pytest.mark.parametrize(
    ("name", "changes", "usual", "said"),
    [
        ("starter", [], Usual(epochs=1), "give at least 2 epochs"),
        ("starter", ["optimizer.lr=1"], None, "optimizer.lr changes nothing here"),
        ("ensemble", [], Usual(seed=3), "is an ensemble"),
        ("starter", ["optimizer.name=adamx"], None, "Did you mean adamax or adam"),
        ("starter", [], Usual(model="resnet-50"), "Did you mean resnet50 or"),
        ("starter", [], Usual(model="EfficientNetB0"), "Did you mean efficientnet_b0 or"),
        ("cnn60", [], Usual(input_size=(96, 96)), "takes no pictures of 96×96"),
        ("cnn60", ["model.args={speed=1}"], None, "cannot be built with these options"),
        ("starter", ["model.head=['gap','dens 3']"], None, "is no layer of a head"),
        ("starter", ["stages.1.train=['layer4']"], None, "has no part 'layer4'"),
    ],
)
def test_what_does_not_fit_is_refused_with_near_names(name, changes, usual, said):
    with pytest.raises(RecipeError, match=said.replace("'", ".")):
        check_start(load_changed(name, changes, usual))


def test_weights_out_of_reach_are_told_with_those_that_are_installed(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError) as caught:
        check_start(load_changed("starter", usual=Usual(model="resnet50")))
    assert all(name in str(caught.value) for name in PACKAGED) and "--scratch" in str(caught.value)
    check_start(load_changed("starter", usual=Usual(model="resnet50"), scratch=True))
    with pytest.raises(WeightsError, match="There are no ImageNet weights of cnn60"):
        check_start(load_changed("starter", usual=Usual(model="cnn60")))


def test_title_task_and_data_set_are_named_by_the_folder():
    recipe = named_by_folder(load_recipe("starter"), Path("/data/Our <Lab>_2024"))
    assert (recipe.title, recipe.task) == ("Our Lab 2024, EfficientNet-Lite0", "Our Lab 2024")
    assert recipe.data.name == "our-lab-2024"
    other = named_by_folder(load_changed("starter", usual=Usual(model="resnet18"), scratch=True), Path("cells"))
    assert other.title == "cells, resnet18 (from random weights)"
    published = load_recipe("cnn60")
    assert named_by_folder(published, Path("cells")) == published


def test_the_entry_is_written_where_the_app_looks(monkeypatch, tmp_path):
    monkeypatch.delenv("HEMAZOO_ZOO", raising=False)
    recipe = load_recipe("starter", scratch=True)
    assert default_target(Path("/data/Our Lab"), recipe) == Path("my-zoo/our-lab_scratch")
    monkeypatch.setenv("HEMAZOO_ZOO", f"hub:alice:{tmp_path}")
    assert default_target(Path("/data/Our Lab"), load_recipe("starter")) == tmp_path / "our-lab"


def test_the_command_refuses_before_the_data(capsys):
    assert main(["train", "--data", ".", "--model", "resnet-50"]) == 2
    assert "Did you mean resnet50" in capsys.readouterr().err
    assert main(["train", "--epochs", "3"]) == 2
    assert "Name the folder of your pictures" in capsys.readouterr().err
    assert main(["train", "--data", ".", "--split", "random"]) == 2
    assert "There is no split random" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "--data", "x", "--input-size", "small"])
    assert "is no size" in capsys.readouterr().err
