"""The engine by itself: stages, kept features, learning rates, and what can go wrong on the way."""

from __future__ import annotations

import gc
import itertools
import json
import multiprocessing
import os
import resource
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.making import LABELS, draw_cell, draw_folder
from training.cli import main
from training.fit.augment import Context
from training.fit.augment.colour import colour_transfer
from training.fit.averaging import average
from training.fit.batches import Arrays, PictureBatches
from training.fit.devices import make_accelerator
from training.fit.loop import Hooks, train
from training.fit.network import build_model, set_training_mode, unfreeze
from training.fit.schedules import history_scale, learning_rates, should_stop
from training.fit.state import Scores
from training.fit.stopping import FitError, TrainingStopped
from training.prepare.splits import Split
from training.recipe import Recipe, Schedule, pretrained_cfg
from zoo.entry import read_entry, read_predictions
from zoo.imaging.preprocess import preprocessor

ROOT = Path(__file__).parents[3]
SIDE = 48
HOOKS = ("after_epoch", "build", "evaluate", "interrupts")


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    cells = [draw_cell(label, seed, (SIDE, SIDE)) for seed in range(36) for label in LABELS]
    return Arrays(np.stack([np.asarray(cell) for cell in cells]), np.arange(len(cells)) % 4)


@pytest.fixture(scope="module")
def split() -> Split:
    rows = {"train": np.arange(96), "val": np.arange(96, 144), "test": np.arange(0)}
    return Split(rows, tuple(map(str, range(144))), {}, "drawn")


def recipe(**parts) -> Recipe:
    content = {
        "id": "drawn",
        "title": "drawn",
        "summary": "drawn",
        "task": "test",
        "data": {"name": "drawn", "credit": "a test", "labels": dict.fromkeys(LABELS), "packed": [SIDE, SIDE]},
        "model": {"architecture": "test_resnet", "input_size": [SIDE, SIDE]},
        "optimizer": {"lr": 4e-3},
        "schedule": {"epochs": 3, "batch_size": 16, "precision": "fp32"},
        "augment": {"horizontal_flip": True, "rotation": 90},
    }
    content["data"]["labels"] = {label: label for label in LABELS}
    for name, part in parts.items():
        content[name] = {**content[name], **part} if isinstance(part, dict) and name in content else part
    return Recipe.model_validate(content)


@pytest.fixture
def run(arrays, split, tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))

    def fitted(work="work", **parts):
        place = tmp_path / work
        place.mkdir(exist_ok=True)
        options = {key: parts.pop(key) for key in ("resume", "finish") if key in parts}
        hooks = Hooks(**{key: parts.pop(key) for key in HOOKS if key in parts})
        accelerator = make_accelerator(torch.device("cpu"))
        return train(recipe(**parts), arrays, split, place, accelerator, **options, hooks=hooks)

    return fitted


HEAD = {"architecture": "test_resnet", "head": ["gap", "dense 16", "relu"], "input_size": [SIDE, SIDE]}


PARTED = {"architecture": "minicnn", "input_size": [96, 96], "args": {}}
PLAIN = {"name": "momentum", "momentum": 0.0, "lr": 0.05}  # steps in proportion to gradients: rounding stays rounding


def same(one, two):
    """Whether two networks differ by rounding only, seen against how far training moved them."""
    torch.manual_seed(0)
    start = build_model(recipe(model=PARTED).network, 4)
    trios = list(zip(one.parameters(), two.parameters(), start.parameters(), strict=True))
    moved = max((first - begun).abs().max().item() for first, _, begun in trios)
    return max((first - second).abs().max().item() for first, second, _ in trios) < 0.05 * moved


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_workers_end_with_the_run(run):
    """They stay from epoch to epoch; nothing of a run may outlive it."""
    before = set(multiprocessing.active_children())
    seen = []
    run(
        schedule={"epochs": 3},
        after_epoch=lambda entry: seen.append({child.pid for child in multiprocessing.active_children()}),
    )
    gc.collect()
    assert seen[0] and seen[0] == seen[1] == seen[2]
    assert set(multiprocessing.active_children()) == before


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


