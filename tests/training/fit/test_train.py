"""`python -m training train`: complete entries, interruptions, and refusals."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.making import LABELS, draw_cell, draw_folder, draw_smears
from training.cli import main
from zoo.benchmarks import scoring
from zoo.entry import read_entry, read_history, read_predictions
from zoo.scores import metrics
from zoo.scores.calibration import scaling_of
from zoo.scores.predictions import confusion, label_arrays
from zoo.serving.batch import classify_files
from zoo.serving.runtime import Runtime
from zoo.sources.runs import list_runs

ROOT = Path(__file__).parents[3]
RECIPE = """
id = "drawn"
title = "Drawn cells"
summary = "Cells drawn by a test."
task = "test"
seed = 3
[data]
name = "drawn"
credit = "drawn by a test"
val_fraction = 0.2
test_fraction = 0.2
packed = [48, 48]
labels = { eosinophil = "eosinophil", lymphocyte = "lymphocyte", monocyte = "monocyte", neutrophil = "neutrophil" }
[model]
architecture = "test_resnet"
input_size = [48, 48]
args = { drop_rate = 0.1 }
[optimizer]
name = "adamw"
lr = 4e-3
clip_norm = 5.0
ema_decay = 0.8
label_smoothing = 0.05
[schedule]
epochs = 6
batch_size = 16
precision = "fp32"
rate = "cosine"
warmup_epochs = 0.5
[augment]
horizontal_flip = true
rotation = 180
zoom = 0.1
brightness = 0.1
noise = 0.01
mixup = 0.2
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = draw_folder(tmp_path_factory.mktemp("data"), 40)
    # one picture twice, and one that cannot be read
    draw_cell("monocyte", 0).save(folder / "monocyte" / "copy.png")
    (folder / "monocyte" / "broken.png").write_text("no picture")
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "drawn.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path


