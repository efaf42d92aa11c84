"""Benchmarks are asked with the sample that their laboratory shows, and keep the network's own probabilities."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tests.making import LABELS, draw_cell, make_entry, register_benchmark, register_dataset
from training.cli import main
from zoo.benchmarks import get_benchmark, leaderboard
from zoo.benchmarks.asking import ask
from zoo.entry import load_entry, read_network_predictions, read_predictions
from zoo.files import write_json
from zoo.scores.sample.samples import ALIKE, BLOOD, ONLY, samples

SIX = [*LABELS, "ig", "platelet"]


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    """Two benchmarks of one drawn laboratory: one whose sample is known, and one of pictures chosen by kind."""
    registry = tmp_path / "registry"
    monkeypatch.setenv("HEMAZOO_REGISTRY", str(registry))
    rows = ["file,cell,label"]
    for name in ("clinic", "chosen"):
        for label in LABELS:
            (tmp_path / name / label).mkdir(parents=True)
            for seed in range(3):
                draw_cell(label, seed).save(tmp_path / name / label / f"{seed}.png")
    rows += [f"{label}/{seed}.png,{label}-{seed},{label}" for label in LABELS for seed in range(3)]
    text = "\n".join(rows) + "\n"
    register_dataset(registry, "clinic", more=f'sample = "{BLOOD}"\n')
    register_dataset(registry, "chosen", more='[joins]\nig = "neutrophil"\n')
    register_benchmark(registry, "clinic-test", "clinic", text)
    register_benchmark(registry, "chosen-test", "chosen", text)
    return tmp_path


@pytest.fixture
def entry(laboratory):
    return make_entry(laboratory / "zoo" / "six", "test_resnet", labels=SIX)


def evaluate(laboratory, entry, *words) -> int:
    data = ["--data", str(laboratory), "--benchmark", "clinic-test", "chosen-test"]
    return main(["evaluate", str(entry), *data, *map(str, words)])


def test_answers_follow_from_the_stored_network_predictions(laboratory, entry):
    assert evaluate(laboratory, entry) == 0
    found = load_entry(entry)
    network = read_network_predictions(found, "clinic-test")
    record = found.evaluation.benchmarks["clinic-test"]
    assert record.sample == BLOOD and record.labels == SIX == record.network_labels
    expected = found.apply_sample(network[SIX].to_numpy(np.float64), samples()[BLOOD])
    assert read_predictions(found, "clinic-test")[SIX].to_numpy() == pytest.approx(expected, abs=1e-3)
    assert set(record.samples) == set(samples())
    assert record.samples[BLOOD]["accuracy"] == record.metrics["accuracy"]
    assert not np.allclose(expected, network[SIX])


def test_pictures_chosen_by_kind_are_asked_among_their_kinds_and_joined_only_as_the_data_set_says(laboratory, entry):
    assert evaluate(laboratory, entry) == 0
    found = load_entry(entry)
    record = found.evaluation.benchmarks["chosen-test"]
    assert record.sample == ONLY and record.labels == sorted(LABELS) and not record.samples
    network = read_network_predictions(found, "chosen-test")
    joined = network[LABELS].assign(neutrophil=network["neutrophil"] + network["ig"])
    expected = joined.div(joined.sum(axis=1), axis=0)
    assert read_predictions(found, "chosen-test")[LABELS].to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-3)
    conditioned = ask(found, get_benchmark("clinic-test"), network, None).table[LABELS]
    assert conditioned.to_numpy() == pytest.approx(network[LABELS].div(network[LABELS].sum(axis=1), axis=0).to_numpy())


def test_without_probability_on_its_classes_all_are_alike(laboratory, entry):
    table = pd.DataFrame({"file": ["a"], "cell": ["a"], "label": [LABELS[0]], **dict.fromkeys(SIX, 0.0)})
    found = ask(load_entry(entry), get_benchmark("chosen-test"), table.assign(platelet=1.0), None)
    assert found.table[LABELS].to_numpy().tolist() == [[0.25] * 4]


def test_rescoring_asks_again_with_the_shares_of_today(laboratory, entry):
    assert evaluate(laboratory, entry) == 0
    config = json.loads((entry / "config.json").read_text())
    config["zoo"]["prior_trained"] = dict.fromkeys(SIX, 0.1) | {"monocyte": 0.5}
    write_json(entry / "config.json", config)
    assert evaluate(laboratory, entry, "--rescore") == 0
    found = load_entry(entry)
    shares = np.array([0.5 if label == "monocyte" else 0.1 for label in SIX])
    network = read_network_predictions(found, "clinic-test")[SIX].to_numpy(np.float64)
    expected = samples()[BLOOD].apply(network, SIX, shares)
    assert read_predictions(found, "clinic-test")[SIX].to_numpy() == pytest.approx(expected, abs=1e-3)


def test_another_sample_is_printed_from_stored_predictions(laboratory, entry, capsys):
    assert evaluate(laboratory, entry, "--sample", ALIKE) == 0
    assert "clinic-test, asked with “alike”: accuracy" in capsys.readouterr().err
    assert evaluate(laboratory, entry, "--sample", "only:basophil") == 2
    assert "rules out every class" in capsys.readouterr().err


def test_own_folder_with_a_sample_is_stored_with_it(laboratory, entry):
    words = ["evaluate", str(entry), "--own", str(laboratory / "clinic"), "--name", "mine", "--sample", BLOOD]
    assert main(words) == 0
    record = load_entry(entry).evaluation.benchmarks["mine"]
    assert record.sample == BLOOD and record.labels == SIX


def test_other_laboratories_are_a_mean_with_the_worst_beside_it(laboratory, tmp_path):
    entry = make_entry(tmp_path / "zoo" / "four", "test_resnet")
    metrics = {"lisc": 0.9, "tecom": 0.6, "jhu": 0.75}
    records = {
        name: {
            "title": name,
            "labels": LABELS,
            "confusion": np.zeros((4, 4), int).tolist(),
            "metrics": {"balanced_accuracy": {"value": value, "low": value - 0.06, "high": value + 0.06}},
            "samples": {ALIKE: {"balanced_accuracy": {"value": value - 0.1}}},
            "sample": BLOOD,
            "n_images": 4,
            "n_cells": 4,
        }
        for name, value in metrics.items()
    }
    write_json(entry / "evaluation.json", {"schema_version": 1, "benchmarks": records})
    found = leaderboard.other_laboratories(load_entry(entry))
    assert found.mean.value == pytest.approx(0.75) and found.mean_alike.value == pytest.approx(0.65)
    assert found.mean.low == pytest.approx(0.75 - 0.06 / np.sqrt(3))
    assert (found.worst.laboratory, found.worst.score.value, found.missing) == ("Tecom", 0.6, ())
    row = leaderboard.table([load_entry(entry)]).iloc[0]
    assert row["away"] == pytest.approx(0.75) and row["worst"] == 0.6
    del records["jhu"]
    write_json(entry / "evaluation.json", {"schema_version": 1, "benchmarks": records})
    assert leaderboard.other_laboratories(load_entry(entry)).missing == ("Johns Hopkins",)