def test_colours_are_anothers_and_the_pattern_stays(monkeypatch):
    mine, other = (np.asarray(draw_cell(*drawn, (120, 120))) for drawn in (("neutrophil", 3), ("lymphocyte", 4)))
    other = (other * np.array([0.95, 0.75, 0.85])).astype(np.uint8)  # a slide of another colour
    monkeypatch.setattr(torch, "rand", lambda size: torch.ones(size) * 0.999)  # all of the way
    new = colour_transfer(mine, 1.0, Context(other=lambda: other))
    means = [cv2.cvtColor(np.float32(each) / 255, cv2.COLOR_RGB2LAB).mean((0, 1)) for each in (mine, other, new)]
    assert np.abs(means[0] - means[1]).max() > 8
    assert np.abs(means[2] - means[1]).max() < 2  # but for what a byte cannot hold
    assert np.corrcoef(new[..., 1].ravel(), mine[..., 1].ravel())[0, 1] > 0.95
    flat = np.full((40, 40, 3), 230, np.uint8)
    spread = colour_transfer(flat, 1.0, Context(other=lambda: other)).std((0, 1))
    assert spread.max() == 0  # nothing is made up where there is nothing


def test_a_slow_average_forgets_the_weights_it_began_with(run):
    """In few steps 0.9999 of random weights would be left, and the averaged network would know nothing."""
    plain, averaged = (
        run(name, optimizer=dict(optimizer), schedule={"epochs": 4}).history
        for name, optimizer in (("plain", {}), ("averaged", {"ema_decay": 0.9999}))
    )
    assert averaged[-1]["val_loss"] < averaged[0]["val_loss"]
    assert averaged[-1]["val_loss"] < plain[0]["val_loss"]


def test_a_batch_in_parts_is_a_batch(run):
    """Gradients of parts add up to the batch's: without batch norm the weights are the same."""
    whole = run("one", model=PARTED, optimizer=PLAIN, schedule={"epochs": 1}).model
    parts = run("two", model=PARTED, optimizer=PLAIN, schedule={"epochs": 1, "accumulate": 4}).model
    assert same(whole, parts)


def test_l2_shrinks_weights_and_not_biases(run):
    def size(fitted):
        return {key: value.detach().square().sum().item() for key, value in fitted.model.named_parameters()}

    plain = size(run("plain", optimizer={**PLAIN, "lr": 0.01}))
    small = size(run("small", optimizer={**PLAIN, "lr": 0.01, "l2": 0.5}))
    convolutions = [key for key in plain if key.endswith("conv1.weight")]
    assert convolutions
    assert all(small[key] < 0.9 * plain[key] for key in convolutions)


def test_the_mean_of_several_runs(run, arrays, split):
    """Weights are means; batch norm's statistics are looked at again, those of the mean's own activations."""
    parts = {"schedule": {"epochs": 1, "runs": 2, "batch_size": 16, "precision": "fp32"}}
    found = [run(f"run{number}", schedule={**parts["schedule"], "runs": 1, "run": number}) for number in range(2)]
    made = average(recipe(**parts), arrays, split, found, torch.device("cpu"))
    one, other = (weights(fitted.model) for fitted in found)
    mean = weights(made.model)
    for key, value in mean.items():
        if "running" in key:
            assert not torch.equal(value, (one[key] + other[key]) / 2)
        elif "num_batches" not in key:
            torch.testing.assert_close(value, (one[key] + other[key]) / 2)
    assert [entry["run"] for entry in made.history] == [1, 2]
    assert not made.model.training
    assert all(torch.equal(mean[key], value) for key, value in weights(
        average(recipe(**parts), arrays, split, found, torch.device("cpu")).model
    ).items())  # fmt: skip


def test_another_run_of_one_recipe_ends_in_other_weights(run):
    first, again, other = (
        weights(run(name, schedule={"epochs": 1, "run": number}).model)
        for name, number in (("first", 0), ("again", 0), ("other", 1))
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if key.endswith(".weight"))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_cells_may_keep_their_surroundings(split, share):
    """About that share of a training epoch, the same ones whenever it is gone over again; none where it is judged."""
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


def test_stages_freeze_and_unfreeze(run):
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


def test_a_part_that_is_not_there_is_named(run):
    with pytest.raises(FitError, match=r"no part 'layer9'. It has: conv1"):
        run(model=HEAD, stages=[{"epochs": 1, "train": ["layer9"]}])


