"""The training loop: optimisers, options, stages and validation."""

from __future__ import annotations

import copy

import pytest
import torch
from PIL import Image

from tests.training.fit.drawn import HEAD, SIDE, recipe, weights
from training.fit.networks.network import build_model, set_training_mode, unfreeze
from training.fit.state import Scores
from training.fit.stopping import FitError
from training.recipe import pretrained_cfg
from zoo.imaging.preprocess import preprocessor

OPTIMISERS = ["sgd", "momentum", "adam", "adamw", "lion", "rmsprop", "nadamw", "lamb"]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_learns(run, name):
    lr = {"lion": 5e-4, "sgd": 0.05, "momentum": 0.05, "lamb": 0.01}.get(name, 4e-3)
    fitted = run(optimizer={"name": name, "lr": lr}, schedule={"epochs": 4})
    losses = [entry["train_loss"] for entry in fitted.history]
    assert losses[-1] < losses[0]
    assert fitted.images == 4 * 96


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": {"accumulate": 4}},
        {"optimizer": {"l2": 1e-3}},
        {"optimizer": {"label_smoothing": 0.2, "clip_norm": 1.0, "ema_decay": 0.9}},
        {"augment": {"mixup": 0.4}},
        {"augment": {"cutmix": 1.0}},
        {"augment": {"mixup": 0.2, "cutmix": 0.5}, "schedule": {"batch_size": 15}},
        {"optimizer": {"ema_decay": 0.9}},
        {"augment": {"colour_transfer": 1.0}},
        {"schedule": {"precision": "bf16", "channels_last": False}},
        {"schedule": {"rate": "one_cycle", "warmup_epochs": 1}},
    ],
    ids=str,
)
def test_every_option_learns(run, change):
    fitted = run(**{**change, "schedule": {"epochs": 4, **change.get("schedule", {})}})
    losses = [entry["train_loss"] for entry in fitted.history]
    assert losses[-1] < losses[0]
    assert not any(module.training for module in fitted.model.modules())


def test_stages_freeze_and_unfreeze_parts(run):
    start = weights(build_model(recipe(model=HEAD).network, 4))
    torch.manual_seed(0)
    start = weights(build_model(recipe(model=HEAD).network, 4))
    stages = [{"epochs": 1, "train": "head"}]
    frozen = weights(run("head", model=HEAD, stages=stages).model)
    body = [key for key in start if key.startswith("backbone.")]
    assert all(torch.equal(start[key], frozen[key]) for key in body)  # batch-norm statistics included
    assert not torch.equal(start["classifier.weight"], frozen["classifier.weight"])
    some = weights(run("some", model=HEAD, stages=[*stages, {"epochs": 1, "train": ["layer4"], "lr": 1e-3}]).model)
    changed = {key for key in body if not torch.equal(start[key], some[key])}
    assert changed
    assert all(key.startswith("backbone.layer4") for key in changed)


def test_names_an_unknown_part_of_the_backbone(run):
    with pytest.raises(FitError, match=r"no part 'layer9'. It has: conv1"):
        run(model=HEAD, stages=[{"epochs": 1, "train": ["layer9"]}])


def test_frozen_parts_keep_their_batch_norm_statistics():
    model = build_model(recipe(model=HEAD).network, 4)
    unfreeze(model, "head")
    set_training_mode(model)
    assert not any(module.training for module in model.backbone.modules())
    assert model.head.training
    unfreeze(model, "all")
    set_training_mode(model)
    assert all(module.training for module in model.modules())


def test_stages_have_their_own_input_size(run):
    stages = [{"epochs": 1, "input_size": [32, 32]}, {"epochs": 1}]
    assert [entry["stage"] for entry in run(stages=stages).history] == [1, 2]


def test_an_epoch_is_validated_at_the_size_of_training(run, arrays, split):
    fitted = run(stages=[{"epochs": 1, "input_size": [32, 32]}])
    prepare = preprocessor({**pretrained_cfg(recipe().network), "input_size": [3, 32, 32]})
    rows = split.rows["val"]
    with torch.inference_mode():
        logits = fitted.model(torch.stack([prepare(Image.fromarray(arrays.pictures[row])) for row in rows]))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(arrays.labels[rows])).item()
    assert loss == pytest.approx(fitted.history[0]["val_loss"], abs=1e-4)


@pytest.mark.parametrize(("small", "best"), [([32, 32], 3), ([SIDE, SIDE], 1)])
def test_epochs_of_another_size_are_not_compared(run, small, best):
    """The best epoch on smaller pictures begins the next stage, but is not the entry's network."""
    scores = iter([Scores(0.1, 0.9, 0.9), Scores(0.2, 0.8, 0.8), Scores(0.5, 0.5, 0.5)])
    stages = [{"epochs": 2, "input_size": small}, {"epochs": 1}]
    assert run(stages=stages, evaluate=lambda _: next(scores)).best_epoch == best


def test_the_last_epoch_is_kept_where_the_recipe_says_so(run):
    fitted = run(schedule={"epochs": 3, "select": "last"}, optimizer={"lr": 1e-9})
    assert fitted.best_epoch == 3


def test_validation_pictures_may_be_augmented(run):
    """They then differ between epochs, while the weights hardly change; and a run repeats exactly."""
    given = {
        "schedule": {"epochs": 2, "augment_validation": True, "cache_features": False},
        "optimizer": {"lr": 1e-12},
        "model": {"architecture": "minicnn", "input_size": [96, 96]},
    }
    fitted = run("one", **given)
    losses = [entry["val_loss"] for entry in fitted.history]
    plain = run("plain", **given | {"schedule": {"epochs": 2}})
    assert abs(losses[0] - losses[1]) > 10 * abs(plain.history[0]["val_loss"] - plain.history[1]["val_loss"])
    assert [entry["val_loss"] for entry in run("two", **given).history] == losses


def test_l2_may_leave_out_the_last_layer(run):
    """With L2 alone as the gradient, the last layer stays where it is."""
    given = {"schedule": {"epochs": 1}, "optimizer": {"name": "sgd", "lr": 1e-6, "l2": 1e4, "l2_last": False}}
    before = build_model(recipe(**given).network, 4)
    shares = {}
    for l2_last in (True, False):
        given["optimizer"]["l2_last"] = l2_last
        torch.manual_seed(0)
        after = run(f"l2-{l2_last}", build=lambda model, classes, start: copy.deepcopy(before), **given).model
        with torch.no_grad():
            shares[l2_last] = float(after.get_classifier().weight.norm() / before.get_classifier().weight.norm())
    assert shares[True] < 0.97
    assert shares[False] == pytest.approx(1, abs=1e-3)
