"""Tests on real pictures; they run when HEMAZOO_DATA names the data folder."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import timm
import torch
from PIL import Image

from tests.zoo.imaging.test_decode import png_header
from training.audit.copies import find_copies
from training.audit.measure import measure
from training.cli import main as training
from training.prepare.laboratories import read_mixed
from training.reproduce.rows import rows_of
from zoo.benchmarks import get_benchmark, names
from zoo.benchmarks.asking import ask
from zoo.benchmarks.corruptions import split_name
from zoo.benchmarks.leaderboard import home_benchmark
from zoo.cli import main
from zoo.data import DataError, DataSet, read_dataset
from zoo.data.layouts import voc
from zoo.entry import read_predictions
from zoo.entry.model import usable_entries
from zoo.imaging.localise import find_cell
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import BUILTIN, FolderSource, get_entry, list_entries

pytestmark = pytest.mark.realdata

USABLE = [entry.id for entry in usable_entries(list_entries([FolderSource(BUILTIN, "builtin")]))]


def classify(capsys, *arguments: object) -> tuple[int, list[dict]]:
    status = main(["classify", *map(str, arguments), "--json"])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_accuracy_on_the_71_cells_of_dataset2_test_is_as_stated(real_data, capsys):
    """One picture of each TEST cell: the accuracy lies in the entry's stated interval over cells."""
    status, found = classify(capsys, real_data / "dataset2" / "TEST_SIMPLE", "--model", "wbc4-efficientnet-lite0")
    assert status == 0
    assert len(found) == 71
    right = np.mean([Path(line["file"]).parent.name.lower() == line["label"] for line in found])
    entry = get_entry("wbc4-efficientnet-lite0")
    stated = entry.evaluation.benchmarks["dataset2-test"].metrics["accuracy_by_cell"]
    assert stated.low - 0.05 <= right <= stated.high + 0.05


@pytest.mark.parametrize(
    ("model", "benchmark", "folder"),
    [
        ("wbc4-efficientnet-lite0", "dataset2-test", "dataset2"),
        ("wbc4-efficientnet-lite0", "lisc", "lisc"),
        ("champion4", "lisc", "lisc"),
    ],
)
def test_stored_predictions_are_reproduced_by_the_command(real_data, capsys, model, benchmark, folder):
    table = read_predictions(get_entry(model), benchmark).sample(20, random_state=0).set_index("file")
    sample = get_entry(model).evaluation.benchmarks[benchmark].sample
    pictures = [real_data / folder / name for name in table.index]
    status, found = classify(capsys, *pictures, "--model", model, "--sample", sample)
    assert status == 0
    for line, (_, row) in zip(found, table.iterrows(), strict=True):
        for label, share in line["probabilities"].items():
            assert share == pytest.approx(row[label], abs=1e-2)


@pytest.mark.artefacts
@pytest.mark.parametrize("name", USABLE)
def test_stored_predictions_are_reproduced_by_every_entry(real_data, name):
    """20 pictures of the entry's own test set, predicted anew."""
    entry = get_entry(name)
    benchmark = get_benchmark(home_benchmark(entry))
    table = read_predictions(entry, benchmark.name).set_index("file")
    pictures = benchmark.pictures(real_data)
    with Runtime("cpu") as runtime:
        for row in np.linspace(0, len(pictures) - 1, 20).astype(int):
            file, _, _, source = pictures[row]
            answer = runtime.classify(entry, source.image()).network
            network = pd.DataFrame([{"file": file, "cell": "", "label": "", **answer}])
            mapped = ask(entry, benchmark, network, benchmark.sample).table
            expected = table.loc[file, benchmark.labels].to_numpy(float)
            assert mapped[benchmark.labels].to_numpy(float)[0] == pytest.approx(expected, abs=1e-2)


def test_unreadable_files_are_errors_beside_readable_ones(real_data, tmp_path, capsys):
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
            assert list(runtime.classify(entry, cell).network.values()) == pytest.approx(theirs, abs=1e-2)


def test_maps_lie_on_the_cell(real_data):
    """On PBC crops the cell is in the middle: most maps have their centre of mass there."""
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


def test_augmented_copies_are_matched_with_their_frames(real_data, tmp_path, monkeypatch, capsys):
    """Of every 200th picture of dataset2 nearly all match a frame, none a wrong one."""
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    manifest = tmp_path / "some.csv"
    rows = [
        (path, path.parent.name, part)
        for part in ("TRAIN", "TEST")
        for folder in sorted((real_data / "dataset2" / part).iterdir())
        for path in sorted(folder.iterdir())[::200]
    ]
    manifest.write_text("file,label,split\n" + "".join(f"{path},{label},{part}\n" for path, label, part in rows))
    command = [
        "audit",
        manifest,
        "--originals",
        real_data / "bccd" / "JPEGImages",
        "--out",
        tmp_path / "report",
        "--json",
    ]
    assert training(list(map(str, command))) == 0
    cells = json.loads(capsys.readouterr().out)["source_cells"]
    with (real_data / "bccd" / "labels.csv").open(encoding="utf-8") as file:
        labels = {f"BloodImage_{int(row[1]):05}": row[2].strip() for row in list(csv.reader(file))[1:]}
    framed = {file: cell for file, cell in cells["of"].items() if cell.startswith("BloodImage")}
    assert len(framed) >= 0.95 * len(rows)
    wrong = [file for file, cell in framed.items() if Path(file).parent.name not in labels[cell]]
    assert len(wrong) <= 0.002 * len(framed)
    assert cells["conflicts"] <= 1
    assert cells["crossing"] <= 1