def test_frozen_parts_keep_their_batch_norm():
    model = build_model(recipe(model=HEAD).network, 4)
    unfreeze(model, "head")
    set_training_mode(model)
    assert not any(module.training for module in model.backbone.modules())
    assert model.head.training
    unfreeze(model, "all")
    set_training_mode(model)
    assert all(module.training for module in model.modules())


def test_kept_features_give_what_the_ordinary_way_gives(run, tmp_path):
    """Without random changes both ways see the same pictures: the same head comes out, but for rounding."""
    still = {"horizontal_flip": False, "rotation": 0}
    stages = [{"epochs": 4, "train": "head"}]
    kept = run("kept", model=HEAD, stages=stages, augment=still)
    ordinary = run("ordinary", model=HEAD, stages=stages, augment=still, schedule={"cache_features": False})
    assert list((tmp_path / "cache" / "features").iterdir())
    for one, two in zip(kept.history, ordinary.history, strict=True):
        assert one["val_loss"] == pytest.approx(two["val_loss"], abs=0.01)
        assert one["train_loss"] == pytest.approx(two["train_loss"], abs=0.01)


def test_kept_features_are_found_again_by_another_head(run, tmp_path):
    stages = [{"epochs": 2, "train": "head"}]
    run("one", model=HEAD, stages=stages)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "features").rglob("*")}
    assert sum(path.name.startswith("view") for path in made) == Schedule().views
    run("two", model={**HEAD, "head": ["gap", "dropout 0.5"]}, stages=stages)
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "features").rglob("*")}
    run("three", model=HEAD, stages=stages, augment={"zoom": 0.1})
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2


def test_what_is_trained_on_is_what_the_entry_will_see(arrays):
    """But for random changes, of which there are none here."""
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
def test_pictures_lie_in_memory_as_the_recipe_says(run, last):
    seen = []

    def watched(*args):
        model = build_model(*args)
        model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].is_contiguous()))
        return model

    run(schedule={"epochs": 1, "channels_last": last}, build=watched)
    assert seen
    assert all(seen) != last


def test_opencv_used_before_does_not_stop_the_workers(run):
    """An audit uses OpenCV's threads; the worker processes that are forked afterwards must not wait for them."""
    cv2.setNumThreads(4)
    picture = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    cv2.GaussianBlur(cv2.resize(picture, (3000, 3000)), (0, 0), 5)
    assert run(schedule={"epochs": 1}).images == 96


def test_stages_grow_the_pictures(run):
    stages = [{"epochs": 1, "input_size": [32, 32]}, {"epochs": 1}]
    assert [entry["stage"] for entry in run(stages=stages).history] == [1, 2]


def test_an_epoch_is_judged_at_the_size_it_was_trained_at(run, arrays, split):
    fitted = run(stages=[{"epochs": 1, "input_size": [32, 32]}])
    prepare = preprocessor({**pretrained_cfg(recipe().network), "input_size": [3, 32, 32]})
    rows = split.rows["val"]
    with torch.inference_mode():
        logits = fitted.model(torch.stack([prepare(Image.fromarray(arrays.pictures[row])) for row in rows]))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(arrays.labels[rows])).item()
    assert loss == pytest.approx(fitted.history[0]["val_loss"], abs=1e-4)


@pytest.mark.parametrize(("small", "best"), [([32, 32], 3), ([SIDE, SIDE], 1)])
def test_epochs_of_another_size_are_not_compared(run, small, best):
    """What was best on smaller pictures is not the entry's network; it begins the next stage."""
    scores = iter([Scores(0.1, 0.9, 0.9), Scores(0.2, 0.8, 0.8), Scores(0.5, 0.5, 0.5)])
    stages = [{"epochs": 2, "input_size": small}, {"epochs": 1}]
    assert run(stages=stages, evaluate=lambda _: next(scores)).best_epoch == best


@pytest.mark.parametrize("rate", ["constant", "cosine", "one_cycle"])
def test_learning_rates(rate):
    course = learning_rates(Schedule(rate=rate, warmup_epochs=1), 0.1, 5, 10)
    assert course.shape == (50,)
    assert course.max() == pytest.approx(0.1, rel=0.05)
    assert (np.diff(course[:11]) > 0).all() or rate == "one_cycle"
    assert (course[-1] < 0.01) == (rate != "constant")
    assert (course >= 0).all()


def history(*losses):
    return [{"val_loss": loss, "val_accuracy": 1 - loss} for loss in losses]


