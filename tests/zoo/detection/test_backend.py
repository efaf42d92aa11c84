"""A detector in OpenVINO: it finds what it finds in torch, is converted once, and falls back to torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fields import draw_field, make_detector
from zoo.cli import main
from zoo.detection.detector import Detector
from zoo.detection.found import Found
from zoo.detection.scan import search
from zoo.entry import Entry, load_entry

pytest.importorskip("openvino")
ROOT = Path(__file__).parents[3]
LEAST = 0.015  # confidence that random weights reach
BOX_TOLERANCE, CONFIDENCE_TOLERANCE = 0.1, 1e-3  # pixels of the picture; as docs/fields.md states them
ASK = "import sys; from zoo.cli import main; main(sys.argv[1:]); print('torch', 'torch' in sys.modules)"


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Entry:
    return load_entry(make_detector(tmp_path_factory.mktemp("zoo") / "random"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A cache folder that the tests of this module share."""
    return tmp_path_factory.mktemp("cache")


def found_by(detector: Detector, seed: int = 0) -> Found:
    return search(draw_field(seed)[0], detector.forward, LEAST).found


def assert_same(mine: Found, theirs: Found) -> None:
    """The same boxes, each of the same object."""
    assert len(mine) == len(theirs) > 0
    apart = np.abs(mine.boxes[:, None] - theirs.boxes[None]).max(axis=2)
    apart[mine.numbers[:, None] != theirs.numbers[None]] = np.inf
    assert apart.min(axis=1).max() < BOX_TOLERANCE
    assert np.abs(mine.confidences - theirs.confidences[apart.argmin(axis=1)]).max() < CONFIDENCE_TOLERANCE


def test_boxes_are_those_of_torch_in_pictures_of_any_size(detector, cache, monkeypatch):
    monkeypatch.setenv("HEMAZOO_CACHE", str(cache))
    fast, plain = (Detector(detector, backend) for backend in ("openvino", "torch"))
    assert (fast.backend, plain.backend) == ("openvino", "torch")
    assert_same(found_by(fast), found_by(plain))
    wide = draw_field(1)[0].crop((0, 0, 470, 150))
    assert_same(*(search(wide, one.forward, LEAST).found for one in (fast, plain)))
    (folder,) = (cache / "converted").iterdir()
    made = (folder / "choice.json").stat().st_mtime_ns
    assert_same(found_by(Detector(detector, "openvino")), found_by(plain))
    assert (folder / "choice.json").stat().st_mtime_ns == made


def test_a_damaged_network_is_converted_again(detector, tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path))
    expected = found_by(Detector(detector, "openvino"))
    (folder,) = (tmp_path / "converted").iterdir()
    (folder / "network.bin").write_bytes(b"cut")
    again = Detector(detector, "openvino")
    assert again.backend == "openvino"
    assert_same(found_by(again), expected)


def test_torch_finds_cells_where_nothing_can_be_stored(detector, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "file"))
    found = Detector(detector, "auto")
    assert found.backend == "torch"
    assert len(found_by(found)) > 0


def test_a_process_with_converted_networks_needs_no_torch(detector, tiny_zoo, cache, tmp_path, monkeypatch, capsys):
    draw_field(2)[0].save(tmp_path / "field.png")
    places = os.pathsep.join((str(tiny_zoo), str(detector.folder)))
    own = {"HEMAZOO_ZOO": places, "HEMAZOO_CACHE": str(cache), "HEMAZOO_DEVICE": "cpu", "HEMAZOO_BACKEND": "openvino"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    words = ["cells", str(tmp_path / "field.png"), "--detector", detector.id, "--model", "tiny-cnn60", "--json"]
    assert main(words) == 0
    done = subprocess.run(
        [sys.executable, "-c", ASK, *words], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, imported = done.stdout.splitlines()
    assert imported == "torch False"
    assert json.loads(told) == json.loads(capsys.readouterr().out)


def test_a_small_picture_is_searched_once(detector, cache, monkeypatch):
    """Whether it is a close-up, and where its cell lies, are questions about the same search."""
    monkeypatch.setenv("HEMAZOO_CACHE", str(cache))
    one, image = Detector(detector, "torch"), draw_field(2)[0].crop((0, 0, 160, 160))
    first = one.find(image)
    assert one.find(image.copy()) is first
    assert one.find(image, um_per_px=0.1) is not first
    assert one.find(image.rotate(90)) is not first
