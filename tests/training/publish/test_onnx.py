"""`python -m training export --onnx`: a file that other programs can run."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch

from tests.making import LABELS, draw_cell, make_entry
from training.cli import main
from zoo.entry import read_entry
from zoo.imaging.preprocess import preprocessor
from zoo.serving.runtime import Runtime

HAS_ONNX = importlib.util.find_spec("onnx") is not None


@pytest.fixture
def entry(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return read_entry(make_entry(tmp_path / "zoo" / "tiny", "test_resnet", temperature=1.7))


@pytest.mark.skipif(not HAS_ONNX, reason="the package onnx is not installed")
def test_the_file_gives_the_entrys_answers_and_tells_labels_and_preprocessing(entry, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert main(["export", str(entry.folder), "--onnx", "tiny.onnx", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["difference"] < 1e-4
    session = onnxruntime.InferenceSession("tiny.onnx", providers=["CPUExecutionProvider"])
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["labels"]) == LABELS
    preprocessing = json.loads(known["preprocessing"])
    assert (preprocessing["input_size"], preprocessing["cell_crop"]) == ([3, 64, 64], "none")
    cells = [draw_cell(label, 3) for label in LABELS]
    prepare = preprocessor(entry.config.pretrained_cfg.model_dump())
    found = session.run(None, {"pictures": torch.stack([prepare(cell) for cell in cells]).numpy()})[0]
    with Runtime("cpu", "fp32") as runtime:
        wanted = [list(runtime.classify(entry, cell).network.values()) for cell in cells]
    assert np.allclose(found, wanted, atol=1e-4)
    assert main(["export", str(entry.folder), "--onnx", "tiny.onnx"]) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.skipif(HAS_ONNX, reason="the package onnx is installed")
def test_says_which_package_is_missing(entry, capsys, tmp_path):
    assert main(["export", str(entry.folder), "--onnx", "tiny.onnx"]) == 1
    assert "pip install onnx" in capsys.readouterr().err
    assert not (tmp_path / "tiny.onnx").exists()


@pytest.mark.skipif(not HAS_ONNX, reason="the package onnx is not installed")
def test_refuses_what_is_not_one_network(capsys, tmp_path):
    assert main(["export", "champion4", "--onnx", str(tmp_path / "x.onnx")]) == 1
    assert "not one network" in capsys.readouterr().err
