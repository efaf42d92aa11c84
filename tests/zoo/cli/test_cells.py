"""The command `cells`, with a tiny detector of random weights: it finds something, or nothing, and says so."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.fields import draw_field
from tests.making import draw_cell
from training.detection.loop import Fitted, build
from training.detection.recipe import load_detector_recipe
from training.detection.train import write_detector
from zoo.cli import main
from zoo.data import read_dataset
from zoo.detection.objects import OBJECTS
from zoo.sources.catalogue import get_detector, list_detectors, list_entries

RECIPE = load_detector_recipe("cells", ("model.backbone=test_efficientnet", "model.pretrained=false", "model.width=8"))
MODEL = ["--model", "cnn60", "--detector", "tiny"]


@pytest.fixture(scope="module")
def zoo_folder(tmp_path_factory) -> Path:
    """A zoo with one detector."""
    folder = tmp_path_factory.mktemp("detectors")
    torch.manual_seed(0)
    network = build(RECIPE).eval()
    write_detector(RECIPE, Fitted(network, [1.0]), dict.fromkeys(OBJECTS, 0.005), folder / "tiny")
    return folder


@pytest.fixture(autouse=True)
def _zoo(zoo_folder, monkeypatch):
    monkeypatch.setenv("HEMAZOO_ZOO", str(zoo_folder))


@pytest.fixture
def picture(tmp_path) -> Path:
    draw_cell("neutrophil", 1, (160, 120)).save(tmp_path / "field.png")
    return tmp_path / "field.png"


def test_a_detector_is_an_entry_and_no_model_to_classify_with(capsys, picture):
    assert "tiny" in [entry.id for entry in list_detectors()]
    assert "tiny" not in [entry.id for entry in list_entries()]
    assert get_detector("tiny").config.zoo.detector is not None
    assert main(["classify", str(picture), "--model", "tiny"]) == 2
    assert "finds cells and does not classify" in capsys.readouterr().err
    assert main(["cells", str(picture), "--model", "cnn60", "--detector", "cnn60"]) == 2
    assert "There is no detector 'cnn60'" in capsys.readouterr().err


@pytest.mark.parametrize("option", [(), ("--detector", "none")])
def test_without_a_detector_one_is_asked_for(capsys, picture, monkeypatch, option):
    monkeypatch.setenv("HEMAZOO_DETECTOR", "none")
    assert main(["cells", str(picture), "--model", "cnn60", *option]) == 2
    told = capsys.readouterr().err
    assert "Cells are found by a detector, and none is chosen. Name one with --detector" in told
    assert "cells, tiny" in told


def test_records_hold_every_cell_with_its_box_in_the_picture(capsys, picture):
    assert main(["cells", str(picture), *MODEL, "--json", "--um-per-px", "0.1"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["schema"], record["file"], record["page"]) == (1, str(picture), None)
    assert record["scale_um_per_px"] == 0.1
    assert record["scale"]["source"] == "given"
    assert set(record["counts"]) == set(OBJECTS)
    assert sum(record["counts"].values()) == len(record["cells"]) > 0
    for cell in record["cells"]:
        left, top, right, bottom = cell["box"]
        assert 0 <= left < right <= 160
        assert 0 <= top < bottom <= 120
        white = cell["object"] == "white cell"
        assert (cell["label"] is not None) == (cell["probabilities"] is not None) == white
        if white:
            assert sum(cell["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        if not cell["cut"]:
            assert cell["diameter_um"] == pytest.approx((right - left + bottom - top) / 2 * 0.1, abs=0.01)


def test_a_bad_file_does_not_stop_the_others_and_tables_and_drawings_are_written(capsys, picture, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG no picture")
    table, drawn = tmp_path / "cells.csv", tmp_path / "drawn"
    assert main(["cells", str(bad), str(picture), *MODEL, "--csv", str(table), "--draw", str(drawn)]) == 1
    told = capsys.readouterr()
    assert str(bad) in told.err
    assert "\r" not in told.err, "no bar is drawn over and over where there is no terminal"
    assert str(picture) in told.out
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {str(bad), str(picture)}
    assert all(row["object"] in (*OBJECTS, "") for row in rows)
    below = drawn.joinpath(*picture.relative_to(picture.anchor).parts)
    assert Image.open(below.with_name("field.png.png")).size == (160, 120)


def test_white_cells_are_cut_into_a_data_set(capsys, tmp_path):
    picture = tmp_path / "field.png"
    draw_field(0)[0].save(picture)
    model = ["--model", "cnn60", "--detector", "cells"]
    assert main(["cells", str(picture), *model, "--json", "--cut", str(tmp_path / "cut")]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    whole = Image.open(picture).convert("RGB")
    for number, cell in enumerate(cells, 1):
        found = list((tmp_path / "cut").glob(f"*/*field-{number}.png"))
        if cell["object"] != "white cell" or cell["cut"]:
            assert not found
            continue
        (path,) = found
        assert path.parent.name == cell["label"]
        left, top, right, bottom = cell["box"]
        cut = np.asarray(Image.open(path))
        assert min(cut.shape[:2]) >= min(right - left, bottom - top) - 1
        x, y = round((left + right) / 2), round((top + bottom) / 2)
        assert (cut == np.asarray(whole)[y, x]).all(axis=-1).any()
    read = read_dataset(tmp_path / "cut")
    assert len(read) == sum(cell["object"] == "white cell" and not cell["cut"] for cell in cells) > 0
    assert set(read.labels) == {cell["label"] for cell in cells if cell["label"] and not cell["cut"]}


@pytest.mark.parametrize("scale", ["0", "-1", "x", "50"])
def test_an_impossible_scale_is_refused(capsys, picture, scale):
    with pytest.raises(SystemExit) as refused:
        main(["cells", str(picture), *MODEL, f"--um-per-px={scale}"])
    assert refused.value.code == 2
    assert "is no number from" in capsys.readouterr().err
