"""Out-of-distribution detection: known cells pass, other pictures are flagged, damaged files are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.making import LABELS, draw_cell, make_entry
from training.evaluation.ood import embed
from zoo.cli import main
from zoo.entry import OOD_STATISTICS, EntryError, read_entry
from zoo.serving.ood import (
    OPTIONAL,
    TENSORS,
    OodDetector,
    familiarity,
    fit_ood_detector,
    read_ood_detector,
    widen,
    with_confidence_limits,
    write_ood_detector,
)
from zoo.serving.requests import Client
from zoo.serving.runtime import Runtime


def cloud(count: int, seed: int, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Four classes in a few of many directions."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    centres = 12 * np.eye(4, width)
    return (centres[labels] + random.normal(0, np.linspace(1, 0.1, width), (count, width))).astype(np.float32), labels


@pytest.fixture(scope="module")
def gate():
    vectors, labels = cloud(2000, 1)
    return fit_ood_detector(vectors, labels, cloud(1000, 2)[0])


def test_one_percent_of_known_cells_is_flagged(gate):
    share = (gate.distances(cloud(4000, 3)[0]) > 1).mean()
    assert 0.003 < share < 0.02


def test_cells_of_other_laboratories_set_a_second_limit():
    vectors, labels = cloud(2000, 1)
    own = cloud(1000, 2)[0]
    others, strange = (cloud(1000, seed)[0] + np.float32(1.5) * (np.arange(40) > 30) for seed in (3, 4))
    strange[:, 4:] *= -6
    gate = fit_ood_detector(vectors, labels, own, others)

    def kinds(found: np.ndarray) -> dict[str | None, float]:
        said = [familiarity(d) for d in gate.distances(found).tolist()]
        return {kind: said.count(kind) / len(said) for kind in ("familiar", "shifted", "unknown")}

    assert kinds(cloud(2000, 5)[0])["familiar"] > 0.97
    assert kinds(others)["shifted"] > 0.95
    assert kinds(strange)["unknown"] > 0.95
    # the order of pictures is that of their distances without it
    every = np.concatenate([own, others, strange])
    alone = fit_ood_detector(vectors, labels, own)
    assert np.array_equal(gate.distances(every).argsort(), alone.distances(every).argsort())
    assert familiarity(None) is None


@pytest.mark.parametrize("where", ["between the classes", "off their plane", "in no direction of any class"])
def test_flags_what_is_unlike_every_class(gate, where):
    vectors, _ = cloud(400, 4)
    if where == "between the classes":
        vectors[:, :4] = 3
    elif where == "off their plane":
        vectors[:, 30:] += 2
    else:
        vectors = np.random.default_rng(5).normal(0, 1, vectors.shape).astype(np.float32)
    assert (gate.distances(vectors) > 1).mean() > 0.95


def test_distance_is_mahalanobis_where_all_directions_are_kept():
    """Against the textbook, with as many directions as there are dimensions."""
    vectors, labels = cloud(3000, 5, 12)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gate = fit_ood_detector(vectors, labels, vectors)
    means = np.stack([vectors[labels == k].mean(0) for k in range(4)])
    within = vectors - means[labels]
    inverse = np.linalg.inv(within.T @ within / len(within))
    away = vectors[:200, None] - means
    expected = np.sqrt(np.einsum("nkd,de,nke->nk", away, inverse, away).min(1) / 12)
    found = gate.relative_distances(vectors[:200]) * gate.limit.item()
    assert np.allclose(found, expected, rtol=0.02)


def test_distance_of_an_entry_with_a_detector(tmp_path, cells):
    folder = make_entry(tmp_path / "gated", "test_resnet")
    entry = read_entry(folder)
    drawn = [(draw_cell(label, seed), number) for seed in range(60) for number, label in enumerate(LABELS)]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8))
    with Runtime("cpu", "fp32") as runtime:
        assert runtime.classify(entry, cells[0]).distance is None
        assert runtime.classify(entry, cells[0]).familiarity is None
        model = runtime.model(entry)
        vectors = runtime.engine.work(
            model, lambda: model.embed([model.pixels(c) for c, _ in drawn]), Client()
        ).result()
    numbers = np.array([number for _, number in drawn])
    write_ood_detector(folder, fit_ood_detector(vectors[:160], numbers[:160], vectors[160:]))
    with Runtime("cpu", "fp32", batch_size=4) as runtime:
        found = [runtime.classify(entry, draw_cell(label, 200 + seed)) for seed in range(10) for label in LABELS]
        assert np.mean([one.familiarity != "familiar" for one in found]) < 0.4  # of so few cells a gate knows little
        alone = runtime.classify(entry, noise)
        assert alone.familiarity == "unknown"
        assert alone.distance > 2
        # with a map, and by every way to one, it is the same
        for method in ("grad-cam", "occlusion"):
            assert runtime.explain(entry, noise, method=method).prediction.distance == pytest.approx(
                alone.distance, rel=1e-3
            )
        early = runtime.explain(entry, noise, layer="layer2").prediction
        assert early.distance == pytest.approx(alone.distance, rel=1e-3)


def test_command_line_prints_the_distance(tmp_path, monkeypatch, capsys):
    folder = make_entry(tmp_path / "zoo" / "gated", "cnn60")
    vectors, labels = cloud(400, 1, 128)
    write_ood_detector(folder, fit_ood_detector(vectors, labels, vectors))
    monkeypatch.setenv("HEMAZOO_ZOO", str(folder))
    draw_cell("monocyte", 1).save(tmp_path / "cell.png")
    assert main(["classify", str(tmp_path / "cell.png"), "--model", "gated", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["distance"] > 0
    assert told["familiarity"] == familiarity(told["distance"])


@pytest.mark.parametrize("damage", ["cut", "foreign", "other classes", "not finite", "missing"])
def test_refuses_a_damaged_file(tmp_path, gate, damage):
    write_ood_detector(tmp_path, gate)
    path = tmp_path / OOD_STATISTICS
    classes = 4
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "foreign":
        path.write_bytes(b"no gate")
    elif damage == "other classes":
        classes = 5
    elif damage == "not finite":
        write_ood_detector(tmp_path, OodDetector(**{name: getattr(gate, name) * float("nan") for name in TENSORS}))
    else:
        save_file({"mean": np.zeros(3)}, path)
    with pytest.raises(EntryError, match="training gate"):
        read_ood_detector(tmp_path, classes)


def test_a_stored_detector_equals_the_fitted_one(tmp_path, gate):
    write_ood_detector(tmp_path, gate)
    vectors = cloud(50, 9)[0]
    assert np.allclose(read_ood_detector(tmp_path, 4).distances(vectors), gate.distances(vectors), rtol=1e-2)
    assert read_ood_detector(tmp_path / "nowhere", 4) is None


CONFIDENT = np.linspace(0.6, 0.9, 101)


def test_the_confidence_of_the_search_has_two_limits(gate):
    both = with_confidence_limits(gate, CONFIDENT, CONFIDENT - 0.2)
    vectors = cloud(300, 7)[0]
    plain = both.distances(vectors)
    assert np.array_equal(plain, gate.distances(vectors))
    assert np.array_equal(both.distances(vectors, np.ones(300)), plain.clip(min=0))  # what is sure, changes nothing
    known = plain[plain <= 1].shape[0]

    def kinds(confidence: float) -> list[str | None]:
        return [familiarity(d) for d in both.distances(vectors, np.full(300, confidence)).tolist()]

    assert kinds(0.62).count("familiar") == known
    assert kinds(0.5).count("familiar") == 0 and kinds(0.5).count("shifted") == known
    assert set(kinds(0.3)) == {"unknown"}
    # without another laboratory there is one limit, and nothing is divided by nothing
    assert familiarity(with_confidence_limits(gate, CONFIDENT).distances(vectors[:1], np.zeros(1)).item()) == "unknown"
    # a laboratory whose cells are found less surely becomes known
    wider = widen(both, vectors, [0.4] * 300)
    assert (wider.distances(vectors, np.full(300, 0.4)) <= 1).mean() > 0.98


def test_confidence_limits_are_stored_and_absent_in_older_files(tmp_path, gate):
    both = with_confidence_limits(gate, CONFIDENT, CONFIDENT - 0.2)
    write_ood_detector(tmp_path, both)
    kept = read_ood_detector(tmp_path, 4)
    assert (kept.confidence_limit.item(), kept.unseen_confidence_limit.item()) == pytest.approx(
        (both.confidence_limit.item(), both.unseen_confidence_limit.item())
    )
    save_file(
        {key: getattr(gate, name) for name, key in TENSORS.items() if name not in OPTIONAL},
        tmp_path / OOD_STATISTICS,
    )
    assert read_ood_detector(tmp_path, 4).confidence_limit == 0
    write_ood_detector(tmp_path, replace(both, unseen_confidence_limit=both.confidence_limit + 0.05))
    with pytest.raises(EntryError, match="training gate"):
        read_ood_detector(tmp_path, 4)


@pytest.mark.parametrize("views", [1, 4])
def test_flags_noise_where_the_model_searches_for_a_cell(tmp_path, views):
    folder = make_entry(tmp_path / "looks", "test_resnet", crop="alone", views=views)
    entry = read_entry(folder)
    drawn = [draw_cell(label, seed) for seed in range(10) for label in LABELS]
    with Runtime("cpu", "fp32") as runtime:
        embedded = embed(runtime, entry, iter(drawn), len(drawn))
    vectors, sure = embedded.vectors, embedded.confidence
    lax = replace(
        fit_ood_detector(vectors, np.arange(40) % 4, vectors), limit=np.array(1e6, np.float32)
    )  # all is familiar to it
    write_ood_detector(folder, with_confidence_limits(lax, sure))
    nothing = Image.new("RGB", (80, 80), (240, 230, 225))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8))
    with Runtime("cpu", "fp32") as runtime:
        assert [runtime.classify(entry, cell).familiarity for cell in drawn].count("familiar") > 36
        for picture in (nothing, noise):
            assert runtime.classify(entry, picture).familiarity == "unknown"
            for method in ("grad-cam", "occlusion"):
                assert runtime.explain(entry, picture, method=method).prediction.familiarity == "unknown"
