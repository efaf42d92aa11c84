"""Answers are accepted within an entry's limits, else for review with the reasons."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from tests.making import LABELS, draw_cell, make_entry
from zoo.cli import main
from zoo.entry import load_entry
from zoo.files import write_json
from zoo.scores.acceptance import ACCEPTED, FOR_REVIEW, UNKNOWN_KIND, UNLIKE_ANY, UNLIKE_MOST, decide
from zoo.scores.sample.samples import ALIKE, only_these, samples

LIMITS = {"confidence": 0.7, "network": 0.2, "distance": 1.2}


@pytest.fixture
def folder(tmp_path):
    """A tiny entry with limits and a temperature of acceptance."""
    made = make_entry(tmp_path / "zoo" / "tiny", "test_resnet")
    write_json(made / "evaluation.json", {"acceptance": {"limits": LIMITS, "temperature": 2.0}})
    return made


def shares(*values):
    return dict(zip(LABELS, values, strict=True))


def test_reasons_against_an_answer(folder):
    entry, alike = load_entry(folder), samples()[ALIKE]
    assert decide(entry, shares(0.97, 0.01, 0.01, 0.01), 0.9, alike).decision == ACCEPTED
    far = decide(entry, shares(0.97, 0.01, 0.01, 0.01), 1.5, alike)
    assert (far.decision, far.reasons) == (FOR_REVIEW, (UNLIKE_MOST,))
    assert decide(entry, shares(0.97, 0.01, 0.01, 0.01), 2.5, alike).reasons == (UNLIKE_ANY,)
    close = decide(entry, shares(0.6, 0.38, 0.01, 0.01), 0.9, alike)
    assert close.reasons == (f"two kinds are close: {LABELS[0]} and {LABELS[1]}",)
    assert decide(entry, shares(0.31, 0.23, 0.23, 0.23), None, alike).reasons == ("several kinds are close",)


def test_each_class_has_its_own_limit(folder):
    limits = {**LIMITS, "confidence": 0.5, "network": 0.0, "classes": {LABELS[0]: 0.98, LABELS[1]: 1.0}}
    write_json(folder / "evaluation.json", {"acceptance": {"limits": limits, "temperature": 1.0}})
    entry, alike = load_entry(folder), samples()[ALIKE]
    often_wrong = decide(entry, shares(0.97, 0.01, 0.01, 0.01), 0.9, alike)
    assert often_wrong.reasons == (f"in other laboratories “{LABELS[0]}” is too often wrong below 98 %",)
    assert decide(entry, shares(0.985, 0.005, 0.005, 0.005), 0.9, alike).decision == ACCEPTED
    never = decide(entry, shares(0.001, 0.997, 0.001, 0.001), 0.9, alike)
    assert never.reasons == (f"in other laboratories “{LABELS[1]}” is too often wrong",)
    assert decide(entry, shares(0.2, 0.1, 0.6, 0.1), 0.9, alike).decision == ACCEPTED
    assert decide(entry, shares(0.5, 0.1, 0.3, 0.1), 0.9, alike).decision == FOR_REVIEW


def test_a_kind_that_the_sample_rules_out_is_likely_unknown(folder):
    """The network names another kind than the answer: nothing in the sample looks like this cell."""
    found = decide(load_entry(folder), shares(0.998, 0.0019, 0.00005, 0.00005), 0.9, only_these(LABELS[1:]))
    assert found.reasons == (UNKNOWN_KIND,)


def test_confidence_is_that_of_an_unseen_laboratory(folder):
    """The temperature is applied before the limit: 0.80 alone would be enough."""
    entry = load_entry(folder)
    network = shares(0.80, 0.10, 0.05, 0.05)
    softened = np.sqrt(list(network.values()))
    assert softened[0] / softened.sum() < LIMITS["confidence"] < network[LABELS[0]]
    assert decide(entry, network, None, samples()[ALIKE]).decision == FOR_REVIEW


def test_entries_without_limits_use_strict_ones(folder):
    (folder / "evaluation.json").unlink()
    entry, alike = load_entry(folder), samples()[ALIKE]
    assert decide(entry, shares(0.96, 0.02, 0.01, 0.01), 0.9, alike).decision == ACCEPTED
    assert decide(entry, shares(0.94, 0.04, 0.01, 0.01), 0.9, alike).decision == FOR_REVIEW
    assert decide(entry, shares(0.96, 0.02, 0.01, 0.01), 1.1, alike).decision == FOR_REVIEW


def test_decisions_and_counts_on_the_command_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_ZOO", str(folder))
    content = json.loads((folder / "evaluation.json").read_text())
    write_json(folder / "evaluation.json", content | {"counts": {"error": 0.05}})
    for seed in range(6):
        draw_cell(LABELS[seed % 4], seed).save(tmp_path / f"{seed}.png")
    order = ["classify", *(str(tmp_path / f"{n}.png") for n in range(6)), "--model", "tiny", "--counts"]
    assert main([*order, "--json", "--csv", str(tmp_path / "table.csv")]) == 0
    *lines, last = map(json.loads, capsys.readouterr().out.splitlines())
    entry = load_entry(folder)
    for line in lines:
        expected = decide(entry, line["network"], line["distance"], samples()[line["sample"]])
        assert (line["decision"], tuple(line["reasons"])) == (expected.decision, expected.reasons)
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["decision"] for row in rows] == [line["decision"] for line in lines]
    assert [row["reasons"] for row in rows] == ["; ".join(line["reasons"]) for line in lines]
    assert last["cells"] == 6 == sum(one["count"] for one in last["counts"])
    one = max(last["counts"], key=lambda kind: kind["count"])
    assert one["low"] <= one["chance_low"] < one["share"] <= one["chance_high"] <= one["high"]
    assert main(order) == 0
    assert "6 cells counted" in capsys.readouterr().out
    assert main([*order, "--out", str(tmp_path / "out.csv")]) == 2
