"""`python -m zoo` and `hemazoo`, as users and scripts call them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.making import LABELS, draw_cell, draw_folder
from tests.zoo.imaging.test_decode import png_header
from zoo.cli import main
from zoo.version import __version__

ROOT = Path(__file__).parents[3]
MODEL = "tiny-test-efficientnet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "pictures", 3)


@pytest.fixture
def run(zoo_environment, capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(part) for part in arguments])
        except SystemExit as error:
            status = error.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_list(run):
    status, out, _ = run("list", "--json")
    assert status == 0
    found = {entry["id"]: entry for entry in json.loads(out)}
    keys = [
        "id",
        "title",
        "task",
        "labels",
        "architecture",
        "parameters",
        "weights",
        "members",
        "status",
        "reason",
        "benchmarks",
        "speed",
    ]
    assert list(found[MODEL]) == keys
    assert found[MODEL]["labels"] == LABELS
    assert found[MODEL]["status"] == "ok"
    assert found["tiny-cnn60"]["parameters"] == 306_948
    assert set(found[MODEL]["benchmarks"]["drawn-test"]["accuracy"]) == {"value", "low", "high"}
    status, out, _ = run("list")
    assert status == 0
    assert "tiny-cnn60" in out


def test_classify_prints_one_object_per_line(run, folder):
    status, out, _err = run("classify", folder, "--model", MODEL, "--json")
    assert status == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"] for line in lines] == [str(p) for p in sorted(folder.rglob("*.png"))]
    for line in lines:
        assert list(line) == [
            "file",
            "page",
            "cell",
            "cells",
            "box",
            "label",
            "confidence",
            "confidence_elsewhere",
            "sample",
            "probabilities",
            "network",
            "distance",
            "familiarity",
            "warning",
            "decision",
            "reasons",
            "notes",
            "backend",
        ]
        assert line["decision"] == ("for review" if line["reasons"] else "accepted")
        assert line["confidence"] == max(line["probabilities"].values()) == line["probabilities"][line["label"]]
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_batch_size_does_not_change_answers(run, folder):
    answers = []
    for size in (1, 5, 64):
        _, out, _ = run("classify", folder, "--model", MODEL, "--json", "--batch-size", size, "--precision", "fp32")
        answers.append([list(json.loads(line)["probabilities"].values()) for line in out.splitlines()])
    assert np.allclose(answers[0], answers[1], atol=1e-5)
    assert np.allclose(answers[0], answers[2], atol=1e-5)


def test_unreadable_files_are_named_and_the_others_classified(run, tmp_path):
    place = tmp_path / "mixed"
    place.mkdir()
    draw_cell("monocyte").save(place / "cut.jpg")
    (place / "cut.jpg").write_bytes((place / "cut.jpg").read_bytes()[:800])
    (place / "text.png").write_text("no picture")
    (place / "bomb.png").write_bytes(png_header(30_000, 30_000))
    tifffile.imwrite(place / "sixteen.tif", np.asarray(draw_cell("monocyte"), np.uint16) * 257, photometric="rgb")
    (place / "notes.txt").write_text("not looked at")
    status, out, err = run("classify", place, "--model", MODEL, "--json", "--csv", tmp_path / "out.csv")
    assert status == 1
    found = {Path(line["file"]).name: line for line in map(json.loads, out.splitlines())}
    assert set(found) == {"cut.jpg", "text.png", "bomb.png", "sixteen.tif"}
    assert [name for name, line in found.items() if "error" in line] == ["bomb.png", "cut.jpg", "text.png"]
    assert list(found["cut.jpg"]) == ["file", "page", "error"]
    assert found["sixteen.tif"]["label"] in LABELS
    assert "3 of 4 files" in err
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["file"]).name: bool(row["error"]) for row in rows}["text.png"]
    assert sum(bool(row["label"]) for row in rows) == 1


def test_sixteen_bit_and_eight_bit_give_the_same_class(run, tmp_path):
    cell = draw_cell("eosinophil")
    cell.save(tmp_path / "eight.png")
    tifffile.imwrite(tmp_path / "sixteen.tif", np.asarray(cell, np.uint16) * 257, photometric="rgb")
    _, out, _ = run("classify", tmp_path / "eight.png", tmp_path / "sixteen.tif", "--model", MODEL, "--json")
    eight, sixteen = (json.loads(line)["probabilities"] for line in out.splitlines())
    assert eight == pytest.approx(sixteen, abs=1e-3)


def test_explain_writes_map_and_overlay(run, folder, tmp_path):
    picture = folder / "monocyte" / "000.png"
    out_folder = tmp_path / "new" / "maps"
    status, out, _ = run("explain", picture, "--model", MODEL, "--class", "neutrophil", "--out", out_folder, "--json")
    assert status == 0
    found = json.loads(out)
    assert list(found) == [
        *("file", "label", "notes", "warning", "answer", "network_answer", "sample", "backend"),
        *("map", "overlay", "method"),
    ]
    assert found["label"] == "neutrophil"
    values = np.load(found["map"], allow_pickle=False)
    assert values.dtype == np.float32
    assert values.shape == (96, 96)
    assert 0 <= values.min() <= values.max() <= 1
    with Image.open(found["overlay"]) as drawn:
        assert drawn.size == (96, 96)
    assert sorted(p.name for p in out_folder.iterdir()) == ["000.neutrophil.npy", "000.neutrophil.overlay.png"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["classify", "PICTURE", "--model", "none-such"], 2, "There is no model 'none-such'. Models here:"),
        (["classify", "PICTURE", "--model", MODEL, "--device", "cuda:99"], 2, "There is no device"),
        (["classify", "PICTURE", "--model", MODEL, "--batch-size", "0"], 2, "whole number"),
        (["classify", "PICTURE"], 2, "--model"),
        (["classify", "nowhere.png", "--model", MODEL], 1, "cannot be opened"),
        (["classify", "EMPTY", "--model", MODEL], 1, "no picture"),
        (["explain", "PICTURE", "--model", MODEL, "--class", "unicorn"], 2, "no class 'unicorn'"),
        (["explain", "nowhere.png", "--model", MODEL], 1, "cannot be opened"),
        (["explain", "PICTURE", "--model", MODEL, "--opacity", "7"], 2, "from 0 to 1"),
        (["explain", "PICTURE", "--model", MODEL, "--out", "PICTURE/below"], 1, "cannot be read or written"),
        ([], 2, "COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_is_reported_in_a_sentence(run, folder, tmp_path, arguments, status, said):
    (tmp_path / "empty").mkdir()
    places = {"PICTURE": str(folder / "monocyte" / "000.png"), "EMPTY": str(tmp_path / "empty")}
    for name, place in places.items():
        arguments = [part.replace(name, place) for part in arguments]
    found, _, err = run(*arguments)
    assert found == status
    assert said in err
    assert "Traceback" not in err


def test_stdout_of_a_process_holds_json_only(zoo_environment, folder):
    command = [sys.executable, "-m", "zoo", "classify", str(folder), "--model", MODEL, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 12


@pytest.mark.parametrize("command", [[], ["list"], ["classify"], ["explain"]], ids=str)
def test_help(run, command):
    status, out, _ = run(*command, "--help")
    assert status == 0
    assert "usage: python -m zoo" in out


def test_help_names_the_program_as_it_was_started(run, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/hemazoo"])
    assert "usage: hemazoo [-h] [--version] COMMAND" in run("--help")[1]


def test_version(run):
    assert run("--version")[:2] == (0, f"HemaZoo {__version__}\n")


def test_help_does_not_import_torch():
    code = """
