"""Every built-in entry: whole, small enough, and true to its own predictions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml

import zoo.architectures  # noqa: F401
from tests.making import draw_cell
from training.recipe import recipe_ids
from zoo import metrics
from zoo.catalogue import BUILTIN, FolderSource
from zoo.entry import CARD, read_entry, read_history, read_predictions
from zoo.runtime import Runtime

ENTRIES = sorted(path.name for path in BUILTIN.iterdir() if path.is_dir())
MAX_WEIGHTS, MAX_ALL, MAX_PREDICTIONS = 10_000_000, 60_000_000, 1_000_000


@pytest.fixture(params=ENTRIES)
def entry(request):
    return read_entry(BUILTIN / request.param)


def test_the_built_in_zoo_is_there():
    assert {"pbc8-efficientnet-lite0", "wbc4-efficientnet-lite0", "wbc4-cnn60"} <= set(ENTRIES)
    assert all(entry.usable for entry in FolderSource(BUILTIN, "builtin").entries())
    weights = sum(path.stat().st_size for path in BUILTIN.rglob("*.safetensors"))
    assert weights < MAX_ALL


def test_files_are_small(entry):
    assert entry.weights.bytes < MAX_WEIGHTS
    for path in (entry.folder / "predictions").iterdir():
        assert path.stat().st_size < MAX_PREDICTIONS


def test_each_has_its_recipe(entry):
    assert entry.id in recipe_ids()
    assert entry.config.zoo.model_extra["recipe"]["id"] == entry.id


def test_figures_recompute_from_predictions_and_stand_on_the_card(entry):
    card = (entry.folder / CARD).read_text(encoding="utf-8")
    stated = yaml.safe_load(re.match(r"---\n(.*?)\n---", card, re.DOTALL)[1])["model-index"][0]["results"]
    for name, benchmark in entry.evaluation.benchmarks.items():
        table = read_predictions(entry, name)
        truth, shares = metrics.arrays(table, benchmark.labels)
        counts = metrics.confusion(truth, shares.argmax(1), len(benchmark.labels))
        assert counts.tolist() == benchmark.confusion
        assert len(table) == benchmark.n_images
        found = metrics.as_dict(metrics.evaluate(table, benchmark.labels))
        for metric, value in benchmark.metrics.items():
            assert found[metric] == pytest.approx(value.model_dump())
        if benchmark.role == "test":
            on_card = {m["type"]: m["value"] for result in stated for m in result["metrics"]}
            assert on_card["accuracy"] == pytest.approx(np.trace(counts) / counts.sum(), abs=5e-5)


def test_no_cell_is_on_two_sides(entry):
    cells = [set(read_predictions(entry, name)["cell"]) for name in entry.evaluation.benchmarks]
    assert len(cells) == 2
    assert cells[0].isdisjoint(cells[1])


def test_plain_timm_loads_it_and_agrees(entry):
    model = timm.create_model(f"local-dir:{entry.folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with Runtime("cpu") as runtime, torch.no_grad():
        for seed in range(8):
            cell = draw_cell("neutrophil", seed, (160, 160))
            theirs = model(transform(cell)[None]).softmax(1)[0].tolist()
            found = runtime.classify(entry, cell)
            assert list(found.probabilities.values()) == pytest.approx(theirs, abs=1e-2)


def test_maps_depend_on_picture_and_class(entry):
    cells = [draw_cell(label, 1, (160, 160)) for label in ("neutrophil", "lymphocyte", "eosinophil")]
    with Runtime("cpu") as runtime:
        assert all(runtime.explain(entry, cell).values.any() for cell in cells)
        maps = [runtime.explain(entry, cell, label).values for cell in cells for label in entry.labels[:4]]
    drawn = [values.tobytes() for values in maps if values.any()]  # nothing may speak for a class
    assert len(drawn) >= 6
    assert len(set(drawn)) == len(drawn)


def test_curves_and_card(entry):
    history = read_history(entry)
    assert {"epoch", "train_loss", "val_loss", "val_accuracy"} <= set(history)
    card = (entry.folder / CARD).read_text(encoding="utf-8")
    assert "Not a medical device" in card
    assert all(note in card for benchmark in entry.evaluation.benchmarks.values() for note in benchmark.notes)
    assert str(Path.home()) not in card
