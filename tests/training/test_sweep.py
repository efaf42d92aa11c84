"""`python -m training sweep`: all trials of a grid, by any number of workers, resumed after an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
import pytest

from tests.making import draw_folder
from training import sweep
from training.cli import main
from training.recipe import load_recipe

ROOT = Path(__file__).parents[2]
SPACE = """
method = "{method}"
trials = {trials}
pruning = "{pruning}"
metric = "val_loss"
[set]
"schedule.batch_size" = 16
"schedule.precision" = "fp32"
"model.architecture" = "test_resnet"
"model.weights" = "none"
"model.input_size" = [48, 48]
"data.split" = "stratified"
"stages.0.epochs" = 1
"stages.1.epochs" = 2
[keys."optimizer.name"]
values = ["adamw", "lion"]
[keys."stages.1.lr"]
values = {rates}
"""
RATES = [0.001, 0.004]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    draw_folder(tmp_path / "cells", 12)
    return tmp_path


def space(place, method="grid", trials=4, pruning="none", rates=RATES):
    (place / "space.toml").write_text(SPACE.format(method=method, trials=trials, pruning=pruning, rates=rates))


ARGUMENTS = ["sweep", "starter", "--space", "space.toml", "--storage", "sqlite:///sweep.db", "--data", "cells"]


def test_the_published_grid_is_included():
    grid = sweep.read_space(Path("cnn5_224"))
    assert grid.size == 8
    sweep.check_keys(grid, partial(load_recipe, "cnn5_224"))
    chosen = {"optimizer.lr": 0.01, "model.args.drop_rate": 0.5, "optimizer.l2": 0.001}
    recipe = load_recipe("cnn5_224", sweep.changes_of(grid, chosen), published=True)
    assert recipe.data.split == "first"
    assert recipe.optimizer.l2 == 0.001
    assert recipe.network.args["drop_rate"] == 0.5
    for path in sweep.FOLDER.glob("*.toml"):
        assert sweep.read_space(path).size > 1


def test_a_grid_is_searched_completely_and_only_once(place, capsys):
    space(place)
    assert main([*ARGUMENTS, "--json"]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out[captured.out.index("[{") :])
    assert {(row["optimizer.name"], row["stages.1.lr"]) for row in rows} == {
        (name, lr) for name in ("adamw", "lion") for lr in (0.001, 0.004)
    }
    assert all(row["state"] == "complete" and row["epochs"] == 3 for row in rows)
    best = min(rows, key=lambda row: row["value"])
    told = [f"""--set 'optimizer.name="{best["optimizer.name"]}"'""", f"--set stages.1.lr={best['stages.1.lr']}"]
    assert all(text in captured.err for text in told)
    table = pd.read_csv(place / "runs/sweeps/starter/trials.csv")
    assert table["value"].tolist() == pytest.approx(sorted(row["value"] for row in rows))
    assert "parcoords" in (place / "runs/sweeps/starter/trials.html").read_text()
    assert not (place / "runs/sweeps/starter/work").exists()
    assert main(ARGUMENTS) == 0  # nothing is left to do
    assert len(pd.read_csv(place / "runs/sweeps/starter/trials.csv")) == 4


@pytest.mark.parametrize(("method", "pruning"), [("random", "median"), ("tpe", "hyperband")])
def test_random_search_and_tpe_with_pruning(place, method, pruning):
    space(place, method, 5, pruning)
    assert main(ARGUMENTS) == 0
    table = pd.read_csv(place / "runs/sweeps/starter/trials.csv")
    assert len(table) == 5
    assert set(table["state"]) <= {"complete", "pruned"}


def worker(place):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "training", *ARGUMENTS],
        cwd=place, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_a_killed_sweep_is_resumed(place, monkeypatch):
    rates = [0.001, 0.002, 0.003, 0.004, 0.005, 0.006]
    space(place, rates=rates)
    run = worker(place)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and run.poll() is None:
        if (place / "sweep.db").exists() and _states(place).count("COMPLETE") >= 1:
            break
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    states = _states(place)
    assert 1 <= states.count("COMPLETE") < 12, states
    # the worker is dead: wait a second for its sign of life, not two minutes
    monkeypatch.setattr(sweep, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(sweep, "GRACE_SECONDS", 1)
    time.sleep(1.5)
    assert main(ARGUMENTS) == 0
    table = pd.read_csv(place / "runs/sweeps/starter/trials.csv")
    done = table[table["state"] == "complete"]
    assert len(done.drop_duplicates(["optimizer.name", "stages.1.lr"])) == 12


def _states(place):
    try:
        study = optuna.load_study(study_name="starter", storage=f"sqlite:///{place}/sweep.db")
    except Exception:
        return []
    return [trial.state.name for trial in study.get_trials()]


def test_two_workers_share_the_trials(place):
    space(place)
    runs = [worker(place) for _ in range(2)]
    said = [run.communicate(timeout=240)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(said)
    table = pd.read_csv(place / "runs/sweeps/starter/trials.csv")
    done = table[table["state"] == "complete"].drop_duplicates(["optimizer.name", "stages.1.lr"])
    assert len(done) == 4
    assert all("trial" in text for text in said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('method = "grid"\n[keys."optimizer.lr"]\nlow = 0.1\nhigh = 1', "a grid needs values"),
        ('[keys."optimizer.lrr"]\nvalues = [1]', "unknown key optimizer.lrr"),
        ('[keys."optimizer.lr"]\nvalues = [1]\nlow = 0.1\nhigh = 1', "give values"),
        ("keys = 3", "keys"),
        ("nonsense", "not valid TOML"),
    ],
)
def test_an_invalid_space_is_refused_with_the_place(place, capsys, text, said):
    (place / "space.toml").write_text(text)
    assert main(ARGUMENTS) == 2
    assert said in capsys.readouterr().err


def test_missing_space_bad_storage_and_ensembles_are_refused(place, capsys):
    space(place)
    assert main([*ARGUMENTS[:2], "--space", "nowhere.toml", *ARGUMENTS[4:]]) == 2
    assert "There is no space nowhere.toml. Shipped: cnn5_224" in capsys.readouterr().err
    assert main([*ARGUMENTS[:4], "--storage", "nonsense", *ARGUMENTS[6:]]) == 2
    assert "cannot be opened" in capsys.readouterr().err
    assert main(["sweep", "ensemble", *ARGUMENTS[2:]]) == 2
