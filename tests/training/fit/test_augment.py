"""Augmentations that use another picture."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from tests.making import draw_cell
from training.fit.augment import Context
from training.fit.augment.colour import colour_transfer


def test_colour_transfer_changes_colours_and_keeps_the_pattern(monkeypatch):
    mine, other = (np.asarray(draw_cell(*drawn, (120, 120))) for drawn in (("neutrophil", 3), ("lymphocyte", 4)))
    other = (other * np.array([0.95, 0.75, 0.85])).astype(np.uint8)  # a slide of another colour
    monkeypatch.setattr(torch, "rand", lambda size: torch.ones(size) * 0.999)  # all of the way
    new = colour_transfer(mine, 1.0, Context(other=lambda: other))
    means = [cv2.cvtColor(np.float32(each) / 255, cv2.COLOR_RGB2LAB).mean((0, 1)) for each in (mine, other, new)]
    assert np.abs(means[0] - means[1]).max() > 8
    assert np.abs(means[2] - means[1]).max() < 2  # but for what a byte cannot hold
    assert np.corrcoef(new[..., 1].ravel(), mine[..., 1].ravel())[0, 1] > 0.95
    flat = np.full((40, 40, 3), 230, np.uint8)
    spread = colour_transfer(flat, 1.0, Context(other=lambda: other)).std((0, 1))
    assert spread.max() == 0  # nothing is made up where there is nothing
