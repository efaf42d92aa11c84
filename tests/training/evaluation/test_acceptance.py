"""`python -m training accept` and `counts`: limits and errors from laboratories that a model was not trained on."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tests.making import LABELS, draw_cell, draw_folder, make_entry, register_benchmark, register_dataset
from training.cli import main
from zoo.entry import load_entry
from zoo.entry.write import write_evidence
from zoo.scores.sample.samples import BLOOD
from zoo.serving.runtime import Runtime

PLACES = ("north", "south", "east")
MORE = f'sample = "{BLOOD}"\n'


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Three drawn validation laboratories, one of which has smudges too, and a tiny entry."""
    monkeypatch.setenv("HEMAZOO_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    rows = [f"{label}/{n:03}.png,{label}-{n},{label}" for label in LABELS for n in range(6)]
    for number, name in enumerate(PLACES):
        draw_folder(tmp_path / name, 6, size=(64 + 8 * number, 64))
        register_dataset(tmp_path / "registry", name, more=MORE)
        toml = tmp_path / "registry" / "data" / f"{name}.toml"
        toml.write_text(toml.read_text().replace('role = "training"', 'role = "validation"'))
        register_benchmark(tmp_path / "registry", f"{name}-all", name, "\n".join(["file,cell,label", *rows]) + "\n")
    (tmp_path / "north" / "smudge").mkdir()
    for seed in range(6):
        draw_cell("monocyte", 50 + seed, (64, 64)).save(tmp_path / "north" / "smudge" / f"{seed}.png")
    make_entry(tmp_path / "zoo" / "tiny", "test_resnet")
    return tmp_path


def drawn_evidence(seed: int = 0) -> pd.DataFrame:
    """Answers of a model that is right where it is sure, and unsure of kinds that it does not know."""
    random = np.random.default_rng(seed)
    parts = []
    for name in PLACES:
        truth = np.repeat(np.arange(4), 60)
        sure = random.uniform(0, 1, len(truth)) < 0.8
        answer = np.where(sure, truth, (truth + random.integers(0, 4, len(truth))) % 4)
        top = np.where(sure, random.uniform(0.995, 0.9995, len(truth)), random.uniform(0.4, 0.6, len(truth)))
        parts.append((name, [LABELS[k] for k in truth], answer, top, np.full(len(truth), 0.8)))
    parts.append((PLACES[0], ["smudge"] * 40, random.integers(0, 4, 40), np.full(40, 0.999), np.full(40, 1.3)))
    tables = []
    for name, labels, answer, top, distance in parts:
        network = np.repeat((1 - top)[:, None] / 3, 4, axis=1)
        network[np.arange(len(top)), answer] = top
        table = pd.DataFrame(network, columns=[f"n:{label}" for label in LABELS])
        tables.append(table.assign(data=name, label=labels, distance=distance))
    return pd.concat(tables, ignore_index=True)


def test_limits_accept_what_is_right_in_laboratories_left_out(place, capsys):
    folder = place / "zoo" / "tiny"
    write_evidence(folder, drawn_evidence())
    assert main(["accept", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tiny"]
    held = {one["laboratory"]: one for one in told["held"]}
    assert set(held) == set(PLACES)
    assert all(0.5 < one["share"] < 0.95 for one in held.values()), told
    assert np.mean([one["right"] for one in held.values()]) > 0.92  # 0.85 of all answers are right
    limits = load_entry(folder).evaluation.acceptance.limits
    assert limits.distance < 1.3  # the smudges, of which the model is sure, lie beyond
    assert set(limits.classes) == set(LABELS)
    assert all(0.97 < limit < 1 for limit in limits.classes.values())
    stored = load_entry(folder).evaluation.acceptance
    assert stored.unknown_kinds == held["north"]["unknown_kinds"]
    assert stored.temperature == told["temperature"]
    assert set(stored.chosen_by) == set(PLACES)
    assert stored.unknown_chosen_by["smudge"] <= 0.05


def test_a_class_that_unknown_kinds_are_taken_for_needs_more_confidence(place):
    """Blasts are called monocytes, surely: monocytes are left for review, and other answers are accepted as before."""
    table = drawn_evidence()
    table = table[table["label"] != "smudge"]
    blasts = table[(table["label"] == "monocyte") & (table["n:monocyte"] > 0.9)].assign(label="blast", data=PLACES[1])
    write_evidence(place / "zoo" / "tiny", pd.concat([table, blasts], ignore_index=True))
    assert main(["accept", str(place / "zoo" / "tiny")]) == 0
    measured = load_entry(place / "zoo" / "tiny").evaluation.acceptance
    assert measured.unknown_chosen_by["blast"] <= 0.05
    others = [limit for label, limit in measured.limits.classes.items() if label != "monocyte"]
    assert measured.limits.classes["monocyte"] > max(others)
    assert all(0.5 < one.share < 0.8 for one in measured.chosen_by.values())


def test_answers_are_collected_once_and_limits_chosen_from_them(place, capsys):
    folder = place / "zoo" / "tiny"
    assert main(["accept", str(folder), "--data", str(place), "--device", "cpu"]) == 0
    first = load_entry(folder).evaluation.acceptance
    table = pd.read_parquet(folder / "acceptance.parquet")
    assert set(table["data"]) == set(PLACES) and set(table["label"]) == {*LABELS, "smudge"}
    assert len(table) == 3 * 24 + 6
    assert main(["accept", str(folder)]) == 0
    assert load_entry(folder).evaluation.acceptance == first
    assert set(first.unknown_kinds) == {"smudge"}
    capsys.readouterr()
    (folder / "acceptance.parquet").unlink()
    assert main(["accept", str(folder)]) != 0
    assert "make them with --data" in capsys.readouterr().err
    with Runtime("cpu", "fp32") as runtime:
        answer = runtime.classify(load_entry(folder), draw_cell("monocyte", 3))
    assert answer.acceptance.decision in ("accepted", "for review")
    assert answer.unseen_confidence is not None


def test_error_of_counts_is_measured_on_drawn_samples(place, capsys):
    folder = place / "zoo" / "tiny"
    names = [f"{name}-all" for name in PLACES]
    assert main(["evaluate", str(folder), "--data", str(place), "--benchmark", *names, "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["counts", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tiny"]
    assert [one["laboratory"] for one in told["laboratories"]] == sorted(PLACES)
    # a model that names one kind whatever it sees is wrong by far more than chance
    assert told["error"] > 0.1
    assert all(one["coverage"] >= one["chance_coverage"] for one in told["laboratories"])
    assert load_entry(folder).count_error == told["error"]
