"""Recipes are read strictly: what is not understood is refused, with the nearest name."""

from __future__ import annotations

import pytest
import torch
from timm import create_model

from training.augment import training_transform
from training.engine import build_model
from training.recipe import FOLDER, RecipeError, load_recipe, recipe_ids


@pytest.mark.parametrize("name", recipe_ids())
def test_every_recipe_builds_its_model(name):
    recipe = load_recipe(name)
    assert recipe.id == name
    labels = list(recipe.data.labels.values())
    model = build_model(recipe.model, len(labels)).eval()
    assert model(torch.zeros(1, 3, *recipe.model.input_size)).shape == (1, len(labels))
    assert set(recipe.data.descriptions) <= set(labels)


@pytest.mark.parametrize("name", recipe_ids())
def test_every_recipe_augments(name):
    recipe = load_recipe(name)
    model = recipe.model
    transform = training_transform(recipe.augment, model.input_size, list(model.mean), list(model.std))
    picture = torch.randint(0, 256, (3, *recipe.data.packed), dtype=torch.uint8)
    first, second = transform(picture), transform(picture)
    assert first.shape == (3, *model.input_size)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)


def test_packaged_imagenet_weights_fill_the_whole_backbone():
    recipe = load_recipe("pbc8-efficientnet-lite0")
    torch.manual_seed(0)
    filled = build_model(recipe.model, 8).state_dict()
    torch.manual_seed(0)
    empty = create_model("tf_efficientnet_lite0", num_classes=8).state_dict()
    same = [key for key in filled if torch.equal(filled[key], empty[key])]
    assert not [key for key in same if key.endswith(("weight", "running_var"))]


CHANGES = {
    "misspelt": (("lr =", "lear_rate ="), r"unknown key optimizer.lear_rate"),
    "nearest": (("[schedule]\nepochs", "[schedule]\nepoch"), r"Did you mean 'epochs'\?"),
    "negative": (("lr = 1e-3", "lr = -1"), "optimizer.lr: input should be greater than 0"),
    "not toml": (("[model]", "[model"), "not valid TOML"),
    "top level": (('id = "wbc4-cnn60"', 'id = "wbc4-cnn60"\nseeds = 3'), r"unknown key seeds. Did you mean 'seed'\?"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_wrong_recipe_says_where(tmp_path, name):
    (old, new), said = CHANGES[name]
    text = (FOLDER / "wbc4-cnn60.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(RecipeError, match=said):
        load_recipe(str(path))


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="Did you mean 'wbc4-cnn60'"):
        load_recipe("wbc4-cnn61")


def test_texts_do_not_decide_the_weights():
    recipe = load_recipe("wbc4-cnn60")
    assert recipe.model_copy(update={"title": "another"}).fingerprint() == recipe.fingerprint()
    assert recipe.model_copy(update={"seed": 9}).fingerprint() != recipe.fingerprint()
