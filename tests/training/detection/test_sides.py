"""The command `split-fields`: a copy goes to the side of what it shows."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from training.cli import main

COUNT = 12


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """A data set in which each of 12 fields is there twice, and a folder with six of the fields, in other sizes."""
    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / "set" / name / "train").mkdir(parents=True)
    (tmp_path / "known").mkdir()
    for number in range(COUNT):
        coarse = Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        field = coarse.resize((160, 120), Image.Resampling.BICUBIC)
        copies = {"a": field, "b": ImageEnhance.Brightness(field).enhance(0.8), "aug": field}
        for kind, image in copies.items():
            image.save(tmp_path / "set" / "images" / "train" / f"{kind}_{number}.png")
            (tmp_path / "set" / "labels" / "train" / f"{kind}_{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        if number < 6:
            field.resize((320, 240)).save(tmp_path / "known" / f"frame{number}.png")
    (tmp_path / "scored.csv").write_text("file,cell,label\nx.png,frame1,neutrophil\nx.png,frame3,neutrophil\n")
    return tmp_path / "set", tmp_path / "known"


def test_copies_share_a_side_and_what_is_scored_is_tested(folders, tmp_path):
    data, known = folders
    out = tmp_path / "sides.csv"
    command = ["split-fields", data, "--layout", "yolo", "--label", "0=WBC", "--known", known, "--out", out]
    assert main([*map(str, command), "--scored", str(tmp_path / "scored.csv"), "--leave-out", "aug_"]) == 0
    with out.open(newline="") as file:
        rows = {Path(row["file"]).stem: row for row in csv.DictReader(file)}
    assert set(rows) == {f"{kind}_{number}" for kind in "ab" for number in range(COUNT)}
    for number in range(COUNT):
        first, second = rows[f"a_{number}"], rows[f"b_{number}"]
        assert (first["group"], first["side"]) == (second["group"], second["side"])
        if number < 6:
            assert first["group"] == f"frame{number}"
            assert (first["side"] == "test") == (number in (1, 3))
    assert len({row["group"] for row in rows.values()}) == COUNT
