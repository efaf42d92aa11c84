"""Pictures made to exhaust the machine, and damaged ones: a sentence, soon, and within little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.zoo.imaging.bombs import BOMBS, WITH_METADATA, write_bombs
from tests.zoo.imaging.encodings import ARRAY, CELL, saved
from tests.zoo.imaging.mutating import write_mutants
from zoo.imaging.decode import PictureError, close_workers, read_picture

ROOT = Path(__file__).parents[3]
MAX_SECONDS, MAX_MEGABYTES = 2, 500  # for one file
READ_ANYWAY = {"tiff-imagej-claims", "tiff-laughing-ome"}  # what they claim is beside the picture


def read_apart(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.zoo.imaging.reader", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def check_bounds(report: dict[str, Any]) -> None:
    assert report["unexpected"] == {}
    assert {name: took for name, (_, took) in report["outcomes"].items() if took > MAX_SECONDS} == {}
    assert report["peak"] < MAX_MEGABYTES
    assert report["workers"] < MAX_MEGABYTES


def test_bombs_are_refused_soon_and_within_little_memory(tmp_path):
    write_bombs(tmp_path)
    report = read_apart(tmp_path)
    assert len(report["outcomes"]) == len(BOMBS)
    assert {name for name, (said, _) in report["outcomes"].items() if said == "read"} <= READ_ANYWAY
    check_bounds(report)


def test_mutated_files_are_read_or_refused(tmp_path):
    write_mutants(tmp_path, 320, seed=1)
    report = read_apart(tmp_path)
    assert len(report["outcomes"]) == 320
    check_bounds(report)


@pytest.mark.artefacts
def test_five_thousand_mutated_files_are_read_or_refused(tmp_path):
    write_mutants(tmp_path, 5000, seed=7)
    report = read_apart(tmp_path)
    assert len(report["outcomes"]) == 5000
    check_bounds(report)


@pytest.mark.parametrize("name", WITH_METADATA)
def test_damaged_metadata_does_not_hide_the_picture(name):
    found = np.asarray(read_picture(WITH_METADATA[name]()).image, float)
    assert np.abs(found - ARRAY).mean() < 5


def test_a_worker_that_died_is_replaced():
    raw = saved(CELL, "TIFF")
    for _ in range(2):
        assert (np.asarray(read_picture(raw).image) == ARRAY).all()
        close_workers()


def test_limits_follow_the_environment(monkeypatch):
    monkeypatch.setenv("HEMAZOO_PICTURE_MEGAPIXELS", "1")
    with pytest.raises(PictureError, match="more than the 1 megapixels"):
        read_picture(saved(CELL.resize((1100, 1000)), "PNG"))
    monkeypatch.setenv("HEMAZOO_PICTURE_MB", "1")
    with pytest.raises(PictureError, match="at most 1 MB"):
        read_picture(bytes(1_000_001))


def test_a_slow_picture_is_given_up(monkeypatch):
    monkeypatch.setenv("HEMAZOO_DECODE_SECONDS", "0.1")
    plain = b"P3 2000 2000 255\n" + b"1 2 3 " * 4_000_000  # decoded in Python
    with pytest.raises(PictureError, match="too long to decode"):
        read_picture(plain)
    monkeypatch.undo()
    assert read_picture(saved(CELL, "PPM")).image.size == CELL.size
