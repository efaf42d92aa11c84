"""Pictures become the tensors that timm would make, and maps are placed back on the picture."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.making import ARCHITECTURES, draw_cell, make_config
from training.recipe import load_recipe, pretrained_cfg, recipe_ids
from zoo.imaging.preprocess import place_map, preprocessor, seen_region

SIZES = [(96, 96), (320, 240), (240, 320), (37, 211)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_timms_transform(architecture, size):
    config = make_config(architecture)["pretrained_cfg"]
    picture = draw_cell("monocyte", size=size)
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config), is_training=False)
    assert torch.allclose(preprocessor(config)(picture), theirs(picture), atol=1e-6)


@pytest.mark.parametrize("mode", ["squash", "center", "border"])
@pytest.mark.parametrize("input_size", [(96, 96), (64, 96), (60, 41)], ids=str)
@pytest.mark.parametrize("crop_pct", [None, 1.0, 0.875, 0.9, 0.5])
def test_equals_timms_transform_in_every_mode(mode, input_size, crop_pct):
    random = np.random.default_rng(0)
    for filter_name in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"):
        config = {"input_size": (3, *input_size), "mean": (0.2, 0.5, 0.7), "std": (0.5,) * 3, "crop_mode": mode}
        config |= {"interpolation": filter_name, "crop_pct": crop_pct}
        width, height = random.integers(20, 300, 2)
        picture = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
        resolved = timm.data.resolve_data_config(pretrained_cfg=config)
        theirs = timm.data.create_transform(**resolved, is_training=False, use_prefetcher=True)(picture)
        assert np.array_equal(preprocessor(config).pixels(picture), theirs), (filter_name, width, height)


def test_what_a_configuration_lacks_is_timms():
    picture = draw_cell("monocyte", size=(320, 240))
    config = timm.data.resolve_data_config(pretrained_cfg={"crop_mode": "center"})
    theirs = timm.data.create_transform(**config, is_training=False)
    assert torch.allclose(preprocessor({})(picture), theirs(picture), atol=1e-6)


@pytest.mark.parametrize("recipe", [name for name in recipe_ids() if load_recipe(name).model])
def test_training_validates_with_the_same_tensor(recipe):
    config = pretrained_cfg(load_recipe(recipe).network)
    picture = draw_cell("eosinophil", size=(160, 160))
    one = preprocessor(config)
    assert torch.equal(one(picture), one.normalise(one.pixels(picture)[None])[0])
    assert np.allclose(one(picture), one.normalise_array(one.pixels(picture)), atol=1e-6)
    assert one(picture).shape == tuple(config["input_size"])


@pytest.mark.parametrize("mode", ["squash", "center", "border"])
@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("size", SIZES[:3], ids=str)
def test_a_map_is_placed_where_the_mark_was(mode, crop, size):
    config = {"input_size": [3, 96, 96], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_mode": mode, "crop_pct": crop}
    x, y = size[0] * 0.55, size[1] * 0.42
    values = np.zeros((size[1], size[0], 3), np.uint8)
    values[round(y) - 8 : round(y) + 8, round(x) - 8 : round(x) + 8] = 255
    seen = preprocessor(config)(Image.fromarray(values)).mean(0).numpy()
    seen[seen < 0] = 0  # what the model pads with is no mark
    placed = place_map(seen, size, seen_region(size, config))
    assert placed.shape == (size[1], size[0])
    rows, columns = np.indices(placed.shape)
    assert abs((placed * columns).sum() / placed.sum() - x) < 2
    assert abs((placed * rows).sum() / placed.sum() - y) < 2


def test_no_evidence_outside_the_seen_region():
    config = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_mode": "center", "crop_pct": 1.0}
    placed = place_map(np.ones((2, 2), np.float32), (200, 100), seen_region((200, 100), config))
    assert placed[:, :49].max() == 0
    assert placed[:, 51:149].min() > 0.99
