"""The first answer of a process whose network is converted already needs neither torch nor timm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.making import draw_cell
from zoo.serving.ood import fit_ood_detector, write_ood_detector

pytest.importorskip("openvino")
ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "torchvision", "timm", "pandas", "sklearn", "huggingface_hub")
ASK = """
import contextlib, io, json, sys
from zoo.cli import main

told = io.StringIO()
with contextlib.redirect_stdout(told):
    assert main(["classify", *sys.argv[2:], "--json", "--single", "--backend", "openvino"]) == 0
found = [name for name in sys.argv[1].split() if name in sys.modules]
print(json.dumps({"imported": found, "answer": json.loads(told.getvalue())}))
"""


def ask(zoo: Path, cache: Path, picture: Path, *options: str) -> dict[str, Any]:
    """Classify a picture in a new process: the heavy modules that it imports, and its answer."""
    environment = {**os.environ, "HEMAZOO_ZOO": str(zoo), "HEMAZOO_CACHE": str(cache), "HEMAZOO_DEVICE": "cpu"}
    words = [" ".join(HEAVY), str(picture), "--model", zoo.name, *options]
    done = subprocess.run(
        [sys.executable, "-c", ASK, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("options", [(), ("--views", "4")], ids=["one view", "four views"])
def test_imports_neither_torch_nor_timm(tiny_zoo, tmp_path, options):
    zoo = tmp_path / "tiny-cnn60"
    zoo.symlink_to(tiny_zoo / "tiny-cnn60")
    draw_cell("monocyte", 1).save(tmp_path / "cell.png")
    first, second = (ask(zoo, tmp_path / "cache", tmp_path / "cell.png", *options) for _ in range(2))
    assert "timm" in first["imported"]  # it converts the network
    assert second["imported"] == []
    assert second["answer"]["backend"] == "openvino"
    assert second["answer"] == first["answer"]


def test_an_out_of_distribution_detector_needs_no_torch_either(tiny_zoo, tmp_path):
    zoo = tmp_path / "gated"
    shutil.copytree(tiny_zoo / "tiny-cnn60", zoo)
    labels = np.arange(400) % 4
    vectors = np.random.default_rng(0).normal(labels[:, None] == np.arange(128), 0.1).astype(np.float32)
    write_ood_detector(zoo, fit_ood_detector(vectors, labels, vectors))
    draw_cell("monocyte", 1).save(tmp_path / "cell.png")
    first, second = (ask(zoo, tmp_path / "cache", tmp_path / "cell.png") for _ in range(2))
    assert second["imported"] == []
    assert second["answer"]["distance"] == first["answer"]["distance"] > 0