def test_a_plateau_lowers_the_rate_and_stopping_waits_its_patience():
    schedule = Schedule(rate="plateau", plateau_factor=0.1, plateau_patience=1, stop_patience=3)
    assert history_scale(schedule, history(0.5, 0.4, 0.3)) == 1
    assert history_scale(schedule, history(0.5, 0.5, 0.5)) == pytest.approx(0.1)
    assert not should_stop(schedule, history(0.5, 0.4, 0.41, 0.41))
    assert should_stop(schedule, history(0.5, 0.4, 0.41, 0.41, 0.41))
    other = schedule.model_copy(update={"stop_metric": "val_accuracy"})
    assert should_stop(other, history(0.5, 0.4, 0.41, 0.41, 0.41))


def test_it_stops_early_and_keeps_the_best(run):
    fitted = run(
        optimizer={"name": "momentum", "momentum": 0.0, "lr": 1e-9}, schedule={"epochs": 9, "stop_patience": 2}
    )
    assert len(fitted.history) < 9
    best = min(fitted.history, key=lambda entry: entry["val_loss"])
    assert fitted.best_epoch == best["epoch"]


class Short:
    """A memory that holds so many pictures and no more."""

    def __init__(self, model, room):
        self.forward, self.room = model.forward, room

    def __call__(self, batch):
        if torch.is_grad_enabled() and len(batch) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.forward(batch)


def with_memory_for(room):
    """A builder of networks that run out of memory with more than `room` pictures."""

    def build(model, classes, start=None):
        network = build_model(model, classes)
        network.forward = Short(network, room)
        return network

    return build


def test_too_little_memory_halves_what_is_run_at_a_time(run, capsys):
    whole = run("enough", model=PARTED, optimizer=PLAIN, schedule={"epochs": 1}).model
    found = run("short", model=PARTED, optimizer=PLAIN, schedule={"epochs": 1}, build=with_memory_for(5)).model
    said = capsys.readouterr().err
    assert "continuing with 8 pictures at a time, 2 parts per batch" in said
    assert "continuing with 4 pictures at a time, 4 parts per batch" in said
    assert said.count("Out of memory") == 2
    assert same(whole, found)


def test_no_memory_at_all_ends_in_a_sentence(run):
    with pytest.raises(FitError, match="not enough memory for 2 pictures at a time"):
        run(build=with_memory_for(1))


def test_other_errors_are_not_taken_for_a_lack_of_memory(run):
    def build(model, classes, start=None):
        network = build_model(model, classes)
        network.forward = lambda batch: (_ for _ in ()).throw(RuntimeError("something else"))
        return network

    with pytest.raises(RuntimeError, match="something else"):
        run(build=build)


def test_a_loss_that_is_no_number_leaves_a_usable_state(run):
    """The best epoch before it can still be made an entry."""
    ruin = {"after": 2}

    def poison(entry):
        if entry["epoch"] == ruin["after"]:
            raise KeyboardInterrupt  # as if the process had ended here

    with pytest.raises(KeyboardInterrupt):
        run(schedule={"epochs": 4}, after_epoch=poison)
    fitted = run(schedule={"epochs": 4}, finish=True)
    assert len(fitted.history) == 2
    assert fitted.best_epoch in (1, 2)


def test_nothing_can_be_finished_before_an_epoch_is(run):
    with pytest.raises(ValueError, match="cannot be continued"):
        run(finish=True)


def test_every_stage_is_gone_on_with(run):
    """Stopped after each epoch in turn, stages of frozen and unfrozen parts included: the same weights."""
    parts = {
        "model": HEAD,
        "stages": [{"epochs": 2, "train": "head"}, {"epochs": 2, "train": ["layer4"]}, {"epochs": 1}],
        "optimizer": {"ema_decay": 0.9, "lr": 2e-3},
        "schedule": {"rate": "plateau", "plateau_patience": 0, "batch_size": 16, "precision": "bf16"},
    }
    whole = run("whole", **parts)

    def stop(entry):
        raise KeyboardInterrupt

    for epoch in range(5):
        with pytest.raises(KeyboardInterrupt):
            run("parts", **parts, resume=epoch > 0, after_epoch=stop)
    resumed = run("parts", **parts, resume=True)
    assert resumed.history == whole.history
    first, second = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("step", [1, 6, 7, 12])
