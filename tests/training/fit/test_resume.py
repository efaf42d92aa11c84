"""Runs that are interrupted and resumed, and what the command reports."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tests.making import draw_folder
from tests.training.fit.drawn import HEAD
from training.cli import main
from training.fit.networks.network import build_model
from training.fit.stopping import TrainingStopped
from zoo.entry import read_entry, read_predictions


def test_an_interrupted_run_can_be_finished(run):
    """The best epoch so far can be made an entry."""
    ruin = {"after": 2}

    def poison(entry):
        if entry["epoch"] == ruin["after"]:
            raise KeyboardInterrupt  # as if the process had ended here

    with pytest.raises(KeyboardInterrupt):
        run(schedule={"epochs": 4}, after_epoch=poison)
    fitted = run(schedule={"epochs": 4}, finish=True)
    assert len(fitted.history) == 2
    assert fitted.best_epoch in (1, 2)


def test_refuses_to_finish_before_the_first_epoch(run):
    with pytest.raises(ValueError, match="cannot be continued"):
        run(finish=True)


def test_resumes_in_every_stage(run):
    """Stopped after each epoch in turn, in frozen and unfrozen stages: the weights are the same."""
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


@pytest.mark.parametrize("step", [1, 6, 12])
def test_resumes_after_any_step(run, step):
    """Also after the last step of an epoch; the history is the same, with its learning rates."""
    parts = {"schedule": {"rate": "cosine", "epochs": 3, "batch_size": 16, "precision": "fp32"}}
    parts["optimizer"] = {"clip_norm": 5.0}
    whole = run("whole", **parts)
    seen = itertools.count(1)
    with pytest.raises(TrainingStopped):
        run("parts", **parts, interrupts=lambda: nullcontext(lambda: next(seen) == step))
    resumed = run("parts", **parts, resume=True)
    assert resumed.history == whole.history
    assert whole.history[-1]["train_loss"] < 0.8 * whole.history[0]["train_loss"]
    first, second = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


ROOT = Path(__file__).parents[3]
COMMAND = ["-m", "training", "train", "starter", "--out", "zoo/mine", "--device", "cpu"]
CHANGES = ["data.split=stratified", "model.weights=none", "model.architecture=test_resnet", "model.input_size=[48, 48]"]
CHANGES += ["stages.0.epochs=2", "stages.1.epochs=12", "schedule.batch_size=16"]
CHANGES += ["stages.1.lr=4e-3", "optimizer.clip_norm=5.0"]
CHANGES += ["schedule.precision=fp32"]  # runs are compared: a trial of the time may choose another one each time


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


def test_reports_a_full_disk_and_starts_again(place):
    """A limit on the size of files stands for a full disk: the kernel refuses the write."""
    assert main(command("cells")[2:]) == 0
    whole = read_entry(place / "zoo" / "mine")
    full = (whole.folder / "history.json").read_text()
    data = draw_folder(place / "cells", 24)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))

    refused = start(place, command(data, "--restart"), preexec_fn=limit)
    assert refused.returncode == 1
    assert "the disk is full" in refused.stderr, refused.stderr[-2000:]
    assert "Nothing was saved so far" in refused.stderr and "give the same command again" in refused.stderr
    assert not list((place / "runs" / "mine").glob(".*"))  # nothing half-written
    going = start(place, command(data, "--restart"))
    assert going.returncode == 0, going.stderr[-2000:]
    assert (place / "zoo" / "mine" / "history.json").read_text() == full


def test_two_processes_train_like_one(place):
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
    files = [set(read_predictions(entry, "cells-test")["file"]) for entry in (alone, both)]
    assert files[0] == files[1]
    histories = [json.loads((entry.folder / "history.json").read_text()) for entry in (alone, both)]
    # the frozen stage has no batch norm of its own and no dropout that matters: nearly the same; then less so
    for first, second in zip(*(found[:2] for found in histories), strict=True):
        assert first["val_loss"] == pytest.approx(second["val_loss"], abs=0.05)
    accuracies = [entry.evaluation.benchmarks["cells-test"].metrics["accuracy"].value for entry in (alone, both)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.25)
    assert min(accuracies) > 0.5


def test_reports_epochs_to_tensorboard(place):
    """Epochs of several runs follow each other."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    several = ["--set", "schedule.runs=2", "--set", "stages=[{epochs=2}]"]
    assert main([*command("cells")[2:], *several, "--log", "tensorboard"]) == 0
    (written,) = {path.parent for path in (place / "runs" / "logs" / "mine").rglob("events.out.tfevents.*")}
    told = accumulator.EventAccumulator(str(written)).Reload()
    assert [event.step for event in told.Scalars("val_loss")] == [1, 2, 3, 4]


def test_names_a_tracker_that_is_not_installed(place, capsys):
    assert main([*command("cells")[2:], "--log", "clearml"]) == 1
    assert "pip install clearml" in capsys.readouterr().err


def test_a_step_that_takes_too_long_is_given_up(run, tmp_path):
    """The state from before it is kept: resumed, the training ends in the same weights."""
    whole = run("whole")
    steps = itertools.count(1)

    def slow(*args):
        model = build_model(*args)

        def wait(module, inputs):
            if module.training and next(steps) == 9:
                os.kill(os.getpid(), signal.SIGINT)
                threading.Event().wait(60)

        model.register_forward_pre_hook(wait)
        return model

    with pytest.raises(TrainingStopped, match="within a step"):
        run("parts", build=slow)
    resumed = run("parts", resume=True)
    assert resumed.history == whole.history
    first, second = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