def test_identical_pictures_of_pbc_are_found(real_data, tmp_path):
    """Pairs known from hashing every picture, one with contradictory labels, are found among 300 others."""
    data = read_dataset(real_data / "pbc")
    hashes: dict[str, list[int]] = {}
    for row, digest in enumerate(data.digests):
        hashes.setdefault(digest, []).append(row)
    pairs = [rows for rows in hashes.values() if len(rows) > 1]
    kept = sorted({row for rows in pairs for row in rows} | set(range(0, len(data), 50)))
    some = DataSet(data.name, data.place, data.layout, tuple(data.items[row] for row in kept))
    copies = find_copies(measure(some, tmp_path))
    found = {frozenset(kept[row] for row in group) for group in copies.identical}
    assert found >= {frozenset(rows) for rows in pairs}
    assert len(pairs) > 10
    assert any(len({data.items[row].label for row in group}) > 1 for group in found)


def test_cells_are_located_in_annotated_frames(real_data):
    """Frames with one white cell: its box holds our centre in at least 97 %, and the median IoU is at least 0.7."""
    root = real_data / "bccd"
    inside, overlaps = [], []
    for path in sorted((root / "JPEGImages").iterdir()):
        boxes = voc.read_frame(root, path).boxes.get(voc.CELL, [])
        if len(boxes) == 1:
            left, top, right, bottom = boxes[0]
            found = find_cell(Image.open(path).convert("RGB"))
            inside.append(left <= found.centre[0] <= right and top <= found.centre[1] <= bottom)
            overlaps.append(iou(found.box, boxes[0]))
    assert len(inside) > 300
    assert np.mean(inside) >= 0.97
    assert np.median(overlaps) >= 0.7


def iou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    both = max(width, 0) * max(height, 0)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (first, second)]
    return both / (sum(areas) - both)


def test_cells_are_located_in_cut_out_pictures(real_data):
    """PBC pictures are centred on their cell: the found box holds the picture's middle."""
    held = []
    for path in sorted((real_data / "pbc").rglob("*.jpg"))[::73]:
        image = Image.open(path).convert("RGB")
        found = find_cell(image)
        middle = (image.width / 2, image.height / 2)
        held.append(
            found is not None
            and found.box[0] <= middle[0] <= found.box[2]
            and found.box[1] <= middle[1] <= found.box[3]
        )
    assert len(held) >= 199
    assert np.mean(held) >= 0.95


@pytest.mark.parametrize("name", ["lisc", "lisc-5", "dataset2-test-corrupted", "pbc-test-corrupted"])
def test_benchmark_rows_follow_their_rules(real_data, name):
    assert rows_of(name, real_data).equals(get_benchmark(name).rows)


def test_benchmark_pictures_exist_and_boxes_of_bccd_crops_hold_a_cell(real_data):
    for name in names():
        assert get_benchmark(name).pictures(real_data)
    for _, _, _, source in get_benchmark("bccd-crops").pictures(real_data)[:5]:
        assert find_cell(source.image()).confidence > 0.3


def test_laboratories_are_mixed_without_leaks(real_data):
    """No cell of a test benchmark is in training, under any file name, and LISC is never mixed in."""
    data = read_mixed(real_data, {"pbc": 4, "dataset2": 12, "bccd": 1}, 0)
    sides = {part: [item for item in data.items if item.split == part] for part in ("train", "test")}
    cells = {part: {item.cell for item in items} for part, items in sides.items()}
    assert not cells["train"] & cells["test"]
    files = {item.file for item in sides["train"]}
    for name in names():
        benchmark = get_benchmark(name)
        used = {f"{benchmark.definition.data}/{split_name(file)[0]}" for file in benchmark.rows["file"]}
        assert not used & files, name
    assert {item.origin for item in data.items} == {"pbc", "dataset2"}
    copies = Counter(item.cell for item in sides["train"] if item.file.startswith("dataset2/"))
    assert max(copies.values()) == 12
    assert len(copies) > 250
    frames = {item.cell for item in sides["train"] if item.file.startswith("bccd/")}
    assert frames <= set(copies), "frames of TRAIN only"
    assert len(data) == len({item.file for item in data.items})
    with pytest.raises(DataError, match="no laboratory 'lisc'"):
        read_mixed(real_data, {"lisc": 1}, 0)
