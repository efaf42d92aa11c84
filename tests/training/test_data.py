"""Data sets are read into one table, and no source cell is on two sides of a split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.making import LABELS, draw_cell, draw_folder
from training.data import Sample, TrainingDataError, find_files, pack
from training.matching import FRAME_SIZE, FrameIndex, source_frames
from training.splits import SIDES, official_split, stratified_split

NAMES = {label: label for label in LABELS}


def samples(count: int, copies: int = 1) -> list[Sample]:
    return [
        Sample(Path(f"{n}.png"), f"{n}.png", LABELS[(n // copies) % 4], None, f"{n // copies:016}")
        for n in range(count * copies)
    ]


def test_class_folders_are_packed(tmp_path):
    draw_folder(tmp_path, 3)
    (tmp_path / "monocyte" / "broken.png").write_text("no picture")
    (tmp_path / "monocyte" / "notes.txt").write_text("not looked at")
    found = pack(tmp_path, find_files(tmp_path, NAMES, [None]), (32, 48))
    assert found.pictures.shape == (12, 32, 48, 3)
    assert list(found.unreadable) == ["monocyte/broken.png"]
    assert [s.label for s in found.samples] == [label for label in LABELS for _ in range(3)]
    last = np.asarray(draw_cell("neutrophil", 2).resize((48, 32), Image.Resampling.BICUBIC))
    assert (found.pictures[-1] == last).all()


def test_identical_pixels_are_found_whatever_the_file(tmp_path):
    draw_folder(tmp_path, 1)
    draw_cell("monocyte", 0).save(tmp_path / "monocyte" / "again.bmp")
    found = pack(tmp_path, find_files(tmp_path, NAMES, [None]), (32, 32))
    assert len({sample.pixels for sample in found.samples}) == 4
    assert len(found.samples) == 5


@pytest.mark.parametrize("missing", ["folder", "class", "pictures"])
def test_an_empty_data_set_is_refused(tmp_path, missing):
    folder = tmp_path / "data"
    if missing != "folder":
        draw_folder(folder, 1)
        for path in (folder / "monocyte").iterdir():
            path.unlink()
        if missing == "class":
            (folder / "monocyte").rmdir()
    with pytest.raises(TrainingDataError, match="There is no"):
        find_files(folder, NAMES, [None])


@pytest.mark.parametrize("seed", range(3))
def test_stratified_split(seed):
    table = samples(400, copies=2)
    split = stratified_split(table, 0.1, 0.15, seed)
    assert sum(map(len, split.rows.values())) == 800
    assert len(split.rows["test"]) / 800 == pytest.approx(0.15, abs=0.02)
    assert len(split.rows["val"]) / 800 == pytest.approx(0.10, abs=0.02)
    cells = [{split.cells[i] for i in split.rows[side]} for side in SIDES]
    assert not cells[0] & cells[1] | cells[0] & cells[2] | cells[1] & cells[2]
    for side in SIDES:
        counts = np.unique([table[i].label for i in split.rows[side]], return_counts=True)[1]
        assert counts.max() - counts.min() <= 4


def test_a_split_is_named_by_its_content():
    table = samples(80)
    one = stratified_split(table, 0.1, 0.2, 0)
    assert one.hash == stratified_split(table, 0.1, 0.2, 0).hash
    assert one.hash != stratified_split(table, 0.1, 0.2, 1).hash
    assert one.hash != stratified_split([replace(table[0], pixels="0" * 64), *table[1:]], 0.1, 0.2, 0).hash


def test_one_picture_under_two_labels_is_left_out():
    table = samples(80)
    table.append(replace(table[0], file="twin.png", label="neutrophil"))
    split = stratified_split(table, 0.1, 0.2, 0)
    used = {i for rows in split.rows.values() for i in rows}
    assert {0, 80}.isdisjoint(used)
    assert split.left_out == {"identical pixels under different labels": 2}


def test_official_split_keeps_frames_together_and_leaves_out_what_could_leak():
    train = [replace(s, part="TRAIN") for s in samples(40, copies=5)]
    test = [replace(s, part="TEST", file="t" + s.file, pixels="t" + s.pixels) for s in samples(8, copies=5)]
    table = train + test
    frames = [f"frame{n // 5}" for n in range(200)] + [f"test{n // 5}" for n in range(40)]
    frames[0] = None  # unknown
    frames[5] = "test0"  # shared with TEST
    frames[239] = None  # an unknown one in TEST stays
    split = official_split(table, frames, 0.2, 0)
    assert split.left_out == {"source frame unknown": 1, "source frame also in TEST": 1}
    assert set(split.rows["test"]) == set(range(200, 240))
    used = set(split.rows["train"]) | set(split.rows["val"])
    assert used == set(range(200)) - {0, 5}
    val = {frames[i] for i in split.rows["val"]}
    assert val.isdisjoint({frames[i] for i in split.rows["train"]})
    assert 6 <= len(val) <= 10


def test_too_few_cells_to_split():
    with pytest.raises(TrainingDataError, match="fewer than two"):
        stratified_split(samples(5), 0.2, 0.2, 0)


def smear(seed: int) -> Image.Image:
    """A made-up smear frame with enough detail for local features."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (640, 480), (230, 225, 220))
    for _ in range(60):
        cell = draw_cell(LABELS[random.integers(4)], int(random.integers(10_000)), (80, 80))
        image.paste(cell.rotate(int(random.integers(360))), tuple(int(v) for v in random.integers(0, (600, 440))))
    return image


def test_augmented_copies_find_their_frame(tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    copies, truth = [], []
    for number in range(5):
        frame = smear(number)
        if number < 4:  # the last one's frame is not there
            frame.save(frames / f"frame{number}.png")
        small = frame.resize(FRAME_SIZE)
        for name, copy in {
            "turned": small.rotate(17),
            "flipped": small.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(-8, translate=(10, 5)),
        }.items():
            path = tmp_path / f"{number}-{name}.jpg"
            copy.save(path, quality=85)
            copies.append(path)
            truth.append(f"frame{number}" if number < 4 else None)
    found = source_frames(copies, frames, tmp_path / "cache", workers=1)
    assert [match.frame for match in found] == truth
    assert all(match.inliers > 2 * match.runner_up for match in found if match.frame)
    stores = list((tmp_path / "cache").glob("*.json"))
    before = stores[0].stat().st_mtime_ns
    # the second time nothing is computed
    assert source_frames(copies, frames, tmp_path / "cache", workers=1) == found
    assert stores[0].stat().st_mtime_ns == before


def test_a_plain_picture_has_no_frame(tmp_path):
    smear(0).save(tmp_path / "frame.png")
    index = FrameIndex([tmp_path / "frame.png"])
    assert index.match(np.full(FRAME_SIZE[::-1], 200, np.uint8)).frame is None


def test_no_frames_at_all(tmp_path):
    with pytest.raises(TrainingDataError, match="No original frames"):
        source_frames([], tmp_path, tmp_path / "cache")
