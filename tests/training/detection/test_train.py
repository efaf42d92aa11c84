"""The command `train` with a detector's recipe, from drawn fields to an entry that finds, is scored, and is shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.cli import main as training
from training.detection.pictures.close_ups import read_close_ups
from training.detection.recipe import load_detector_recipe
from zoo.cli import main as zoo
from zoo.entry import load_entry

SETTINGS = (
    "model.backbone=test_efficientnet",
    "model.pretrained=false",
    "model.width=8",
    "data.sides=",
    "crops.side=64",
    "schedule.steps=3",
    "schedule.batch_size=2",
    "refinement.steps=2",
    "close_ups=[]",
)


@pytest.fixture
def fields(tmp_path) -> Path:
    """Eight fields with boxes, two of them to validate on."""
    random = np.random.default_rng(0)
    for number in range(8):
        side = "val" if number > 5 else "train"
        image = Image.fromarray(random.integers(215, 235, (96, 128, 3), dtype=np.uint8))
        rows = []
        for kind, size, colour in (
            (0, 40, (90, 20, 120)),
            (1, 22, (180, 90, 90)),
            (1, 22, (180, 90, 90)),
            (2, 8, (90, 0, 99)),
        ):
            x, y = random.integers(size, 128 - size), random.integers(size, 96 - size)
            ImageDraw.Draw(image).ellipse([x - size / 2, y - size / 2, x + size / 2, y + size / 2], colour)
            rows.append(f"{kind} {x / 128} {y / 96} {size / 128} {size / 96}")
        for name in ("images", "labels"):
            (tmp_path / "set" / name / side).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "set" / "images" / side / f"{number}.png")
        (tmp_path / "set" / "labels" / side / f"{number}.txt").write_text("\n".join(rows))
    return tmp_path / "set"


def test_a_detector_is_trained_refined_and_used(fields, tmp_path, capsys, monkeypatch):
    out, work = tmp_path / "zoo" / "mine", tmp_path / "work"
    command = ["train", "cells", "--data", str(fields), "--out", str(out), "--work", str(work)]
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    assert training([*command, *changes]) == 0
    told = capsys.readouterr().err
    assert "6 training fields" in told
    assert "step 3 of 3" in told
    assert "step 2 of 2" in told
    entry = load_entry(out)
    assert entry.is_detector
    assert entry.config.zoo.recipe["refinement"]["steps"] == 2
    assert out.joinpath("model.safetensors").stat().st_size < 1_000_000
    monkeypatch.setenv("HEMAZOO_ZOO", str(out.parent))
    picture = next(fields.rglob("*.png"))
    assert zoo(["cells", str(picture), "--model", "cnn60", "--detector", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(picture)
    assert training([*command, *changes]) != 0, "a finished entry is not replaced unasked"
    assert training([*command, *changes[:-2], "--set", "close_ups=[]", "--restart", "--set", "seed=2"]) == 0


@pytest.mark.realdata
def test_close_ups_show_their_cell_in_the_middle_and_nothing_else_is_said(real_data):
    parts = tuple(part.model_copy(update={"per_kind": 3}) for part in load_detector_recipe("cells").close_ups)
    found = read_close_ups(parts, real_data, 1)
    assert len(found) > 20
    for one in found:
        height, width = one.pixels.shape[:2]
        left, top, right, bottom = one.boxes[0]
        assert left < width / 2 < right
        assert top < height / 2 < bottom
        assert one.unsure.tolist() == [[0, 0, width, height]]
