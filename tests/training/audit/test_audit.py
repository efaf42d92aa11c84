"""`python -m training audit`: what was planted in a data set is found, and nothing is ever half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.making import LABELS, draw_smear, draw_smears, make_entry
from training.audit import embedding
from training.audit import measure as measuring
from training.audit.copies import find_copies
from training.audit.matching import FrameIndex, compare, detect, scaled_grey
from training.audit.measure import measure
from training.audit.shortcuts import alarms
from training.cli import main
from zoo.audits.reports import read_report
from zoo.data import read_dataset
from zoo.entry import read_entry
from zoo.sources.catalogue import get_entry

FLIP = Image.Transpose.FLIP_LEFT_RIGHT
EACH = 12


def turned(image: Image.Image, angle: float, flipped: bool = False) -> Image.Image:
    image = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(0, 0, 0))
    return image.transpose(FLIP) if flipped else image


def pasted(image: Image.Image) -> Image.Image:
    """The picture's middle on another picture's corner."""
    ground = draw_smear("lymphocyte", 999).crop((0, 0, 50, 50)).resize(image.size)
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse([38, 38, 122, 122], fill=255)
    ground.paste(image, (0, 0), mask)
    return ground


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """A data set in parts with every kind of trouble in it."""
    root = tmp_path_factory.mktemp("planted") / "set"
    train = draw_smears(root / "TRAIN", EACH)
    for label in LABELS:
        place = root / "TEST" / label
        place.mkdir(parents=True)
        for seed in range(100, 104):
            draw_smear(label, seed).save(place / f"{seed}.png")
    first = draw_smear("monocyte", 0)
    first.save(train / "monocyte" / "same.bmp")
    draw_smear("eosinophil", 1).save(train / "neutrophil" / "contradiction.png")
    turned(draw_smear("monocyte", 2), 33, flipped=True).save(train / "monocyte" / "turned.jpg", quality=70)
    bright = Image.fromarray((np.asarray(draw_smear("monocyte", 3)) * 0.85).astype(np.uint8))
    turned(bright, 90).save(root / "TEST" / "monocyte" / "leak.jpg", quality=80)
    pasted(draw_smear("eosinophil", 4)).save(train / "eosinophil" / "pasted.png")
    draw_smear("eosinophil", 8).crop((14, 10, 146, 142)).resize((160, 160)).save(train / "eosinophil" / "zoomed.png")
    draw_smear("eosinophil", 9).rotate(0, translate=(17, -12)).save(train / "eosinophil" / "shifted.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8)).save(
        train / "monocyte" / "noise.png"
    )
    green = Image.new("RGB", (160, 160), (20, 200, 40))
    green.putpixel((80, 80), (20, 198, 40))  # a single colour is refused
    green.save(train / "monocyte" / "green.png")
    drawn = draw_smear("lymphocyte", 5)
    for n in range(30):
        ImageDraw.Draw(drawn).rectangle([10 + 3 * n, 10, 12 + 3 * n, 22], fill=(8 * n, 255 - 8 * n, 3 * n))
    drawn.save(train / "lymphocyte" / "005.png")
    draw_smear("neutrophil", 6).convert("L").save(train / "neutrophil" / "006.png")
    draw_smear("neutrophil", 7, (200, 160)).save(train / "neutrophil" / "007.png")
    (train / "monocyte" / "broken.png").write_text("no picture")
    (train / "monocyte" / "empty.png").touch()
    return root


@pytest.fixture(scope="module")
def audited(planted, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("audit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEMAZOO_CACHE", str(place / "cache"))
        assert main(["audit", str(planted), "--out", str(place / "report")]) == 1  # two files cannot be read
    return place / "report"


@pytest.fixture(scope="module")
def report(audited) -> dict:
    return json.loads((audited / "report.json").read_text())


def files_of(groups: list[list[str]], file: str) -> set[str]:
    return next((set(group) for group in groups if file in group), set())


def test_counts(report):
    assert report["images"] == 4 * (EACH + 4) + 11
    assert report["classes"] == {label: report["classes"][label] for label in LABELS}
    assert sum(report["splits"]["train"].values()) + sum(report["splits"]["test"].values()) == report["images"]
    assert sorted(report["unreadable"]) == ["TRAIN/monocyte/broken.png", "TRAIN/monocyte/empty.png"]
    assert "empty" in report["unreadable_reasons"]["TRAIN/monocyte/empty.png"]
    assert report["blank"] == ["TRAIN/monocyte/green.png"]
    assert report["wrong_mode"] == ["TRAIN/neutrophil/006.png"]
    assert report["wrong_size"] == ["TRAIN/neutrophil/007.png"]


def test_identical_and_contradictory_pictures(report):
    pairs = report["duplicates"]
    assert files_of(pairs["pixel"], "TRAIN/monocyte/same.bmp") == {"TRAIN/monocyte/same.bmp", "TRAIN/monocyte/000.png"}
    both = {"TRAIN/neutrophil/contradiction.png", "TRAIN/eosinophil/001.png"}
    assert files_of(pairs["pixel"], "TRAIN/eosinophil/001.png") == both
    assert [set(group) for group in pairs["contradictory"]] == [both]
    assert report["source_cells"]["conflicts"] == 1


@pytest.mark.parametrize(
    ("copy", "source"),
    [
        ("TRAIN/monocyte/turned.jpg", "TRAIN/monocyte/002.png"),
        ("TEST/monocyte/leak.jpg", "TRAIN/monocyte/003.png"),
        ("TRAIN/eosinophil/pasted.png", "TRAIN/eosinophil/004.png"),
        ("TRAIN/eosinophil/zoomed.png", "TRAIN/eosinophil/008.png"),
        ("TRAIN/eosinophil/shifted.png", "TRAIN/eosinophil/009.png"),
    ],
)
def test_near_copies(report, copy, source):
    assert files_of(report["duplicates"]["near"], copy) == {copy, source}
    assert report["source_cells"]["of"][copy] == report["source_cells"]["of"][source]


def test_no_other_picture_is_called_a_copy(report):
    assert len(report["duplicates"]["near"]) == 7
    assert len(report["duplicates"]["pixel"]) == 2


def test_leaks_between_test_and_training(report):
    assert [set(group) for group in report["duplicates"]["crossing"]] == [
        {"TEST/monocyte/leak.jpg", "TRAIN/monocyte/003.png"}
    ]
    assert report["source_cells"]["crossing"] == 1
    assert report["leak"] == {**dict.fromkeys(LABELS, 0.0), "monocyte": pytest.approx(1 / 5)}
    assert report["random_leak"]["monocyte"] > report["random_leak"]["lymphocyte"]


def test_outliers_and_marked_pictures(report):
    assert set(report["outliers"]) >= {"TRAIN/monocyte/noise.png", "TRAIN/monocyte/green.png"}
    assert len(report["outliers"]) <= 4
    assert "TRAIN/lymphocyte/005.png" in report["marked"]


def test_the_page_is_self_contained_and_escapes_names(audited):
    page = (audited / "index.html").read_text()
    assert "TRAIN/monocyte/turned.jpg" in page
    assert 'src="http' not in page
    assert "data:image/jpeg;base64," in page


def test_the_report_can_be_read_back(audited, report):
    audit = read_report(audited)
    assert audit.report.images == report["images"] == len(audit.pictures)
    assert set(audit.pictures["flag"]) >= {"", "outlier", "unreadable", "marked"}


def test_json_on_stdout_and_progress_on_stderr(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    folder = draw_smears(tmp_path / "set", 3)
    command = ["audit", str(folder), "--out", str(tmp_path / "report"), "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 12
    assert {"unreadable", "duplicates", "source_cells", "outliers", "label_errors", "shortcuts"} <= set(told)
    assert main(command) == 2
    assert "already exists" in capsys.readouterr().err
    # what was compared is kept: the second audit, or a split, compares nothing again
    (kept,) = (tmp_path / "cache").rglob("links-*.npz")
    written = kept.stat().st_mtime_ns
    assert main([*command, "--restart"]) == 0
    assert json.loads(capsys.readouterr().out) == told
    assert kept.stat().st_mtime_ns == written


def test_one_class_only(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set" / "only").mkdir(parents=True)
    for n in range(3):
        draw_smear("monocyte", n).save(tmp_path / "set" / "only" / f"{n}.png")
    assert main(["audit", str(tmp_path / "set"), "--out", str(tmp_path / "report"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["shortcuts"] == {}
    assert "fewer than two labels" in told["notes"][0]


@pytest.mark.parametrize("what", ["nothing", "empty", "unreadable"])
def test_a_failed_audit_leaves_no_files(tmp_path, monkeypatch, capsys, what):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    if what != "nothing":
        (folder / "a").mkdir(parents=True)
    if what == "unreadable":
        (folder / "a" / "1.png").write_text("no picture")
    assert main(["audit", str(folder), "--out", str(tmp_path / "report")]) == 1
    assert not (tmp_path / "report").exists()
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.strip().endswith(".")


def test_an_interrupted_audit_resumes(tmp_path, monkeypatch):
    data = read_dataset(draw_smears(tmp_path / "set", 3))
    monkeypatch.setattr(measuring, "CHUNK", 4)
    whole = measure(data, tmp_path / "whole")
    seen = []

    def counting(item):
        seen.append(item.file)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return measuring.measure_picture(item)

    with pytest.raises(KeyboardInterrupt):
        measure(data, tmp_path / "cut", counting)
    seen.clear()
    seen += [""] * 8  # from here on nothing interrupts
    again = measure(data, tmp_path / "cut", counting)
    assert len(seen) == 8 + 8  # the first chunk of four was kept
    for name, column in whole.columns.items():
        assert (np.asarray(again[name]) == np.asarray(column)).all(), name


def test_another_embedder_reuses_measurements_and_resumes(tmp_path, monkeypatch):
    data = read_dataset(draw_smears(tmp_path / "set", 3))
    (tmp_path / "set" / LABELS[0] / "000.png").write_bytes(b"no picture")
    measured = measure(data, tmp_path / "cache")
    monkeypatch.setattr(embedding, "CHUNK", 4)
    kept = measure(data, tmp_path / "cache", lambda _: pytest.fail("measured again"))
    first = embedding.with_embedding(kept, data.items, get_entry("cnn60"))
    assert len(first["embedding"]) == 12
    assert not np.asarray(first["embedding"][0]).any()
    assert np.asarray(first["embedding"]).any()
    seen = []
    real = embedding.close

    def counting(image, box):
        seen.append(1)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return real(image, box)

    monkeypatch.setattr(embedding, "close", counting)
    other = read_entry(make_entry(tmp_path / "other", "test_resnet"))
    with pytest.raises(KeyboardInterrupt):
        embedding.with_embedding(measured, data.items, other)
    seen += [1] * 10  # from here on nothing interrupts
    cut = embedding.with_embedding(measured, data.items, other)
    assert len(seen) == 6 + 10 + 8  # the first chunk of four, one of them unreadable, was kept
    assert np.asarray(cut["embedding"][1:]).any(1).all()
    assert not list((tmp_path / "cache").rglob("*.part"))


@pytest.fixture(scope="module")
def augmented(tmp_path_factory) -> tuple[Path, Path]:
    """Copies of frames, one of which is missing among the originals, and one field photographed twice."""
    root = tmp_path_factory.mktemp("augmented")
    (root / "originals").mkdir()
    frames = {f"frame{n}": draw_smear(LABELS[n % 4], 50 + n, (320, 240)) for n in range(6)}
    darker = np.asarray(frames["frame0"], float) * (0.94, 0.97, 0.9)
    moved = Image.fromarray(darker.astype(np.uint8)).rotate(0, translate=(14, 9), fillcolor=(225, 220, 200))
    frames["twin0"] = moved
    random = np.random.default_rng(3)
    for number, (name, frame) in enumerate(frames.items()):
        if name != "frame5":
            frame.save(root / "originals" / f"{name}.png")
        label = LABELS[0] if name == "twin0" else LABELS[number % 4]
        place = root / "set" / ("TEST" if name == "frame5" else "TRAIN") / label
        place.mkdir(parents=True, exist_ok=True)
        for copy in range(8):
            image = turned(frame, random.uniform(-20, 20), copy % 2 == 1)
            image.save(place / f"{name}-{copy}.jpg", quality=88)
    return root / "set", root / "originals"


def test_copies_are_matched_with_their_originals(augmented, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    data, originals = augmented
    out = tmp_path / "report"
    assert main(["audit", str(data), "--originals", str(originals), "--out", str(out), "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["source_cells"]
    assert cells["assigned"] == 56
    for file, cell in cells["of"].items():
        name = Path(file).name.split("-")[0]
        assert cell == name or (name == "frame5" and cell.startswith("no-original"))
    assert cells["groups"] == 7
    assert cells["conflicts"] == cells["crossing"] == 0
    assert cells["related"] == [["frame0", "twin0"]]
    assert cells["subjects"] == 6


def test_without_originals_copies_are_matched_with_each_other(augmented, tmp_path):
    data = read_dataset(augmented[0])
    measured = measure(data, tmp_path)
    copies = find_copies(measured)
    names = [Path(item.file).name.split("-")[0].replace("twin0", "frame0") for item in data.items]
    for number in set(copies.same_thing.tolist()):
        assert len({name for name, own in zip(names, copies.same_thing, strict=True) if own == number}) == 1
    assert len(set(copies.same_thing.tolist())) == 6


def test_missing_originals_are_named(augmented, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    command = ["audit", str(augmented[0]), "--originals", str(tmp_path / "empty"), "--out", str(tmp_path / "report")]
    assert main(command) == 1
    assert "no original frames" in capsys.readouterr().err


def test_features_of_a_mirror_image_need_no_second_detection():
    one = detect(scaled_grey(np.asarray(draw_smear("monocyte", 1))))
    other = detect(scaled_grey(np.asarray(draw_smear("monocyte", 1).transpose(FLIP))))
    fit = compare(one, other)
    assert fit.mirrored
    assert fit.inliers > 20
    assert compare(one, detect(scaled_grey(np.asarray(draw_smear("monocyte", 2))))).inliers < 10


def test_a_blank_picture_has_no_frame():
    frames = [detect(scaled_grey(np.asarray(draw_smear("monocyte", n)))) for n in range(2)]
    index = FrameIndex(["a", "b"], frames)
    assert index.search(detect(np.full((288, 288), 200, np.uint8))) == []
    assert index.search(frames[1])[0][0] == "b"


def test_a_shortcut_raises_the_alarm(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    for label, size, kind in zip(LABELS, (128, 144, 160, 176), ("png", "bmp", "jpg", "webp"), strict=True):
        (tmp_path / "set" / label).mkdir(parents=True)
        for n in range(8):
            draw_smear(label, n, (size, size)).save(tmp_path / "set" / label / f"{n}.{kind}")
    assert main(["audit", str(tmp_path / "set"), "--out", str(tmp_path / "report"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["shortcuts"]["size"] > 0.95
    assert told["shortcuts"]["format"] > 0.95
    assert {"size", "format"} <= set(told["alarms"])


def test_chance_accuracy_raises_no_alarm():
    assert alarms({"size": 0.26, "format": 0.5}, 4) == ["format"]
    assert alarms({"size": 1.0}, 1) == []
