"""Adaptation to another laboratory makes a new entry, and its gain is measured on cells that had no part in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.making import ARCHITECTURES, LABELS, draw_cell, make_entry
from training.cli import main
from zoo.adaptation import Choice, adapt, fit_layer
from zoo.architectures import is_own
from zoo.entry import EntryError, read_entry, read_predictions
from zoo.imaging.preprocess import augmented_views
from zoo.scores import metrics
from zoo.serving.models.loaded import LoadedModel
from zoo.serving.ood import fit_ood_detector, read_ood_detector, write_ood_detector
from zoo.serving.runtime import Runtime


def foreign(label: str, seed: int) -> Image.Image:
    """A cell of another laboratory: another stain."""
    return ImageOps.invert(draw_cell(label, seed))


@pytest.fixture
def source(tmp_path) -> Path:
    return make_entry(tmp_path / "zoo" / "mine", "test_resnet", 3)


@pytest.fixture
def folder(tmp_path) -> Path:
    for label in LABELS:
        place = tmp_path / "cells" / label.upper()
        place.mkdir(parents=True)
        for seed in range(8):
            foreign(label, seed).save(place / f"{seed}.png")
    return tmp_path / "cells"


def given(each: int, first: int = 0) -> tuple[list[Image.Image], list[str]]:
    pairs = [(foreign(label, seed), label) for label in LABELS for seed in range(first, first + each)]
    return [image for image, _ in pairs], [label for _, label in pairs]


def test_the_command_makes_an_entry_that_is_better_in_that_laboratory(source, folder, tmp_path, capsys):
    out = tmp_path / "zoo" / "ours"
    assert main(["adapt", str(source), "--data", str(folder), "--out", str(out), "--name", "our lab", "--json"]) == 0
    printed, log = capsys.readouterr()
    record = json.loads(printed)
    assert "cross-validated on 32 cells" in log
    entry = read_entry(out)
    assert entry.usable
    assert entry.labels == read_entry(source).labels
    with Runtime("cpu", "fp32") as runtime:
        images, labels = given(6, 100)

        def right(one) -> float:
            return float(np.mean([runtime.classify(one, i).label == n for i, n in zip(images, labels, strict=True)]))

        assert right(entry) > right(read_entry(source)) + 0.2, "on cells that it never saw"
    # what it says of itself follows from the predictions it keeps
    table = read_predictions(entry, "our-lab-crossval")
    found = metrics.evaluate(table, entry.labels)["balanced_accuracy"]
    assert record["after"]["value"] == pytest.approx(found.value)
    assert record["gain"]["value"] == pytest.approx(record["after"]["value"] - record["before"]["value"])
    assert record["gain"]["low"] <= record["gain"]["value"] <= record["gain"]["high"]
    assert set(entry.evaluation.benchmarks) == {"our-lab-crossval"}
    assert entry.config.zoo.model_extra["adapted"]["labelled"] == dict.fromkeys(LABELS, 8)


def test_patients_are_kept_together(source, tmp_path):
    """Each patient has cells of one class: a model made without them knows nothing of that class."""
    images, labels = given(5)
    rows = [row for row, label in enumerate(labels) if label in LABELS[:2]]
    pictures, names = [images[row] for row in rows], [labels[row] for row in rows]
    made = {
        count: adapt(read_entry(source), pictures, names, tmp_path / f"made{count}", "north", groups=groups)
        for count, groups in ((0, None), (2, names))
    }
    assert [one.groups for one in made.values()] == list(made)
    assert made[0].after.value > made[2].after.value
    assert "too high" in made[0].folds_told and "in two folds (2 in all)" in made[2].folds_told


@pytest.mark.parametrize(
    ("groups", "told"),
    [(["a"] * 10, "of one patient"), (["a"] * 9 + ["b"], "(2 in all)"), ([None] * 5 + ["a"] * 5, "(6 in all)")],
)
def test_odd_groups_are_scored(source, tmp_path, groups, told):
    images, labels = given(5)
    rows = [row for row, label in enumerate(labels) if label in LABELS[:2]]
    pictures, names = [images[row] for row in rows], [labels[row] for row in rows]
    made = adapt(read_entry(source), pictures, names, tmp_path / "made", "north", groups=groups)
    assert made.after is not None and np.isfinite(made.after.value) and told in made.folds_told


def test_shuffled_labels_gain_nothing(source, tmp_path):
    """Nothing can be learnt from shuffled labels, and the cross-validation shows it."""
    images, labels = given(12)
    shuffled = list(np.random.default_rng(1).permutation(labels))
    made = adapt(read_entry(source), images, shuffled, tmp_path / "out", "nowhere")
    assert made.after.low < 0.3
    assert made.after.value < 0.5


def test_claims_no_gain_without_labels(source, folder, tmp_path, capsys):
    loose = tmp_path / "loose"
    loose.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        path.rename(loose / f"{number}.png")
    (loose / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "zoo" / "ours"
    assert main(["adapt", str(source), "--data", str(loose), "--out", str(out), "--json"]) == 1
    printed, log = capsys.readouterr()
    record = json.loads(printed)
    assert "bad.png" in log
    assert "accuracy cannot be measured" in log
    assert record["gain"] is None
    entry = read_entry(out)
    assert entry.usable
    assert not entry.evaluation.benchmarks
    with Runtime("cpu", "fp32") as runtime:
        cell = foreign("monocyte", 1)
        assert runtime.classify(entry, cell).probabilities != runtime.classify(read_entry(source), cell).probabilities


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kind_of_network_can_be_adapted(architecture, tmp_path):
    source = read_entry(make_entry(tmp_path / "mine", architecture, 1))
    images, labels = given(5)
    made = adapt(source, images, labels, tmp_path / "out", "lab")
    assert made.entry.usable
    assert made.labelled == 20
    assert is_own(architecture) == is_own(made.entry.config.architecture)


def test_the_same_pictures_make_the_same_model_and_leave_its_source_alone(source, tmp_path):
    entry, (images, labels) = read_entry(source), given(5)
    before = (source / "model.safetensors").read_bytes()
    for name in ("out", "again"):
        adapt(entry, images, labels, tmp_path / name, "lab")
    assert (source / "model.safetensors").read_bytes() == before
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["monocyte"] * 4 + ["neutrophil"] * 6, "too few cells of monocyte"),
        (["monocyte"] * 10, "Give 5 cells of two classes"),
        (["unicorn"] * 10, "no class 'unicorn'"),
        ([None] * 9, "10 are needed"),
        ([], "10 are needed"),
    ],
    ids=["few", "one class", "unknown class", "few loose", "none"],
)
def test_refuses_too_few_cells_and_writes_nothing(source, tmp_path, labels, words):
    images = [draw_cell("monocyte", n) for n in range(len(labels))]
    with pytest.raises(EntryError, match=words):
        adapt(read_entry(source), images, labels, tmp_path / "out", "lab")
    assert not (tmp_path / "out").exists()


def test_refuses_a_model_without_a_linear_last_layer(tmp_path):
    from tests.zoo.serving.test_heads import make_headed  # noqa: PLC0415

    headed = read_entry(make_headed(tmp_path / "headed", "knn"))
    images, labels = given(5)
    with pytest.raises(EntryError, match="linear last layer"):
        adapt(headed, images, labels, tmp_path / "out", "lab")


def test_writes_nothing_if_stopped(source, tmp_path):
    images, labels = given(5)

    def stop(share: float, what: str) -> None:
        if share > 0.9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(read_entry(source), images, labels, tmp_path / "out", "lab", progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zoo"]


def test_a_strong_penalty_keeps_the_layer_and_a_weak_one_fits_it():
    torch.manual_seed(0)
    vectors, numbers = torch.randn(40, 1, 6).double(), np.arange(40) % 3
    weight, bias = torch.randn(3, 6).double(), torch.zeros(3).double()
    near, far = (fit_layer(vectors, numbers, weight, bias, strength) for strength in (1e6, 1e-6))
    assert torch.allclose(near[0], weight, atol=1e-3)
    fitted = (vectors[:, 0] @ far[0].T + far[1]).argmax(1).numpy()
    assert (fitted == numbers).mean() > ((vectors[:, 0] @ weight.T).argmax(1).numpy() == numbers).mean()


def test_views_are_rotations_of_one_picture():
    pixels = np.arange(3 * 4 * 4).reshape(3, 4, 4)
    views = augmented_views(pixels, 8)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    assert all(sorted(view.flatten().tolist()) == sorted(pixels.flatten().tolist()) for view in views)
    assert augmented_views(np.zeros((3, 4, 6)), 8).shape == (4, 3, 4, 6)


def test_new_cells_are_familiar_to_the_ood_detector(source, tmp_path):
    entry = read_entry(source)
    images, labels = given(8)
    with torch.inference_mode():
        loaded = LoadedModel(entry, torch.device("cpu"), "fp32")
        home = np.stack([loaded.embed([loaded.pixels(draw_cell(n, s))])[0] for n in LABELS for s in range(10)])
    write_ood_detector(source, fit_ood_detector(home, np.repeat(np.arange(4), 10), home))
    made = adapt(entry, images, labels, tmp_path / "out", "lab")
    gate = read_ood_detector(tmp_path / "out", 4)
    if made.choice.statistics:
        assert gate is None, "the detector was fitted on other embeddings"
    else:
        with Runtime("cpu", "fp32") as runtime:
            known = [runtime.classify(made.entry, image).familiarity == "familiar" for image in images]
        assert np.mean(known) > 0.9


def test_a_choice_says_what_it_changes():
    assert "as it is" in str(Choice(False, None))
    assert "statistics" in str(Choice(True, 0.1))
