"""A recipe is one TOML file; an augmentation and a learning-rate schedule are one registered function each."""

from __future__ import annotations

import json

from tests.making import draw_folder

RECIPE = """
schema_version = 2
id = "mine"
title = "My recipe"
summary = "Written by a test."
task = "test"

[data]
name = "drawn"
credit = "drawn by a test"
packed = [48, 48]
val_fraction = 0.3
test_fraction = 0.3
labels = { eosinophil = "eosinophil", lymphocyte = "lymphocyte", monocyte = "monocyte", neutrophil = "neutrophil" }

[model]
architecture = "test_resnet"
input_size = [48, 48]

[schedule]
epochs = 1
batch_size = 8
"""

AUGMENTATION = '''
"""Solarisation."""

import numpy as np
import torch

from training.fit.augment.registry import Phase, augmentation


@augmentation(Phase.RESIZED, 0.0, "Probability of inverting bright pixels", order=60, ge=0, le=1)
def solarise(pixels: np.ndarray, probability: float) -> np.ndarray:
    """Invert bright pixels."""
    return np.where(pixels > 127, 255 - pixels, pixels) if torch.rand(()) < probability else pixels
'''

# lists the key, applies the augmentation through the transform of a recipe, and tries a wrong value and a misspelt key
AUGMENT = """
import json
import numpy as np
from training.fit.augment import training_transform
from training.recipe import RecipeError, load_recipe

def error(change):
    try:
        load_recipe("cnn60", [change])
    except RecipeError as error:
        return str(error)

bright = np.full((60, 60, 3), 250, np.uint8)
wanted = load_recipe("cnn60", ["augment={solarise=1.0}"])
print(json.dumps({
    "listed": "solarise" in load_recipe("cnn60").model_dump()["augment"],
    "changes_pictures": wanted.augment.changes_pictures,
    "pixel": int(training_transform(wanted.augment, (60, 60))(bright).max()),
    "plain": int(training_transform(load_recipe("cnn60", ["augment={}"]).augment, (60, 60))(bright).max()),
    "wrong": error("augment.solarise=2"),
    "misspelt": error("augment.solarize=1.0"),
}))
"""

SCHEDULE = '''

@learning_rate_schedule("linear")
def linear(lr: float, steps: int) -> np.ndarray:
    """Lower the rate to 0 along a line."""
    return lr * (1 - np.arange(steps) / steps)
'''

RATES = """
import json
from training.fit.schedules import learning_rates
from training.recipe import RecipeError, load_recipe

def error(change):
    try:
        load_recipe("cnn60", [change])
    except RecipeError as error:
        return str(error)

schedule = load_recipe("cnn60", ["schedule.rate=linear"]).schedule
print(json.dumps({"rates": learning_rates(schedule, 1.0, 2, 2).tolist(), "listed": error("schedule.rate=none")}))
"""


def test_a_recipe_is_listed_and_trains_an_entry(project_copy):
    project_copy.write("training/recipes/mine.toml", RECIPE)
    rows = {row["id"]: row for row in json.loads(project_copy.python("-m", "training", "recipes", "--json"))}
    assert rows["mine"]["title"] == "My recipe"
    assert rows["mine"]["parameters"] > 1000
    data = draw_folder(project_copy.folder / "cells", 6)
    train = ["train", "mine", "--data", str(data), "--out", "entries/mine", "--device", "cpu", "--json"]
    summary = json.loads(project_copy.python("-m", "training", *train))
    assert summary["id"] == "mine"
    assert (project_copy.folder / "entries" / "mine" / "model.safetensors").is_file()


def test_an_augmentation_is_a_key_of_recipes_and_changes_pictures(project_copy):
    project_copy.write("training/fit/augment/solarise.py", AUGMENTATION.lstrip())
    found = json.loads(project_copy.python("-c", AUGMENT))
    assert found["listed"] and found["changes_pictures"]
    assert (found["plain"], found["pixel"]) == (250, 5)
    assert "augment.solarise: input should be less than or equal to 1" in found["wrong"]
    assert "Did you mean 'solarise'?" in found["misspelt"]


def test_a_learning_rate_schedule_is_a_value_of_schedule_rate(project_copy):
    project_copy.append("training/fit/schedules.py", SCHEDULE)
    found = json.loads(project_copy.python("-c", RATES))
    assert found["rates"] == [1.0, 0.75, 0.5, 0.25]
    assert "There are: constant, cosine, linear, one_cycle, plateau" in found["listed"]