def test_a_run_stopped_after_any_step_is_gone_on_with(run, step):
    """The last step of an epoch included: what follows is the same, the history's learning rate as well."""
    parts = {"schedule": {"rate": "cosine", "epochs": 3, "batch_size": 16}}
    whole = run("whole", **parts)
    seen = itertools.count(1)
    with pytest.raises(TrainingStopped):
        run("parts", **parts, interrupts=lambda: nullcontext(lambda: next(seen) == step))
    resumed = run("parts", **parts, resume=True)
    assert resumed.history == whole.history
    first, second = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


COMMAND = ["-m", "training", "train", "starter", "--out", "zoo/mine", "--device", "cpu"]
CHANGES = ["data.split=stratified", "model.weights=none", "model.architecture=test_resnet", "model.input_size=[48, 48]"]
CHANGES += ["stages.0.epochs=2", "stages.1.epochs=12", "schedule.batch_size=16"]
CHANGES += ["stages.1.lr=4e-3", "optimizer.clip_norm=5.0"]


def command(data, *more):
    return [*COMMAND, "--data", str(data), *(word for change in CHANGES for word in ("--set", change)), *more]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    draw_folder(tmp_path / "cells", 24)
    return tmp_path


def start(place, arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False, **options,
    )  # fmt: skip


def test_a_full_disk_ends_in_a_sentence_and_can_be_gone_on_with(place):
    """A limit on the size of files stands for the disk's end: the kernel refuses the write."""
    assert main(command("cells")[2:]) == 0
    whole = read_entry(place / "zoo" / "mine")
    full = (whole.folder / "history.json").read_text()
    data = draw_folder(place / "cells", 24)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))

    refused = start(place, command(data, "--restart"), preexec_fn=limit)
    assert refused.returncode == 1
    assert "the disk is full" in refused.stderr, refused.stderr[-2000:]
    assert "--resume" in refused.stderr
    assert not list((place / "runs" / "mine").glob(".*"))  # nothing half-written
    going = start(place, command(data, "--resume"))
    assert going.returncode == 0, going.stderr[-2000:]
    assert (place / "zoo" / "mine" / "history.json").read_text() == full


def test_two_processes_give_what_one_gives(place):
    one = start(place, command("cells"))
    assert one.returncode == 0, one.stderr[-2000:]
    (place / "zoo" / "mine").rename(place / "zoo" / "alone")
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    two = start(place, [*launch, *command("cells", "--json")])
    assert two.returncode == 0, two.stderr[-3000:]
    assert [path.name for path in sorted((place / "zoo").iterdir())] == ["alone", "mine"]
    told = json.loads([line for line in two.stdout.splitlines() if line.startswith("{")][-1])
    assert told["id"] == "mine"
    alone, both = read_entry(place / "zoo" / "alone"), read_entry(place / "zoo" / "mine")
    assert both.config.zoo.training["processes"] == 2
    files = [set(read_predictions(entry, "my-cells-test")["file"]) for entry in (alone, both)]
    assert files[0] == files[1]
    histories = [json.loads((entry.folder / "history.json").read_text()) for entry in (alone, both)]
    # the frozen stage has no batch norm of its own and no dropout that matters: nearly the same; then less so
    for first, second in zip(*(found[:2] for found in histories), strict=True):
        assert first["val_loss"] == pytest.approx(second["val_loss"], abs=0.05)
    accuracies = [entry.evaluation.benchmarks["my-cells-test"].metrics["accuracy"].value for entry in (alone, both)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.25)
    assert min(accuracies) > 0.5


def test_epochs_are_reported_to_tensorboard(place):
    """Those of several runs after each other."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    several = ["--set", "schedule.runs=2", "--set", "stages=[{epochs=2}]"]
    assert main([*command("cells")[2:], *several, "--log", "tensorboard"]) == 0
    (written,) = {path.parent for path in (place / "runs" / "logs" / "mine").rglob("events.out.tfevents.*")}
    told = accumulator.EventAccumulator(str(written)).Reload()
    assert [event.step for event in told.Scalars("val_loss")] == [1, 2, 3, 4]


def test_a_tracker_that_is_not_installed_is_named(place, capsys):
    assert main([*command("cells")[2:], "--log", "clearml"]) == 1
    assert "pip install clearml" in capsys.readouterr().err
