"""`training gate` and `training explain-quality`: the detector of unknown pictures and the quality of maps."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.making import LABELS, draw_cell, draw_folder, draw_smear, register_benchmark, register_dataset
from tests.training.fit.test_train import RECIPE
from training.cli import main
from training.evaluation import ood
from training.evaluation.explanations import measure_maps, transfer_box
from training.evaluation.foreign_pictures import foreign_pictures
from zoo.entry import OOD_STATISTICS, EntryError, read_entry
from zoo.files import write_json
from zoo.serving.ood import read_ood_detector
from zoo.serving.runtime import Runtime


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data root with one data set, an entry that was trained on it, and the benchmark of its test cells."""
    place = tmp_path_factory.mktemp("trust")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEMAZOO_CACHE", str(place / "cache"))
        patch.chdir(place)
        draw_folder(place / "data" / "drawn", 40)
        (place / "drawn.toml").write_text(RECIPE)
        assert main(["train", "drawn.toml", "--data", "data/drawn", "--out", "zoo/drawn"]) == 0
        tested = read_entry(place / "zoo" / "drawn").evaluation.benchmarks
        name = next(name for name, b in tested.items() if b.role == "test")
        table = pd.read_parquet(place / "zoo" / "drawn" / "predictions" / f"{name}.parquet")
        register_dataset(place / "registry", "drawn")
        rows = table.groupby("label").head(3)[["file", "cell", "label"]]  # few, because maps of all are measured
        register_benchmark(place / "registry", name, "drawn", rows.to_csv(index=False))
        patch.setenv("HEMAZOO_REGISTRY", str(place / "registry"))
        yield place


def test_detector_is_fitted_measured_and_stored(place, capsys):
    folder = place / "zoo" / "drawn"
    assert main(["gate", str(folder), "--data", str(place / "data"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["drawn"]
    assert (folder / OOD_STATISTICS).exists()
    assert found == json.loads((folder / "evaluation.json").read_text())["gate"]
    assert found["false_alarms"]["marked"] < 0.3  # a limit from so few cells is imprecise
    kinds = {"all", "photographs", "histology", "other medicine", "text", "noise", "smooth noise", "plain colours"}
    assert set(found["strangers"]) == kinds
    assert found["strangers"]["all"]["auroc"] > 0.9
    assert found["strangers"]["all"]["images"] == sum(
        told["images"] for kind, told in found["strangers"].items() if kind != "all"
    )
    with Runtime("cpu") as runtime:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8))
        assert runtime.classify(read_entry(folder), noise).familiarity != "familiar"
    card = (folder / "README.md").read_text()
    assert f"noise {100 * found['strangers']['noise']['held_back']:.0f} %" in card
    # the rest of the evaluation is kept
    assert read_entry(folder).evaluation.benchmarks


def test_damaged_detector_is_an_error_and_can_be_fitted_again(place):
    folder = place / "zoo" / "drawn"
    (folder / OOD_STATISTICS).write_bytes(b"no gate")
    with Runtime("cpu") as runtime, pytest.raises(EntryError, match="training gate"):
        runtime.classify(read_entry(folder), draw_cell("monocyte", 1))
    assert main(["gate", str(folder), "--data", str(place / "data")]) == 0
    with Runtime("cpu") as runtime:
        assert runtime.classify(read_entry(folder), draw_cell("monocyte", 1)).distance is not None


@pytest.mark.parametrize("misses", [False, True])
def test_detector_ignores_a_cell_finder_that_misses_cells(misses):
    """Its limit would be 0, so that its half of the allowed false alarms would never be used."""
    random, remarks = np.random.default_rng(0), []
    confidence = np.zeros(100) if misses else random.uniform(0.3, 1, 100)
    validation = ood.Embedded(random.normal(size=(100, 8)), confidence)
    training, classes = random.normal(size=(200, 8)), np.arange(200) % 4
    detector = ood.fit_with_finder(training, classes, validation, None, locates=True, log=remarks.append)
    assert (detector.confidence_limit == 0) == misses
    assert [("misses 100.0 %" in remark) for remark in remarks] == [True] * misses


def test_detector_uses_the_cell_finder_of_an_entry_that_locates_its_cell(place, tmp_path):
    folder = tmp_path / "drawn"
    shutil.copytree(place / "zoo" / "drawn", folder)
    config = json.loads((folder / "config.json").read_text())
    config["zoo"]["crop"] = "square"
    write_json(folder / "config.json", config)
    remarks = []
    with Runtime("cpu") as runtime:
        ood.fit(read_entry(folder), place / "data", runtime, remarks.append)
    assert not remarks
    assert read_ood_detector(folder, 4).confidence_limit > 0


def test_foreign_pictures_are_the_same_every_time():
    one, other = foreign_pictures(None), foreign_pictures(None)
    assert set(one) == set(other)
    for kind, images in one.items():
        assert len(images) >= 20
        assert [image.tobytes() for image in images[:3]] == [image.tobytes() for image in other[kind][:3]]


def test_map_quality_is_measured_and_stored(place, capsys):
    folder = place / "zoo" / "drawn"
    assert main(["explain-quality", str(folder), "--data", str(place / "data"), "--json"]) == 0
    out = capsys.readouterr()
    found = json.loads(out.out)["drawn"]["grad-cam"]
    assert "rank correlation" in out.err
    for name in ("road", "deletion", "insertion"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
        assert found[name]["images"] == 12
    assert list(found["sanity"]) == ["25 %", "50 %", "100 %"]
    assert all(0 <= value <= 1 for value in found["sanity"].values())
    assert found["sanity"]["100 %"] < 0.9  # maps of a random model differ
    with Runtime("cpu") as runtime:
        measured = measure_maps(
            read_entry(folder), place / "data", runtime, "occlusion", print, faithfulness_pictures=4
        )
    assert measured["road"]["images"] == 4
    kept = json.loads((folder / "evaluation.json").read_text())["explanations"]
    assert set(kept) == {"grad-cam", "occlusion"}
    assert f"ROAD {kept['occlusion']['road']['value']:+.2f}" in (folder / "README.md").read_text()
    assert "sanity" not in kept["occlusion"]
    assert read_entry(folder).usable


def test_missing_data_is_an_error_message(place, tmp_path, capsys):
    for command in ("gate", "explain-quality"):
        assert main([command, str(place / "zoo" / "drawn"), "--data", str(tmp_path)]) == 1
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert "drawn" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("mirrored", [False, True])
def test_box_is_transferred_from_a_frame_to_its_copy(mirrored):
    frame = draw_smear(LABELS[0], 5, (640, 480))
    box = (250.0, 170.0, 380.0, 300.0)
    small = frame.resize((320, 240), Image.Resampling.BICUBIC)
    copy = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else small
    copy = copy.rotate(12, Image.Resampling.BICUBIC)
    found = transfer_box(frame, copy, box)
    x, y = (box[0] + box[2]) / 4, (box[1] + box[3]) / 4
    x = 320 - x if mirrored else x
    turn = np.deg2rad(-12)
    centre = np.array([160, 120]) + np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ (
        x - 160,
        y - 120,
    )
    assert abs((found[0] + found[2]) / 2 - centre[0]) < 4
    assert abs((found[1] + found[3]) / 2 - centre[1]) < 4
    assert transfer_box(draw_smear(LABELS[1], 6, (640, 480)), copy, box) is None