def train(place: Path, data: Path, *more: str) -> int:
    return main(["train", "drawn.toml", "--data", str(data), "--out", "zoo/drawn", *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data: Path) -> Path:
    """A run without interruption, with which others are compared."""
    place = tmp_path_factory.mktemp("whole")
    (place / "drawn.toml").write_text(RECIPE)
    before = Path.cwd()
    os.chdir(place)
    try:
        assert train(place, data) == 0
    finally:
        os.chdir(before)
    return place / "zoo" / "drawn"


def test_writes_a_complete_entry_that_learnt_something(trained):
    entry = read_entry(trained)
    assert entry.usable
    files = {p.relative_to(trained).as_posix() for p in trained.rglob("*") if p.is_file()}
    assert files == {
        "README.md",
        "config.json",
        "evaluation.json",
        "history.json",
        "model.safetensors",
        "predictions/drawn-test.parquet",
        "predictions/drawn-validation.parquet",
    }
    assert [p.name for p in trained.parent.iterdir()] == ["drawn"]
    history = read_history(entry)
    assert len(history) == 6
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert entry.evaluation.benchmarks["drawn-test"].metrics["accuracy"].value > 0.5
    assert (trained / "model.safetensors").stat().st_size < 2.2 * entry.weights.parameters + 100_000


def test_every_figure_recomputes_from_the_predictions(trained):
    entry = read_entry(trained)
    card = (trained / "README.md").read_text()
    for name, benchmark in entry.evaluation.benchmarks.items():
        table = read_predictions(entry, name)
        truth, shares = label_arrays(table, LABELS)
        assert confusion(truth, shares.argmax(1), 4).tolist() == benchmark.confusion
        found = metrics.as_dict(scoring.intervals(scoring.score(table, LABELS, scaling_of(entry))))
        assert found == {metric: value.model_dump() for metric, value in benchmark.metrics.items()}
        if benchmark.role == "test":
            value, low, high = (found["accuracy"][key] for key in ("value", "low", "high"))
            assert f"| {value:.4f} ({low:.4f} to {high:.4f}) |" in card
            assert f"value: {round(found['accuracy']['value'], 4)}" in card


def test_stored_predictions_equal_the_entrys_answers(trained, data):
    entry = read_entry(trained)
    table = read_predictions(entry, "drawn-test")
    with Runtime("cpu") as runtime:
        results = list(classify_files(runtime, entry, ((name, data / name) for name in table["file"])))
    found = np.array([list(result.prediction.probabilities.values()) for result in results])
    # whether bf16 is faster is measured anew each time; it moves clear answers by less than they are unclear
    assert np.allclose(found, table[LABELS].to_numpy(), atol=2e-2)


def test_plain_timm_gives_the_same_calibrated_probabilities(trained, data):
    model = timm.create_model(f"local-dir:{trained}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    entry = read_entry(trained)
    assert entry.config.zoo.fitted_temperature != 1.0
    with Runtime("cpu") as runtime, torch.no_grad():
        for label in LABELS:
            cell = draw_cell(label, 7)
            theirs = model(transform(cell)[None]).softmax(1)[0].tolist()
            assert list(runtime.classify(entry, cell).probabilities.values()) == pytest.approx(theirs, abs=1e-2)
    assert model.pretrained_cfg["label_names"] == tuple(LABELS) or list(model.pretrained_cfg["label_names"]) == LABELS


def test_the_split_is_leak_free(trained):
    entry = read_entry(trained)
    test, val = (set(read_predictions(entry, f"drawn-{side}")["cell"]) for side in ("test", "validation"))
    assert test.isdisjoint(val)
    assert len(test) > 20


def same_weights(one: Path, two: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def start(place: Path, data: Path, *more: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "training",
        "train",
        "drawn.toml",
        "--data",
        str(data),
        "--out",
        "zoo/drawn",
        *more,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_epoch(place: Path, epoch: int, run: subprocess.Popen, part: str = "") -> None:
    deadline = time.monotonic() + 120
    history = place / "runs" / "drawn" / part / "history.json"
    while time.monotonic() < deadline and run.poll() is None:
        if history.exists() and len(json.loads(history.read_text())) >= epoch:
            return
        time.sleep(0.02)
    raise AssertionError("training did not get that far")


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_resumes_after_it_was_told_to_stop_with_the_same_weights(place, data, trained, told):
    run = start(place, data)
    wait_for_epoch(place, 1, run)
    time.sleep(random.random() / 3)
    os.killpg(run.pid, told)  # as a terminal does at Ctrl-C, and some systems when they end a job
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 130, said
    assert "--resume" in said
    assert not (place / "zoo").exists() or not list((place / "zoo").iterdir())
    assert train(place, data, "--resume") == 0
    assert same_weights(place / "zoo" / "drawn", trained)
    assert not (place / "runs" / "drawn").exists()
    assert (place / "zoo/drawn/history.json").read_text() == (trained / "history.json").read_text()


def test_resumes_after_a_kill_with_the_same_weights(place, data, trained):
    run = start(place, data)
    for epoch in (1, 3):
        wait_for_epoch(place, epoch, run)
        time.sleep(random.random() / 3)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=60)
        run = start(place, data, "--resume")
    assert run.communicate(timeout=120) is not None
    assert run.returncode == 0
    assert same_weights(place / "zoo" / "drawn", trained)


def test_averages_several_runs_also_after_a_kill(place, data, capsys):
    """After a kill in the second run the first is not trained again; the entry names both."""
    changes = [word for change in ("schedule.epochs=2", "schedule.runs=2") for word in ("--set", change)]
    run = start(place, data, *changes)
    wait_for_epoch(place, 1, run, "run-2")
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate(timeout=60)
    assert train(place, data, *changes) == 2
    assert "--resume" in capsys.readouterr().err
    assert [found.name for found in list_runs(place / "runs")] == ["drawn/run-2"]
    shutil.copytree(place / "runs", place / "kept")
    assert train(place, data, "--resume", *changes) == 0
    said = capsys.readouterr()
    assert (said.out + said.err).count("train_loss") <= 1  # the rest of the second
    assert not (place / "runs" / "drawn").exists()
    shutil.move(place / "zoo" / "drawn", place / "resumed")
    assert train(place, data, *changes) == 0
    assert same_weights(place / "zoo" / "drawn", place / "resumed")
    made = read_entry(place / "resumed")
    history = read_history(made)
    assert history["run"].tolist() == [1, 1, 2, 2]
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert "There were 2 runs with different random orders" in (place / "resumed" / "README.md").read_text()
    # a run that was begun may be taken as it is
    shutil.move(place / "kept" / "drawn", place / "runs" / "drawn")
    assert train(place, data, "--finish", *changes) == 0


def test_refuses_to_overwrite_an_unfinished_run(place, data, capsys):
    state = place / "runs" / "drawn" / "checkpoint.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"something")
    assert train(place, data) == 2
    assert "--resume" in capsys.readouterr().err
    assert train(place, data, "--resume") == 1
    assert "Start again with --restart" in capsys.readouterr().err
    assert state.read_bytes() == b"something"


def test_refuses_to_overwrite_an_entry(place, data, capsys):
    (place / "zoo" / "drawn").mkdir(parents=True)
    assert train(place, data) == 2
    assert "already exists" in capsys.readouterr().err


def test_reports_a_loss_that_is_not_a_number(place, data, capsys):
    text = RECIPE.replace("lr = 4e-3", "lr = 1e30").replace("clip_norm = 5.0\n", "").replace('"adamw"', '"sgd"')
    (place / "drawn.toml").write_text(text)
    assert train(place, data) == 1
    assert "no longer a number" in capsys.readouterr().err
    assert not (place / "zoo" / "drawn").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["train", "nope", "--data", ".", "--out", "x"], 2, "There is no recipe"),
        (["train", "drawn.toml", "--data", "nowhere", "--out", "x"], 1, "There is nothing at"),
        (["train", "drawn.toml", "--data", ".", "--out", "bad name"], 2, "is not an entry name"),
        (["train", "drawn.toml", "--data", ".", "--out", "x", "--device", "tpu"], 1, "no device"),
    ],
)
def test_reports_wrong_arguments(place, capsys, arguments, status, said):
    assert main(arguments) == status
    assert said in capsys.readouterr().err


