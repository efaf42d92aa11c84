"""Benchmarks are what their files say, labels are joined by name, corruptions are the same everywhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

from tests.making import LABELS, draw_cell, draw_smear, register_benchmark
from zoo import benchmarks
from zoo.benchmarks import BenchmarkSet, corruptions, get_benchmark, robustness, scoring
from zoo.data import DataError
from zoo.imaging.localise import find_cell
from zoo.scores.temperature import AS_STORED

EIGHT = ["basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet"]


HASHES = {
    "bccd-crops": "2dc532efa046581b",
    "dataset2-test": "f1e24d9892eeee70",
    "dataset2-test-corrupted": "78aab3ab79b346b5",
    "jhu": "558aa4f3e68d280b",
    "jhu-5": "64e8781cef73eb96",
    "lisc": "fdeacece77183468",
    "lisc-5": "0892edb4603750bf",
    "pbc-test": "4a2dc35ca630f24a",
    "pbc-test-corrupted": "ca1df7a623ca31e1",
    "pbc-test-shifted": "3a72a727ef9a01df",
    "tecom": "723bdf4ec3a0262b",
}
BLOOD = [
    "clean",
    "pixelate",
    "jpeg_compression",
    "defocus_blur",
    "motion_blur",
    "brightness_up",
    "brightness_down",
    "contrast_up",
    "contrast_down",
    "saturate",
    "stain_deposit",
    "bubble",
]


@pytest.mark.parametrize("name", benchmarks.names())
def test_every_benchmark_is_whole(name):
    found = get_benchmark(name)
    assert set(found.rows["label"]) == set(found.labels)
    assert found.rows["file"].is_unique and found.rows["cell"].notna().all()
    assert set(found.mapping(found.labels).values()) == set(found.labels)
    # the labels of augmented copies are those of their frame; patients have cells of several kinds
    several = found.data_set.augmented_from or found.data_set.cells.by == "file"
    assert found.rows.groupby("cell")["label"].nunique().max() == 1 or several
    assert len(found.hash) == 64


@pytest.mark.parametrize("name", [name for name, d in benchmarks.published().items() if d.part == "sample"])
def test_corrupted_subsets_are_balanced_and_of_the_test_set(name):
    found, whole = get_benchmark(name), get_benchmark(get_benchmark(name).definition.rows)
    both = found.rows.merge(whole.rows, on=["file", "cell", "label"])
    assert len(both) == len(found.rows)
    assert found.rows["label"].value_counts().nunique() == 1


def test_published_benchmarks_stay_the_same():
    """Evaluation files keep these hashes; a benchmark that changes gets a new version."""
    assert {name: get_benchmark(name).hash[:16] for name in HASHES} == HASHES
    blood = corruptions.SETS[corruptions.BLOOD]
    assert len(blood) == 56
    assert [kind for kind, severity in blood if severity in (0, 1)] == BLOOD


def test_the_hash_covers_rows_labels_and_version():
    found = get_benchmark("lisc")
    shuffled = BenchmarkSet("lisc", found.definition, found.rows.sample(frac=1, random_state=0))
    assert shuffled.hash == found.hash
    assert BenchmarkSet("lisc", found.definition, found.rows.iloc[1:]).hash != found.hash
    newer = found.definition.model_copy(update={"version": 99})
    assert BenchmarkSet("lisc", newer, found.rows).hash != found.hash


def test_unknown_benchmark_and_missing_pictures_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no benchmark called lisk.*lisc"):
        get_benchmark("lisk")
    with pytest.raises(DataError, match=r"189 of 189 pictures of lisc are not in .*--data"):
        get_benchmark("lisc").pictures(tmp_path)


@pytest.mark.parametrize(
    ("more", "rows", "sentence"),
    [
        ("colour = 1\n", "file,cell,label\n", "drawn.toml is not a benchmark: there is no key colour."),
        ('corruptions = "dirt"\n', "file,cell,label\n", "there is no set dirt; there are shifted, blood"),
        ('part = "sample"\n', "file,cell,label\n", "needs rows and per_class"),
        ('part = "test"\n', "file,cell,label\n", "needs recipe"),
        ('data = "jhu"\n', "file,cell,label\n", "scores eosinophil, whose labels in jhu are not good enough"),
        ('data = "nowhere"\n', "file,cell,label\n", "no data set called nowhere"),
        ("", "file,label\n", "drawn.csv has no column cell."),
        ("", "file,cell,label\na.png,a,blast\n", "drawn.csv has labels that drawn.toml lacks: blast."),
    ],
)
def test_a_wrong_benchmark_is_refused_with_a_sentence(tmp_path, monkeypatch, more, rows, sentence):
    monkeypatch.setenv("HEMAZOO_REGISTRY", str(tmp_path))
    register_benchmark(tmp_path, "drawn", "lisc", rows)
    path = tmp_path / "benchmarks" / "drawn.toml"
    text = path.read_text()
    path.write_text(text.replace('data = "lisc"\n', more) if more.startswith("data") else text + more)
    with pytest.raises(DataError) as refusal:
        get_benchmark("drawn")
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("kind", corruptions.KINDS)
def test_corruptions_are_reproducible_and_increase_with_severity(kind):
    image = draw_cell("neutrophil", 3, (120, 90))
    clean = np.asarray(corruptions.corrupt(image, "a.png", corruptions.CLEAN, 0), float)
    assert clean.shape == (224, 299, 3)
    away = []
    for severity in corruptions.SEVERITIES:
        found = corruptions.corrupt(image, "a.png", kind, severity)
        again = corruptions.corrupt(image, "a.png", kind, severity)
        assert found.mode == "RGB" and found.tobytes() == again.tobytes()
        away.append(np.abs(np.asarray(found, float) - clean).mean())
    assert away[0] > 0
    assert away[-1] > away[0]
    with pytest.raises(IndexError, match="severity 6"):
        corruptions.corrupt(image, "a.png", kind, 6)


def test_random_corruptions_depend_on_the_picture_name():
    image = draw_cell("monocyte", 1)
    one, other = (corruptions.corrupt(image, name, "bubble", 3) for name in ("a.png", "b.png"))
    assert one.tobytes() != other.tobytes()


def test_motion_blur_keeps_the_mean_brightness():
    """A kernel that adds up to one: the mean of a picture far from its edges stays."""
    dot = np.full((224, 224, 3), 100, np.uint8)
    dot[100:124, 100:124] = 250
    blurred = np.asarray(corruptions.motion(Image.fromarray(dot), (10, 9), np.random.default_rng(0)), float)
    assert blurred.mean() == pytest.approx(dot.mean(), abs=0.6)
    assert blurred.max() < 251


def test_names_of_corrupted_pictures():
    name = corruptions.corrupted_name("TEST/a_1.png", "jpeg_compression", 4)
    assert corruptions.split_name(name) == ("TEST/a_1.png", "jpeg_compression", 4)
    assert corruptions.split_name("a#2.png") == ("a#2.png", corruptions.CLEAN, 0)


def test_corruption_errors_relative_to_alexnet():
    random = np.random.default_rng(1)
    rows = []
    for kind, severity in corruptions.SETS[corruptions.BLOOD]:
        for n in range(40):
            shares = random.dirichlet(np.ones(4)) + 0.4 * np.eye(4)[n % 4]
            name = corruptions.corrupted_name(f"{n}.png", kind, severity)
            rows.append([name, f"cell-{n}", LABELS[n % 4], *(shares / shares.sum())])
    table = pd.DataFrame(rows, columns=["file", "cell", "label", *LABELS])
    found = robustness.errors(table, LABELS)
    parts = robustness.parted(table)
    means = {}
    for (kind, severity), estimate in found.items():
        mine = parts[(parts["kind"] == kind) & (parts["severity"] == severity)]
        called = [LABELS[n] for n in mine[LABELS].to_numpy().argmax(1)]
        assert estimate.value == pytest.approx(1 - balanced_accuracy_score(mine["label"], called))
        assert estimate.interval.low <= estimate.value <= estimate.interval.high
        means.setdefault(kind, []).append(estimate.value)
    clean = means.pop(corruptions.CLEAN)[0]
    summary = scoring.score(table, LABELS, AS_STORED).scores
    by_alexnet = [np.mean(v) / corruptions.KINDS[kind].alexnet for kind, v in means.items()]
    lost = [(np.mean(v) - clean) / (corruptions.KINDS[k].alexnet - corruptions.ALEXNET_CLEAN) for k, v in means.items()]
    assert summary["corruption_error"].value == pytest.approx(np.mean([np.mean(v) for v in means.values()]))
    assert summary["corruption_error_alexnet"].value == pytest.approx(np.mean(by_alexnet))
    assert summary["relative_corruption_error_alexnet"].value == pytest.approx(np.mean(lost))
    assert len(robustness.by_kind(found)) == 56


def test_a_shifted_picture_keeps_its_cell_in_the_middle():
    image = draw_smear("neutrophil", 3)
    first = corruptions.corrupt(image, "a.png", corruptions.SHIFTED, 1)
    assert np.array_equal(first, corruptions.corrupt(image, "a.png", corruptions.SHIFTED, 1))
    other = corruptions.corrupt(image, "b.png", corruptions.SHIFTED, 1)
    assert first.size == other.size == (corruptions.SIDE, corruptions.SIDE)
    clean = np.asarray(corruptions.corrupt(image, "a.png", corruptions.CLEAN, 0), float)
    for changed in (first, other):
        assert np.abs(np.asarray(changed, float) - clean).mean() > 15
        found = find_cell(changed)
        assert found is not None  # and it is in the middle, wherever it was
        assert np.abs(np.array(found.centre) / corruptions.SIDE - 0.5).max() < 0.2
    blank = Image.new("RGB", (90, 60), (230, 220, 215))
    assert corruptions.corrupt(blank, "c.png", corruptions.SHIFTED, 1).size == (corruptions.SIDE, corruptions.SIDE)
    name = corruptions.corrupted_name("a.png", corruptions.SHIFTED, 1)
    assert corruptions.split_name(name) == ("a.png", corruptions.SHIFTED, 1)


def test_shifted_pictures_have_no_corruption_error():
    names = [corruptions.corrupted_name(f"{n}.png", corruptions.SHIFTED, 1) for n in range(20)]
    truth = [LABELS[n % 4] for n in range(20)]
    table = pd.DataFrame(np.random.default_rng(2).dirichlet(np.ones(4), 20), columns=LABELS)
    table = table.assign(file=names, cell=names, label=truth)[["file", "cell", "label", *LABELS]]
    assert not scoring.is_corrupted(table)
    assert "corruption_error" not in scoring.score(table, LABELS, AS_STORED).scores
