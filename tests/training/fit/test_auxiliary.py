"""Auxiliary targets of training: attributes from tables and subclasses from file names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.fit.networks.auxiliary import (
    UNKNOWN,
    AttributeLoss,
    narrow,
    read_attributes,
    read_known,
    read_names,
    widen,
)
from training.fit.networks.network import build_model
from training.prepare.dataset import TrainingDataError
from training.recipe import Attributes, Model


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "no table of attributes"),
        ("name,shape\nx,round\n", "no column img_name"),
        ("img_name,shape\nelsewhere.png,round\n", "No training picture is named"),
    ],
)
def test_tables_without_usable_attributes_are_refused(table, said, tmp_path):
    if table:
        (tmp_path / "some.csv").write_text(table)
    with pytest.raises(TrainingDataError, match=said):
        read_attributes(tmp_path, ["pbc/neutrophil/a.png"])


def test_file_names_give_subclasses(tmp_path):
    """Files of one data set are named after finer classes than their folders."""
    files = ["ig/MMY_1.jpg", "neutrophil/BNE_7.jpg", "neutrophil/bne_8.jpg", "ig/12.jpg"]
    found = read_names(files)[:, 0]
    assert found[1] == found[2] != found[0]
    assert found[3] == UNKNOWN
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "some.csv").write_text("img_name,shape\nMMY_1.jpg,round\n")
    both = read_known(Attributes(folder="known", names=True), tmp_path, files)
    assert both.shape == (4, 2)
    assert both[:, 1].tolist() == found.tolist()


@pytest.mark.parametrize("files", [["a/1.png", "b/2.png"], ["a/cell-1.png", "b/cell-2.png"]])
def test_file_names_without_subclasses_are_ignored(files, tmp_path):
    assert read_names(files) is None
    assert read_known(Attributes(names=True), tmp_path, files) is None


def test_unknown_attributes_have_no_loss():
    loss = AttributeLoss(2, [3, 2], weight=1.0)
    outputs, known = torch.zeros(2, 7), torch.tensor([[0, 1], [UNKNOWN, UNKNOWN]])
    assert loss(outputs, known).item() == pytest.approx((np.log(3) + np.log(2)) / 2 / 2)
    assert loss(outputs, torch.full((2, 2), UNKNOWN)).item() == 0


def test_outputs_are_added_and_removed():
    model = build_model(Model(architecture="test_resnet", input_size=(32, 32)), 4).eval()
    inputs = torch.rand(2, 3, 32, 32)
    before = model(inputs)
    widen(model, 5)
    assert model(inputs).shape == (2, 9)
    assert torch.allclose(model(inputs)[:, :4], before, atol=1e-6)
    narrow(model, 4)
    assert torch.allclose(model(inputs), before, atol=1e-6)