def test_refuses_augmented_data_without_original_frames(place, capsys):
    folders = {label: label.upper() for label in LABELS}
    for part in ("TRAIN", "TEST"):
        draw_folder(place / "dataset2" / part, 4, folders)
    arguments = ["train", "cnn60", "--data", "dataset2", "--out", "x"]
    assert main(arguments) == 1
    assert "--originals" in capsys.readouterr().err


def test_marks_a_random_split_as_leaky_everywhere(place, tmp_path_factory):
    folder = draw_smears(tmp_path_factory.mktemp("copies"), 8)
    for path in sorted(folder.rglob("*.png")):
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path.with_name(f"flipped-{path.name}"))
    short = RECIPE.replace("epochs = 6", "epochs = 1")
    (place / "drawn.toml").write_text(short.replace('name = "drawn"', 'name = "drawn"\nsplit = "random"'))
    assert train(place, folder) == 0
    entry = read_entry(place / "zoo" / "drawn")
    assert set(entry.evaluation.benchmarks) == {"drawn-test-random", "drawn-validation-random"}
    test = entry.evaluation.benchmarks["drawn-test-random"]
    assert test.leaky
    assert test.leak_share > 0.5
    assert "LEAKY" in test.title
    assert "leak" in (entry.folder / "README.md").read_text()
    cells = [set(read_predictions(entry, name)["cell"]) for name in entry.evaluation.benchmarks]
    assert cells[0] & cells[1]