import sys
from contextlib import suppress
from training.cli import main as training
from zoo.cli import main as zoo
for main in (training, zoo):
    with suppress(SystemExit):
        main(["--help"])
print({"torch", "timm", "pandas"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


def test_statistics_adapts_batch_norm_to_the_pictures(run, folder, tmp_path):
    """Adapted statistics change answers; too few pictures or a model without batch norm are refused."""
    draw_folder(tmp_path / "more", 4)
    plain = [
        json.loads(line) for line in run("classify", tmp_path / "more", "--model", MODEL, "--json")[1].splitlines()
    ]
    status, out, err = run("classify", tmp_path / "more", "--model", MODEL, "--json", "--statistics")
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and [line["file"] for line in found] == [line["file"] for line in plain], err
    assert any(one["probabilities"] != other["probabilities"] for one, other in zip(plain, found, strict=True))
    status, _, err = run("classify", folder / LABELS[0], "--model", MODEL, "--statistics")
    assert status == 2 and "3 pictures without labels; 10 are needed" in err
    status, _, err = run("classify", folder, "--model", "tiny-cnn60", "--statistics")
    assert status == 2 and "no batch norm" in err
    status, _, err = run("classify", folder, "--model", MODEL, "--statistics", "--out", tmp_path / "a.jsonl")
    assert status == 2 and "training adapt" in err


def test_views_change_the_answer(run, folder):
    answers = [run("classify", folder, "--model", MODEL, "--json", "--views", count)[1] for count in (1, 8)]
    first, second = ([json.loads(line)["probabilities"] for line in out.splitlines()] for out in answers)
    assert first != second


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_told_to_end_says_so(tmp_path, told):
    """By Ctrl-C, or by a service or scheduler."""
    (tmp_path / "waiting.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background begin without it\n"
        "from zoo.cli.common import Program, run_program\n"
        "sys.path.insert(0, os.getcwd())\n"
        "sys.exit(run_program(Program('commands', 'x', 'x', 'Wait.'), ['wait']))\n"
    )
    package = tmp_path / "commands"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_errors.py").write_text("EXIT_STATUS = {}\n")
    (package / "wait.py").write_text(
        '"""Wait."""\nimport sys, time\n\n\ndef add_arguments(parser):\n    pass\n\n\n'
        "def run(options):\n    print('begun', flush=True)\n    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "waiting.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    process.send_signal(told)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "Stopped.\n"
