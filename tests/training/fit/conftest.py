"""Fixtures of training: drawn cells, a split of them, and a tiny training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.making import LABELS, draw_cell
from tests.training.fit.drawn import SIDE, recipe
from training.fit.batches import Arrays
from training.fit.loop import Hooks, train
from training.fit.processor.devices import make_accelerator
from training.prepare.splits import Split

HOOKS = ("after_epoch", "build", "evaluate", "interrupts")


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    cells = [draw_cell(label, seed, (SIDE, SIDE)) for seed in range(36) for label in LABELS]
    return Arrays(np.stack([np.asarray(cell) for cell in cells]), np.arange(len(cells)) % 4)


@pytest.fixture(scope="module")
def split() -> Split:
    rows = {"train": np.arange(96), "val": np.arange(96, 144), "test": np.arange(0)}
    return Split(rows, tuple(map(str, range(144))), {}, "drawn")


@pytest.fixture
def run(arrays, split, tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))

    def fitted(work="work", **parts):
        place = tmp_path / work
        place.mkdir(exist_ok=True)
        options = {key: parts.pop(key) for key in ("resume", "finish") if key in parts}
        hooks = Hooks(**{key: parts.pop(key) for key in HOOKS if key in parts})
        accelerator = make_accelerator(torch.device("cpu"))
        return train(recipe(**parts), arrays, split, place, accelerator, **options, hooks=hooks)

    return fitted
