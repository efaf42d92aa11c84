"""The commands read any layout: labels by their kinds, patients on one side, readings chosen by options."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from tests.layouts import CASES, put, write
from tests.making import LABELS, draw_cell, make_entry
from training.cli import main
from training.prepare.splits import Table, joined_groups, split_by
from zoo.audits.reports import headlines, read_report
from zoo.data import Item, ReadOptions, read_dataset
from zoo.entry import read_entry

SPELLED = dict(zip(LABELS, ("EOS", "Lymphocytes", "Monócito", "SNE"), strict=True))
PATIENTS = 6
RECIPE = """
schema_version = 2
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
[model]
architecture = "test_resnet"
input_size = [48, 48]
[optimizer]
name = "adamw"
lr = 4e-3
[schedule]
epochs = 1
batch_size = 16
precision = "fp32"
"""


def drawn(place: Path, names: str) -> Path:
    """Cells of six patients under the name `names` gives, with {kind}, {who} and {n}."""
    for label in LABELS:
        for n in range(PATIENTS):
            path = place / names.format(kind=SPELLED[label], who=f"patient_{n % PATIENTS}", n=n)
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_cell(label, n, (48, 48)).save(path)
    return place


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Folders of patients with class folders, and a folder of artefacts."""
    root = drawn(tmp_path_factory.mktemp("data") / "lab", "{who}/{kind}/{n}.png")
    draw_cell("monocyte", 90, (48, 48)).save(root / "patient_0" / "odd.png")
    (root / "patient_1" / "smear rim").mkdir()
    draw_cell("monocyte", 91, (48, 48)).save(root / "patient_1" / "smear rim" / "1.png")
    return root


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    write(tmp_path / "drawn.toml", RECIPE)
    write(tmp_path / "map.toml", '"smear rim" = ""\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path / "zoo"))
    make_entry(tmp_path / "zoo" / "tiny", "test_resnet")
    return tmp_path


def test_audit_names_the_layout_first_and_who_is_known(place, data, capsys):
    assert main(["audit", str(data), "--embedder", "tiny", "--out", "report", "--labels", "map.toml"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("Layout: group/class folders; the folders patient_0, patient_1")
    assert "Passed over, it lies above the folders of classes: 1 (patient_0/odd.png)." in told
    assert "Passed over, its label, smear rim, is left out: 1 (patient_1/smear rim/1.png)." in told
    assert "Labels: EOS (6) → eosinophil." in told
    report = read_report(Path("report")).report
    assert report.classes == dict.fromkeys(LABELS, PATIENTS)
    assert report.groups == PATIENTS
    assert not any("Nothing identifies patients" in line for _, line in headlines(report))


def test_audit_warns_if_nothing_identifies_patients_or_they_cross_the_split(place, tmp_path, capsys):
    flat = drawn(tmp_path / "flat", "{kind}/{who}-{n}.png")
    audit = ["audit", "--embedder", "tiny", "--out", "report", "--restart"]
    assert main([*audit, str(flat)]) == 0
    assert "! Nothing identifies patients" in capsys.readouterr().err
    assert read_dataset(flat, ReadOptions(group_pattern=r"patient_\d")).groups == PATIENTS
    for n, side in enumerate(("train", "test")):
        drawn(tmp_path / "split" / side, "{who}/{kind}/" + f"{n}" + "{n}.png")
    assert main([*audit, str(tmp_path / "split")]) == 0
    assert "! 6 patients or slides are on two sides of the data set's own split" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["grouped", "stratified"])
def test_train_keeps_patients_on_one_side_and_names_labels(place, data, scheme, capsys):
    options = ["--labels", "map.toml", "--device", "cpu", "--set", f"data.split={scheme}"]
    assert main(["train", "drawn.toml", "--data", str(data), "--out", "zoo/drawn", *options]) == 0
    assert "Layout: group/class folders" in capsys.readouterr().err
    entry = read_entry(place / "zoo" / "drawn")
    assert list(entry.labels) == LABELS
    name = next(name for name, b in entry.evaluation.benchmarks.items() if b.role == "test")
    tested = pd.read_parquet(entry.folder / "predictions" / f"{name}.parquet")
    patients = Counter(file.split("/")[0] for file in tested["file"])
    assert patients and set(patients.values()) == {4}  # all cells of each


def test_a_split_by_column_is_made_once_and_trained_on(place, tmp_path, capsys):
    cells = drawn(tmp_path / "lab", "pictures/{kind}-{who}-{n}.png")
    names = sorted(path.name for path in (cells / "pictures").iterdir())
    rows = [f"D:\\export\\{name};{name.split('-')[0]};{name.split('-')[1]}" for name in names]
    write(cells / "cells.csv", "\n".join(["datei;zelle;fall", *rows]), "utf-8-sig")
    reading = ["--group", "fall"]
    assert main(["split", str(cells), "--scheme", "grouped", "--out", "split.json", *reading]) == 0
    manifest = json.loads(Path("split.json").read_text())
    sides: dict[str, set[str]] = {}
    for file, _, _, side, _ in manifest["rows"]:
        sides.setdefault(file.split("-")[1], set()).add(side)
    assert len(sides) == PATIENTS and all(len(one) == 1 for one in sides.values())
    options = ["--split", "split.json", "--device", "cpu", *reading]
    assert main(["train", "drawn.toml", "--data", str(cells), "--out", "zoo/drawn", *options]) == 0
    assert list(read_entry(place / "zoo" / "drawn").labels) == LABELS


def test_crossval_and_features_read_the_same_options(place, data, capsys):
    where = ["--data", str(data), "--labels", "map.toml", "--device", "cpu"]
    assert main(["crossval", "drawn.toml", "--folds", "2", "--work", "folds", *where]) == 0
    for fold in range(2):
        manifest = json.loads(Path(f"folds/fold-{fold}/split.json").read_text())
        sides: dict[str, set[str]] = {}
        for file, _, _, side, _ in manifest["rows"]:
            sides.setdefault(file.split("/")[0], set()).add(side)
        assert all(len(one) == 1 for one in sides.values())
    assert main(["features", "tiny", "--out", "features.csv", *where]) == 0
    assert Counter(pd.read_csv("features.csv")["label"]) == dict.fromkeys(LABELS, PATIENTS)


def test_evaluate_and_adapt_know_labels_by_their_kinds(place, data, capsys):
    evaluate = ["evaluate", "tiny", "--own", str(data), "--name", "lab", "--device", "cpu"]
    assert main(evaluate) == 1
    assert "classes that the models do not know: smear rim (1)" in capsys.readouterr().err
    assert main([*evaluate, "--labels", "map.toml"]) == 0
    assert "lab" in read_entry(place / "zoo" / "tiny").evaluation.benchmarks
    adapt = ["adapt", "tiny", "--data", str(data), "--out", "zoo/tiny-lab", "--labels", "map.toml", "--json"]
    assert main(adapt) == 0
    assert json.loads(capsys.readouterr().out)["labelled"] == 24


def test_sweep_reads_the_options(place, data, capsys):
    space = 'method = "grid"\ntrials = 1\nmetric = "val_loss"\n[keys."optimizer.lr"]\nvalues = [0.004]\n'
    write(place / "space.toml", space)
    sweep = ["sweep", "drawn.toml", "--space", "space.toml", "--storage", "sqlite:///s.db", "--data", str(data)]
    assert main([*sweep, "--labels", "gone.toml", "--device", "cpu"]) == 1
    assert "gone.toml cannot be read" in capsys.readouterr().err
    assert main([*sweep, "--labels", "map.toml", "--layout", "group/class", "--device", "cpu"]) == 0
    assert "Best of 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["audit", "train", "evaluate", "adapt", "crossval", "sweep", "features", "export-data"]
)
def test_every_command_has_the_options(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert all(option in text for option in ("--layout", "--group", "--group-pattern", "--labels"))


def test_an_ambiguous_data_set_is_refused_by_the_commands(place, tmp_path, capsys):
    put(tmp_path / "set", ["slide_1/a.png", "slide_2/a.png"])
    assert main(["features", "tiny", "--data", str(tmp_path / "set"), "--out", "x.csv", "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "slide_1, slide_2 look like patients or slides" in error and "--layout class" in error


def test_a_class_that_cannot_be_split_is_named(place, tmp_path, capsys):
    root = drawn(tmp_path / "lab", "{kind}/{n}.png")
    for path in sorted((root / "SNE").iterdir())[1:]:
        path.unlink()
    assert main(["train", "drawn.toml", "--data", str(root), "--out", "zoo/drawn", "--device", "cpu"]) == 1
    assert "The class neutrophil has fewer than two independent cells" in capsys.readouterr().err
    shutil.rmtree(root / "SNE")
    shutil.rmtree(root / "EOS")
    shutil.rmtree(root / "Lymphocytes")
    assert main(["train", "drawn.toml", "--data", str(root), "--out", "zoo/drawn", "--device", "cpu"]) == 1
    assert "has pictures of monocyte only; at least two classes are needed" in capsys.readouterr().err


def test_groups_join_cells_and_near_copies():
    items = [Item(f"{n}.png", None, "a", group=group) for n, group in enumerate(["p", None, "q", "q", None])]
    groups = joined_groups(["c0", "c0", "c2", "c3", "c4"], items)
    assert groups[0] == groups[1] and groups[2] == groups[3] and len(set(groups)) == 3
    assert joined_groups(["c0", "c1"], [Item("0.png", None, "a"), Item("1.png", None, "a")]) == ()
    count = 40
    labels = tuple(LABELS[n % 2] for n in range(count))
    cells = tuple(f"c{n}" for n in range(count))
    grouped = tuple(f"p{n // 4}" for n in range(count))
    table = Table(cells, labels, cells, cells, (None,) * count, (True,) * count, grouped)
    split = split_by("grouped", table, (0.6, 0.2, 0.2), 0)
    sides = [{grouped[row] for row in rows} for rows in split.rows.values()]
    assert all(sides) and sum(map(len, sides)) == len(set(grouped))


@pytest.mark.parametrize("kind", ["coco", "yolo", "folders"])
@pytest.mark.parametrize("name", ["Pascal VOC", "COCO", "split/group/class", "npz in a zip", "csv with boxes"])
def test_an_exported_data_set_reads_back_the_same(place, tmp_path, kind, name, capsys):
    source = next(case for case in CASES if case.name == name).build(tmp_path)
    assert main(["export-data", str(source), "--as", kind, "--out", "exported"]) == 0
    before, after = read_dataset(source), read_dataset("exported")
    assert Counter((i.label, i.split) for i in after.items) == Counter((i.label, i.split) for i in before.items)
    assert after.groups == before.groups
    sizes = [sorted(item.source.image().size for item in data.items) for data in (before, after)]
    assert np.abs(np.subtract(*sizes)).max() <= 1
    assert main(["export-data", str(source), "--as", kind, "--out", "exported"]) == 2
    assert "already exists" in capsys.readouterr().err


def test_an_export_holds_no_metadata_and_goes_on_after_a_bad_picture(place, tmp_path, capsys):
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Patient", "Jane Doe")
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        Image.radial_gradient("L").resize((12, 12)).save(tmp_path / "set" / label / "1.png", pnginfo=facts)
    write(tmp_path / "set" / "a" / "2.png", "no picture")
    assert main(["export-data", str(tmp_path / "set"), "--as", "folders", "--out", "out"]) == 1
    assert "not exported: a/2.png" in capsys.readouterr().err
    written = [path.read_bytes() for path in Path("out").rglob("*.png")]
    assert len(written) == 2 and not any(b"Jane" in content for content in written)
    write(tmp_path / "map.toml", 'a = "monocyte"\n')
    assert main(["export-data", str(tmp_path / "set"), "--as", "yolo", "--out", "named", "--labels", "map.toml"]) == 1
    assert read_dataset("named").labels == ("b", "monocyte")


def test_zipped_sets_are_trained_on(place, data, tmp_path):
    with zipfile.ZipFile(tmp_path / "lab.zip", "w") as archive:
        for path in data.rglob("*.png"):
            archive.write(path, path.relative_to(data.parent).as_posix())
    from_zip, from_folder = read_dataset(tmp_path / "lab.zip"), read_dataset(data, ReadOptions())
    assert from_zip.hash == from_folder.hash
    options = ["--labels", "map.toml", "--device", "cpu"]
    assert main(["train", "drawn.toml", "--data", "lab.zip", "--out", "zoo/drawn", *options]) == 0