@pytest.mark.parametrize("scheme", ["grouped", "stratified"])
def test_keeps_copies_of_a_cell_on_one_side(place, tmp_path_factory, scheme):
    """The stratified split knows only identical pixels, unless a rule (near duplicates) needs the cells."""
    folder = draw_smears(tmp_path_factory.mktemp("copies"), 8)
    for path in sorted(folder.rglob("*.png")):
        Image.open(path).rotate(90).save(path.with_name(f"turned-{path.name}"))
    short = RECIPE.replace("epochs = 6", "epochs = 1")
    rules = "[clean]\nduplicates = 'near'\n[balance]\nclass_weights = true\n"
    (place / "drawn.toml").write_text(short.replace('name = "drawn"', f'name = "drawn"\nsplit = "{scheme}"') + rules)
    assert train(place, folder) == 0
    entry = read_entry(place / "zoo" / "drawn")
    tables = [read_predictions(entry, name) for name in entry.evaluation.benchmarks]
    assert not set(tables[0]["cell"]) & set(tables[1]["cell"])
    for table in tables:
        assert (table.groupby("cell").size() == 2).all()
        whole = table["file"].str.replace("turned-", "").value_counts()
        assert (whole == 2).all()
    assert not any(benchmark.leaky for benchmark in entry.evaluation.benchmarks.values())
    assert "copy of another picture" in (entry.folder / "README.md").read_text()


def test_a_manifest_decides_the_test_pictures(place, data, capsys):
    split = ["split", str(data), "--scheme", "random", "--fractions", "0.5,0.2,0.3", "--out", "split.json"]
    assert main([*split, "--seed", "5"]) == 0
    rows = json.loads((place / "split.json").read_text())["rows"]
    short = RECIPE.replace("epochs = 6", "epochs = 1")
    (place / "drawn.toml").write_text(short)
    assert train(place, data, "--split", "split.json") == 0
    entry = read_entry(place / "zoo" / "drawn")
    assert "% of test images leak" in (entry.folder / "README.md").read_text()
    tested = set(read_predictions(entry, "drawn-test-random")["file"])
    assert tested == {file for file, _, _, side, _ in rows if side == "test"}
    draw_cell("monocyte", 77).save(data / "monocyte" / "000.png")
    try:
        assert train(place, data, "--split", "split.json", "--restart") == 1
        assert "have changed (monocyte/000.png)" in capsys.readouterr().err
    finally:
        draw_cell("monocyte", 0).save(data / "monocyte" / "000.png")


def test_a_recipe_may_start_with_another_entrys_weights(place, data, trained, monkeypatch, capsys):
    """Refuses weights that were trained on other pictures, or do not fit."""
    monkeypatch.setenv("HEMAZOO_ZOO", str(trained.parent))

    def further(name: str, *changes: str) -> int:
        given = [word for change in ("schedule.epochs=1", "optimizer.lr=1e-9", *changes) for word in ("--set", change)]
        return main(["train", "drawn.toml", "--data", str(data), "--out", f"zoo/{name}", "--device", "cpu", *given])

    assert further("further", "model.weights=drawn") == 0
    first, then = (
        read_predictions(read_entry(folder), "drawn-test") for folder in (trained, place / "zoo" / "further")
    )
    same = first[LABELS].to_numpy().argmax(1) == then[LABELS].to_numpy().argmax(1)
    assert first["file"].equals(then["file"]) and same.mean() > 0.7  # batch norm goes on learning
    assert "the weights of drawn" in (place / "zoo" / "further" / "README.md").read_text()
    assert further("other", "model.weights=drawn", "seed=4") == 1
    assert "trained on another split" in capsys.readouterr().err
    with monkeypatch.context() as before:
        before.setattr("training.run.load_training_data", None)  # said before a picture is read
        assert further("gone", "model.weights=nobody") == 1
    said = capsys.readouterr().err
    assert "There is no model 'nobody'" in said and f"Train it first, with --out {place / 'zoo' / 'nobody'}." in said
    assert further("unfit", "model.weights=drawn", "model.architecture=test_efficientnet") == 1
    assert "do not fit test_efficientnet" in capsys.readouterr().err
