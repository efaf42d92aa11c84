"""The main job on real pictures, through the command line; runs when HEMAZOO_DATA names the data folder."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import timm
import torch
from PIL import Image

from tests.zoo.test_images import png_header
from training.matching import source_frames
from zoo.__main__ import main
from zoo.catalogue import get_entry
from zoo.entry import read_predictions
from zoo.runtime import Runtime

pytestmark = pytest.mark.realdata


def classify(capsys, *arguments: object) -> tuple[int, list[dict]]:
    status = main(["classify", *map(str, arguments), "--json"])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_71_cells_of_test(real_data, capsys):
    """One picture of each TEST cell: the share right is in the interval that the entry states for cells."""
    status, found = classify(capsys, real_data / "dataset2" / "TEST_SIMPLE", "--model", "wbc4-efficientnet-lite0")
    assert status == 0
    assert len(found) == 71
    right = np.mean([Path(line["file"]).parent.name.lower() == line["label"] for line in found])
    entry = get_entry("wbc4-efficientnet-lite0")
    stated = entry.evaluation.benchmarks["dataset2-test"].metrics["cell_accuracy"]
    assert stated.low - 0.05 <= right <= stated.high + 0.05


@pytest.mark.parametrize(
    ("model", "benchmark", "folder"),
    [
        ("pbc8-efficientnet-lite0", "pbc-test", "pbc"),
        ("wbc4-efficientnet-lite0", "dataset2-test", "dataset2"),
        ("wbc4-cnn60", "dataset2-test", "dataset2"),
    ],
)
def test_stored_predictions_are_what_the_model_says_today(real_data, capsys, model, benchmark, folder):
    table = read_predictions(get_entry(model), benchmark).sample(60, random_state=0).set_index("file")
    status, found = classify(capsys, *[real_data / folder / name for name in table.index], "--model", model)
    assert status == 0
    for line, (_, row) in zip(found, table.iterrows(), strict=True):
        for label, share in line["probabilities"].items():
            assert share == pytest.approx(row[label], abs=1e-2)


def test_a_folder_of_bad_files(real_data, tmp_path, capsys):
    source = sorted((real_data / "dataset2" / "TEST_SIMPLE" / "LYMPHOCYTE").iterdir())[0]
    (tmp_path / "cut.jpeg").write_bytes(source.read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "bomb.png").write_bytes(png_header(30_000, 30_000))
    cell = Image.open(io.BytesIO(source.read_bytes()))
    tifffile.imwrite(tmp_path / "sixteen.tif", np.asarray(cell, np.uint16) * 257, photometric="rgb")
    status, found = classify(capsys, tmp_path, "--model", "wbc4-efficientnet-lite0")
    assert status == 1
    by_name = {Path(line["file"]).name: line for line in found}
    assert all("error" in by_name[name] for name in ("cut.jpeg", "text.png", "bomb.png"))
    _, (plain,) = classify(capsys, source, "--model", "wbc4-efficientnet-lite0")
    assert by_name["sixteen.tif"]["label"] == plain["label"]


def test_plain_timm_agrees_on_real_cells(real_data):
    entry = get_entry("pbc8-efficientnet-lite0")
    model = timm.create_model(f"local-dir:{entry.folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with Runtime("cpu") as runtime, torch.no_grad():
        for path in sorted((real_data / "pbc").rglob("*.jpg"))[::400]:
            cell = Image.open(path).convert("RGB")
            theirs = model(transform(cell)[None]).softmax(1)[0].tolist()
            assert list(runtime.classify(entry, cell).probabilities.values()) == pytest.approx(theirs, abs=1e-2)


def test_maps_lie_on_the_cell(real_data):
    """On PBC crops, the cell is in the middle: most maps have their centre of mass there."""
    entry = get_entry("pbc8-efficientnet-lite0")
    centred = []
    with Runtime("cpu") as runtime:
        for path in sorted((real_data / "pbc").rglob("*.jpg"))[::300]:
            values = runtime.explain(entry, Image.open(path).convert("RGB")).values
            if values.any():
                rows, columns = np.indices(values.shape)
                where = [(axis * values).sum() / values.sum() / len(values) for axis in (rows, columns)]
                centred.append(all(0.3 < place < 0.7 for place in where))
    assert len(centred) > 30
    assert np.mean(centred) > 0.8


def test_augmented_copies_find_their_frames(real_data, tmp_path):
    """Of copies of different TEST cells nearly all find a frame, and none one of another class."""
    images = [
        path
        for folder in sorted((real_data / "dataset2" / "TEST").iterdir())
        for path in sorted(folder.iterdir())[::90]
    ]
    found = source_frames(images, real_data / "bccd" / "JPEGImages", tmp_path)
    with (real_data / "bccd" / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    labels = {f"BloodImage_{int(row[1]):05}": row[2].strip() for row in rows}
    matched = [
        (path.parent.name, labels[match.frame]) for path, match in zip(images, found, strict=True) if match.frame
    ]
    assert len(matched) >= 0.9 * len(images)
    assert all(folder == label for folder, label in matched)
