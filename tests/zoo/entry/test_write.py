"""An entry's files are written whole or not at all, and nothing that is in them gets lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.making import LABELS, make_config, make_entry, make_predictions
from zoo.entry import BrokenEntry, EntryError, load_entry, read_entry, read_predictions
from zoo.entry.write import (
    ScoredBenchmark,
    create_entry,
    update_benchmark,
    update_explanations,
    update_metrics,
    update_section,
    write_config,
    write_evaluation,
    write_weights,
)
from zoo.version import __version__


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_entry(tmp_path / "mine", "cnn60")


def record(**more) -> dict:
    counts = [[8 if row == column else 0 for column in range(4)] for row in range(4)]
    metrics = {"accuracy": {"value": 1.0, "low": 0.9, "high": 1.0}}
    described = {"title": "drawn", "labels": LABELS, "confusion": counts, "metrics": metrics}
    return {**described, "n_images": 32, "n_cells": 32, **more}


def content(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


def test_a_new_entry_appears_under_its_own_name(tmp_path):
    with create_entry(tmp_path / "new") as place:
        assert place.name == "new"
        write_config(place, make_config("cnn60"))
        assert not (tmp_path / "new").exists()
    assert load_entry(tmp_path / "new").id == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_an_interrupted_entry_leaves_the_old_one(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(KeyboardInterrupt), create_entry(folder) as place:
        write_config(place, make_config("cnn60", title="Other"))
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_an_interrupted_file_leaves_the_old_one(folder):
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises((TypeError, ValueError, AttributeError)):
        write_weights(folder, {"weight": torch.zeros(3), "nothing": None})
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_a_new_entry_says_which_version_wrote_it(tmp_path):
    with create_entry(tmp_path / "new") as place:
        write_config(place, make_config("cnn60"))
    assert load_entry(tmp_path / "new").config.zoo.hemazoo_version == __version__


def test_an_entry_without_a_version_loads(folder):
    assert load_entry(folder).config.zoo.hemazoo_version == ""


def test_a_benchmark_is_added_with_its_predictions(folder):
    write_evaluation(folder, {"benchmarks": {"old": record()}})
    update_benchmark(folder, "new", ScoredBenchmark(record(), make_predictions(1)))
    entry = load_entry(folder)
    assert list(entry.evaluation.benchmarks) == ["old", "new"]
    assert len(read_predictions(entry, "new"))


def test_updates_keep_fields_of_later_versions(folder):
    write_evaluation(folder, {"benchmarks": {"drawn": record(invented=1)}, "later": {"a": [1]}})
    update_section(folder, "speed", {"images_per_second": 12.0, "device": "CPU"})
    update_section(folder, "elsewhere", {"temperature": 2.0, "balanced": {"there": {"value": 0.5}}})
    update_explanations(folder, "grad-cam", {"road": {"value": 0.1, "images": 60}})
    update_metrics(folder, {"drawn": {"accuracy": {"value": 0.5}}})
    found = content(folder)
    assert found["later"] == {"a": [1]}
    assert found["speed"]["images_per_second"] == 12.0
    assert found["explanations"]["grad-cam"]["road"]["images"] == 60
    assert found["benchmarks"]["drawn"] == record(invented=1, metrics={"accuracy": {"value": 0.5}})
    assert load_entry(folder).other_laboratories.temperature == 2.0


def test_an_invalid_evaluation_is_not_written(folder):
    write_evaluation(folder, {"benchmarks": {}})
    before = content(folder)
    with pytest.raises(EntryError, match=r"elsewhere\.temperature"):
        update_section(folder, "elsewhere", {"temperature": -1.0, "balanced": {"there": {"value": 0.5}}})
    with pytest.raises(EntryError, match="confusion is not"):
        update_benchmark(folder, "drawn", ScoredBenchmark(record(confusion=[[1]]), make_predictions(1)))
    assert content(folder) == before
    assert not (folder / "predictions" / "drawn.parquet").exists()


def test_a_broken_entry_is_a_value_with_its_reason(folder):
    (folder / "config.json").write_text("{")
    found = read_entry(folder)
    assert found == BrokenEntry("mine", folder, found.reason)
    assert found.reason.startswith("config.json is not valid JSON")
    with pytest.raises(EntryError, match="is not valid JSON"):
        load_entry(folder)
