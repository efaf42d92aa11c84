"""Recipes of earlier versions: read where they mean the same, refused with a sentence where they do not."""

from __future__ import annotations

import json

import pytest

from training.detection.recipe import read_detector_recipe
from training.recipe import SCHEMA_VERSION, Recipe, RecipeError, load_recipe, read_recipe
from zoo.sources.catalogue import BUILTIN

SWITCHED_OFF = {"schedule": {"keep_statistics": False}, "augment": {"background": 0.0, "mixstyle": 0.0}}


def as_version_1(name="champion8", **used):
    """A recipe's content as version 1 embedded it, with the options that version 2 no longer has."""
    content = load_recipe(name).model_dump(mode="json")
    del content["schema_version"]
    for table, options in SWITCHED_OFF.items():
        content[table] |= options | used.get(table, {})
    return content


def test_a_recipe_states_the_current_version():
    assert load_recipe("champion8").schema_version == SCHEMA_VERSION == 2
    assert load_recipe("champion8").model_dump()["schema_version"] == 2


def test_reads_version_1_with_removed_options_at_their_default():
    assert read_recipe(as_version_1(), "an entry") == load_recipe("champion8")
    assert read_recipe(as_version_1(), "an entry").fingerprint() == load_recipe("champion8").fingerprint()
    assert Recipe.model_validate(as_version_1()) == load_recipe("champion8")


@pytest.mark.parametrize(
    ("used", "option"),
    [
        ({"augment": {"mixstyle": 0.5}}, r"augment\.mixstyle=0\.5"),
        ({"augment": {"background": 0.3}}, r"augment\.background=0\.3"),
        ({"schedule": {"keep_statistics": True}}, r"schedule\.keep_statistics=True"),
    ],
)
def test_refuses_version_1_with_a_removed_option_in_use(used, option):
    with pytest.raises(RecipeError, match=rf"an entry: {option} is an option of recipe version 1"):
        read_recipe(as_version_1(**used), "an entry")


def test_refuses_a_removed_architecture():
    content = as_version_1()
    content["model"]["architecture"] = "efficientnet_lite0_gn"
    with pytest.raises(
        RecipeError, match=r"model\.architecture=efficientnet_lite0_gn is an option of recipe version 1"
    ):
        read_recipe(content, "an entry")


def test_refuses_a_newer_version():
    with pytest.raises(RecipeError, match="recipe version 3, by a newer HemaZoo"):
        read_recipe({**as_version_1(), "schema_version": 3}, "an entry")


def test_refuses_a_removed_option_in_a_recipe_of_this_version():
    content = {**as_version_1(), "schema_version": 2}
    with pytest.raises(RecipeError, match=r"unknown key schedule\.keep_statistics"):
        read_recipe(content, "an entry")


def test_a_file_of_version_1_may_inherit_one_of_version_2(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('inherit = "champion8"\n[augment]\nmixstyle = 0.0\nblur = 2.0\n')
    assert load_recipe(str(path)) == load_recipe("champion8", ["augment.blur=2.0"])
    path.write_text('inherit = "champion8"\n[augment]\nmixstyle = 0.2\n')
    with pytest.raises(RecipeError, match=r"mine\.toml: augment\.mixstyle=0\.2 is an option of recipe version 1"):
        load_recipe(str(path))


@pytest.mark.parametrize("path", sorted(BUILTIN.glob("*/config.json")), ids=lambda path: path.parent.name)
def test_recipes_in_built_in_entries_are_read(path):
    ours = json.loads(path.read_text())["zoo"]
    content = ours.get("recipe")
    if "detector" in ours:
        assert read_detector_recipe(content, path.parent.name).id == path.parent.name
    elif content is not None:
        assert read_recipe(content, path.parent.name).schema_version == SCHEMA_VERSION
