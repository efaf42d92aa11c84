"""Batches of training: augmented pictures, cached features, worker processes."""

from __future__ import annotations

import gc
import multiprocessing

import cv2
import numpy as np
import pytest
import torch

from tests.training.fit.drawn import HEAD, SIDE, recipe
from training.fit.batches import Arrays, PictureBatches
from training.fit.networks.network import build_model
from training.recipe import Schedule


def test_worker_processes_end_with_the_run(run):
    """They stay from epoch to epoch."""
    before = set(multiprocessing.active_children())
    seen = []
    run(
        schedule={"epochs": 3},
        after_epoch=lambda entry: seen.append({child.pid for child in multiprocessing.active_children()}),
    )
    gc.collect()
    assert seen[0] and seen[0] == seen[1] == seen[2]
    assert set(multiprocessing.active_children()) == before


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_cells_keep_their_surroundings_in_a_share_of_pictures(split, share):
    """The same pictures whenever an epoch is repeated, and none in validation."""
    alone, around = (np.full((144, SIDE, SIDE, 3), value, np.uint8) for value in (60, 200))
    data = Arrays(alone, np.arange(144) % 4, around=around)
    drawn = recipe(data={"crop": "alone"}, augment={"surroundings": share, "rotation": 0})
    batches = PictureBatches(drawn, data, (SIDE, SIDE), split.rows["train"])
    seen = [
        np.concatenate([b[0].mean((1, 2, 3)).numpy() for b in batches.training(1, [split.rows["train"]])]) for _ in "ab"
    ]
    assert np.array_equal(*seen)
    plain = torch.cat(list(batches.plain(split.rows["val"]))).mean((1, 2, 3))
    kept = np.mean(seen[0] > plain.max().item() + 0.1)
    assert kept == 1 if share == 1 else 0.25 < kept < 0.75


def test_cached_features_give_the_same_head_as_pictures(run, tmp_path):
    """Without augmentation both ways see the same pictures: the head is the same but for rounding."""
    still = {"horizontal_flip": False, "rotation": 0}
    stages = [{"epochs": 4, "train": "head"}]
    kept = run("kept", model=HEAD, stages=stages, augment=still)
    ordinary = run("ordinary", model=HEAD, stages=stages, augment=still, schedule={"cache_features": False})
    assert list((tmp_path / "cache" / "features").iterdir())
    for one, two in zip(kept.history, ordinary.history, strict=True):
        assert one["val_loss"] == pytest.approx(two["val_loss"], abs=0.01)
        assert one["train_loss"] == pytest.approx(two["train_loss"], abs=0.01)


def test_another_head_reuses_cached_features(run, tmp_path):
    stages = [{"epochs": 2, "train": "head"}]
    run("one", model=HEAD, stages=stages)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "features").rglob("*.npy")}
    assert sum(path.name.startswith("view") for path in made) == Schedule().views
    run("two", model={**HEAD, "head": ["gap", "dropout 0.5"]}, stages=stages)
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "features").rglob("*.npy")}
    run("three", model=HEAD, stages=stages, augment={"zoom": 0.1})
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2


def test_training_pictures_equal_the_input_of_the_entry(arrays):
    """Without augmentation."""
    still = recipe(augment={"horizontal_flip": False, "rotation": 0})
    rows = np.array([5, 2, 9, 2])
    batches = PictureBatches(still, arrays, (SIDE, SIDE), rows)
    seen = torch.cat(list(batches.plain(rows)))
    for epoch in range(2):
        (pictures, labels, weights), *more = batches.training(epoch, [rows[:3], rows[3:]])
        assert torch.allclose(pictures, seen[:3], atol=1e-6)
        assert pictures.is_contiguous(memory_format=torch.channels_last)
        assert labels.tolist() == [1, 2, 1]
        assert weights.tolist() == [1, 1, 1]
        assert torch.allclose(more[0][0], seen[3:], atol=1e-6)


@pytest.mark.parametrize("last", [True, False])
def test_memory_format_is_that_of_the_recipe(run, last):
    seen = []

    def watched(*args):
        model = build_model(*args)
        model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].is_contiguous()))
        return model

    run(schedule={"epochs": 1, "channels_last": last}, build=watched)
    assert seen
    assert all(seen) != last


def test_workers_start_after_opencv_used_threads(run):
    """An audit uses OpenCV's threads; worker processes that are forked afterwards must not wait for them."""
    cv2.setNumThreads(4)
    picture = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    cv2.GaussianBlur(cv2.resize(picture, (3000, 3000)), (0, 0), 5)
    assert run(schedule={"epochs": 1}).images == 96


def test_a_fixed_backbone_sees_each_picture_once_a_view(run):
    """Not once an epoch; and the head learns as much from four views as from ever new ones."""
    found = {}
    for kept in (True, False):
        seen = []

        def watched(*args, seen=seen):
            model = build_model(*args)
            model.backbone.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
            seen.clear()  # of what finds the size of the map
            return model

        schedule = {"cache_features": kept, "views": 4}
        fitted = run(f"{kept}", model=HEAD, stages=[{"epochs": 30, "train": "head"}], schedule=schedule, build=watched)
        found[kept] = sum(seen), max(entry["val_accuracy"] for entry in fitted.history)
    assert found[True][0] == 4 * 96 + 48
    assert found[False][0] == 30 * (96 + 48)
    assert found[True][1] == pytest.approx(found[False][1], abs=1.96 * (2 * 0.25 / 48) ** 0.5)
    assert found[True][1] > 0.4


@pytest.mark.parametrize(("size", "sizes"), [(64, [48, 48]), (25, [24, 24, 24, 24]), (90, [48, 48]), (200, [96])])
def test_every_picture_counts_in_every_epoch(run, size, sizes):
    """Also where their number is no multiple of the batch size."""
    seen = []

    def watched(*args):
        model = build_model(*args)
        model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])) if module.training else None)
        return model

    assert run(schedule={"epochs": 1, "batch_size": size}, build=watched).images == 96
    assert seen == sizes
