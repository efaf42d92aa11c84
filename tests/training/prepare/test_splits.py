"""No source cell is on two sides of a split, whatever the data; and a split is named by its content."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.making import LABELS, draw_smears
from training.cli import main
from training.prepare.cleaning import Suspects, clean, resample, row_weights
from training.prepare.dataset import TrainingDataError
from training.prepare.manifest import make_manifest, read_manifest, split_of_manifest, write_manifest
from training.prepare.splits import (
    SIDES,
    Table,
    extended_split,
    kfold_split,
    official_split,
    random_split,
    split_by,
    stratified_split,
)
from training.recipe import Balance, Clean
from zoo.data import read_dataset


def table(cells: int, copies: int = 1, parts: list[str | None] | None = None) -> Table:
    count = cells * copies
    return Table(
        tuple(f"{n}.png" for n in range(count)),
        tuple(LABELS[(n // copies) % 4] for n in range(count)),
        tuple(f"cell-{n // copies}" for n in range(count)),
        tuple(f"{n:064}" for n in range(count)),
        tuple(parts or [None] * count),
        (True,) * count,
    )


def sides(split) -> list[set[str]]:
    return [{split.cells[i] for i in split.rows[side]} for side in SIDES]


def crosses(split) -> bool:
    train, val, test = sides(split)
    return bool(train & val or train & test or val & test)


def test_added_pictures_leave_the_others_on_their_sides():
    before = table(40, 2, ["test" if n % 5 == 0 else "train" for n in range(40) for _ in range(2)])
    count = len(before.files)
    more = table(24)
    whole = Table(
        before.files + tuple(f"more/{file}" for file in more.files),
        before.labels + more.labels,
        before.cells + tuple(f"more/{cell}" for cell in more.cells),
        before.pixels + tuple(f"m{pixels[1:]}" for pixels in more.pixels),
        before.parts + ("train",) * 24,
        before.known + more.known,
    )
    added = np.arange(count + 24) >= count
    split, alone = extended_split(whole, added, 0.2, 3), official_split(before, 0.2, 3)
    assert split.extends == alone.hash != split.hash
    for side in SIDES:
        assert np.array_equal(split.rows[side][split.rows[side] < count], alone.rows[side])
    assert not crosses(split)
    new = {side: (split.rows[side] >= count).sum() for side in SIDES}
    assert new["test"] == 0 < new["val"] < new["train"]
    with pytest.raises(TrainingDataError, match="test pictures of its own"):
        extended_split(whole, ~added, 0.2, 3)
    with pytest.raises(TrainingDataError, match=r"data\.added"):
        extended_split(whole, added | True, 0.2, 3)


@st.composite
def tables(draw) -> Table:
    """Any data set: cells of one to nine copies, a class with few cells, some copies with another label or unknown."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=24, max_size=60))
    cells = [f"c{n}" for n, size in enumerate(sizes) for _ in range(size)]
    labels = [LABELS[int(cell[1:]) % 3] for cell in cells]
    for n in draw(st.sets(st.integers(0, len(cells) - 1), max_size=4)):
        labels[n] = draw(st.sampled_from(LABELS[:3]))
    known = [True] * len(cells)
    for n in draw(st.sets(st.integers(0, len(cells) - 1), max_size=4)):
        known[n] = False
    parts = ["test" if int(cell[1:]) % 5 == 0 else "train" for cell in cells]
    for n in draw(st.sets(st.integers(0, len(cells) - 1), max_size=3)):
        parts[n] = draw(st.sampled_from(["train", "test"]))  # the data set's own split may leak
    files = tuple(f"{n}.png" for n in range(len(cells)))
    pixels = tuple(f"{n:064}" for n in range(len(cells)))
    return Table(files, tuple(labels), tuple(cells), pixels, tuple(parts), tuple(known))


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 5), st.sampled_from(["stratified", "grouped", "kfold", "official"]))
def test_no_cell_is_on_two_sides(data, seed, scheme):
    try:
        split = split_by(scheme, data, (0.7, 0.15, 0.15), seed, folds=3, fold=seed % 3)
    except TrainingDataError as error:
        assert "few" in str(error)
        return
    assert not crosses(split)
    assert not split.leaky
    assert split.leak_share == 0
    used = np.concatenate([split.rows[side] for side in SIDES])
    assert len(used) == len(set(used))
    again = split_by(scheme, data, (0.7, 0.15, 0.15), seed, folds=3, fold=seed % 3)
    assert again.hash == split.hash
    assert all((again.rows[side] == split.rows[side]).all() for side in SIDES)


@pytest.mark.parametrize("seed", range(3))
def test_shares_and_classes(seed):
    data = table(400, copies=2)
    split = stratified_split(data, 0.1, 0.15, seed)
    assert len(split.rows["test"]) / 800 == pytest.approx(0.15, abs=0.02)
    assert len(split.rows["val"]) / 800 == pytest.approx(0.10, abs=0.02)
    for side in SIDES:
        counts = np.unique([data.labels[i] for i in split.rows[side]], return_counts=True)[1]
        assert counts.max() - counts.min() <= 4


def test_the_hash_of_a_split_depends_on_its_content():
    data = table(80)
    one = stratified_split(data, 0.1, 0.2, 0)
    assert one.hash == stratified_split(data, 0.1, 0.2, 0).hash
    assert one.hash != stratified_split(data, 0.1, 0.2, 1).hash
    other = replace(data, pixels=("x" * 64, *data.pixels[1:]))
    assert one.hash != stratified_split(other, 0.1, 0.2, 0).hash


def test_one_cell_under_two_labels_is_left_out():
    data = table(80)
    data = replace(data, labels=(*data.labels[:79], "eosinophil"), cells=(*data.cells[:79], "cell-1"))
    assert data.labels[1] != data.labels[79]
    split = stratified_split(data, 0.1, 0.2, 0)
    used = {i for rows in split.rows.values() for i in rows}
    assert {1, 79}.isdisjoint(used)
    assert split.left_out == {"one cell under different labels": 2}


def test_the_folds_test_every_picture_once():
    data = table(60, copies=3)
    tested = [kfold_split(data, 5, fold, 0.15, 0).rows["test"] for fold in range(5)]
    assert sorted(np.concatenate(tested)) == list(range(180))


def test_official_split_excludes_what_could_leak():
    parts = ["train"] * 200 + ["test"] * 40
    data = table(48, copies=5, parts=parts)
    cells, known = list(data.cells), [True] * 240
    known[0], known[239] = False, False
    cells[0], cells[239] = "unknown-0", "unknown-239"
    cells[4] = "cell-40"  # a cell of TEST
    data = replace(data, cells=tuple(cells), known=tuple(known), labels=tuple("ab"[(n // 5) % 2] for n in range(240)))
    split = official_split(data, 0.2, 0)
    assert set(split.rows["test"]) == set(range(200, 240))
    used = set(split.rows["train"]) | set(split.rows["val"])
    assert used == set(range(200)) - {0, 4}
    assert split.left_out == {"source cell unknown": 1, "source cell also in TEST": 1}
    assert not crosses(split)


def test_official_split_needs_a_test_set():
    with pytest.raises(TrainingDataError, match="no TRAIN and TEST"):
        official_split(table(40), 0.2, 0)


def test_random_split_is_leaky_and_reports_how_much():
    data = table(40, copies=20)
    split = random_split(data, 0.1, 0.2, 0)
    assert crosses(split)
    assert split.leaky
    trained = {data.cells[i] for i in split.rows["train"]}
    assert split.leak_share == np.mean([data.cells[i] in trained for i in split.rows["test"]])
    assert split.leak_share > 0.9
    assert random_split(table(40), 0.1, 0.2, 0).leak_share == 0


def test_a_rare_class_leaves_the_others_their_training_pictures():
    labels = ["neutrophil"] * 60 + ["lymphocyte"] * 6 + ["basophil"] * 3
    files = [f"{number}.png" for number in range(len(labels))]
    split = split_by("stratified", Table.plain(files, labels, files), (0.65, 0.15, 0.2), 0)
    counts = {side: Counter(labels[row] for row in rows) for side, rows in split.rows.items()}
    assert all(set(count) == set(labels) for count in counts.values())
    assert counts["train"]["neutrophil"] >= 36


def test_refuses_to_split_too_few_cells():
    with pytest.raises(TrainingDataError, match="fewer than two"):
        stratified_split(table(5), 0.2, 0.2, 0)
    with pytest.raises(TrainingDataError, match="too few for 9 folds"):
        kfold_split(table(20), 9, 0, 0.2, 0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_smears(tmp_path_factory.mktemp("drawn") / "set", 10)


@pytest.fixture
def manifest(drawn, tmp_path):
    data = read_dataset(drawn)
    plain = Table.plain([i.file for i in data.items], [i.label for i in data.items], data.digests)
    split = stratified_split(plain, 0.2, 0.2, 0)
    path = tmp_path / "split.json"
    write_manifest(path, make_manifest(data, plain, split, "stratified", 0, (0.6, 0.2, 0.2)))
    return path, data, split


def test_a_manifest_restores_its_split(manifest):
    path, data, split = manifest
    found = split_of_manifest(read_manifest(path, data), [i.file for i in data.items], set(LABELS))
    assert all((found.rows[side] == split.rows[side]).all() for side in SIDES)


@pytest.mark.parametrize("change", ["picture", "gone", "label", "edited", "no manifest", "other text"])
def test_a_manifest_refuses_other_data(manifest, change):
    path, data, _ = manifest
    items = list(data.items)
    if change == "picture":
        items[0] = replace(items[0], source=items[1].source)
    elif change == "gone":
        items = items[1:]
    elif change == "label":
        items[0] = replace(items[0], label="monocyte")
    elif change == "edited":
        content = json.loads(path.read_text())
        content["rows"][0][3] = "val" if content["rows"][0][3] != "val" else "train"
        path.write_text(json.dumps(content))
    elif change == "no manifest":
        path.unlink()
    else:
        path.write_text('{"rows": 3}')
    with pytest.raises(TrainingDataError) as error:
        read_manifest(path, replace(data, items=tuple(items)))
    assert str(error.value).endswith(".")


def test_the_split_command(drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "split.json"
    command = ["split", str(drawn), "--out", str(out), "--json", "--fractions", "0.6,0.2,0.2", "--seed", "3"]
    assert main([*command, "--scheme", "grouped"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(told["images"].values()) == 40
    assert told["leaky"] is False
    assert main([*command, "--scheme", "grouped"]) == 2  # it is there already
    assert main([*command, "--scheme", "grouped", "--restart"]) == 0
    assert json.loads(capsys.readouterr().out)["hash"] == told["hash"]
    assert main([*command, "--scheme", "random", "--restart"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["leaky"] is True
    assert "LEAKY" in captured.err
    folds = tmp_path / "fold.json"
    assert main(["split", str(drawn), "--scheme", "kfold", "--folds", "3", "--out", str(folds)]) == 0
    assert sorted(p.name for p in tmp_path.glob("fold*")) == ["fold-1.json", "fold-2.json", "fold-3.json"]
    with pytest.raises(SystemExit):
        main([*command, "--scheme", "grouped", "--fractions", "0.9,0.2,0.2"])


def test_cleaning_changes_training_only_and_reports_counts():
    data = table(40, copies=3)
    split = stratified_split(data, 0.2, 0.2, 0)
    train = split.rows["train"]
    suspects = Suspects(frozenset({int(train[0])}), frozenset({int(train[1])}), frozenset(split.rows["test"].tolist()))
    rules = Clean(duplicates="near", outliers=True, label_errors=True, contradictory=True)
    found = clean(split, rules, data.cells, data.pixels, suspects)
    assert (found.rows["test"] == split.rows["test"]).all()
    assert (found.rows["val"] == split.rows["val"]).all()
    kept = [data.cells[i] for i in found.rows["train"]]
    assert len(kept) == len(set(kept))
    assert {int(train[0]), int(train[1])}.isdisjoint(found.rows["train"].tolist())
    assert sum(found.left_out.values()) == len(train) - len(kept)
    assert found.left_out["training: copy of another picture"] == 2 * len(train) // 3
    with pytest.raises(ValueError, match="audit"):
        clean(split, Clean(outliers=True), data.cells, data.pixels, None)


@pytest.mark.parametrize("how", ["downsample", "oversample"])
def test_resampling_balances_classes(how):
    labels = np.array([0] * 30 + [1] * 7 + [2] * 12)
    split = replace(stratified_split(table(40), 0.2, 0.2, 0), rows={"train": np.arange(49)})
    found = resample(split, Balance(resample=how), labels, 0)
    counts = np.bincount(labels[found.rows["train"]])
    assert set(counts) == {7 if how == "downsample" else 30}
    assert set(found.rows["train"]) <= set(range(49))
    if how == "oversample":
        assert set(found.rows["train"]) == set(range(49))


def test_a_bootstrap_draws_each_class_with_replacement_and_anew_for_each_run():
    labels = np.array([0] * 30 + [1] * 7 + [2] * 12)
    split = replace(stratified_split(table(40), 0.2, 0.2, 0), rows={"train": np.arange(49)})
    drawn = [resample(split, Balance(resample="bootstrap"), labels, seed).rows["train"] for seed in (0, 0, 1)]
    assert np.bincount(labels[drawn[0]]).tolist() == [30, 7, 12]
    assert 25 <= len(set(drawn[0])) <= 40  # about two thirds
    assert drawn[0].tolist() == drawn[1].tolist() != drawn[2].tolist()


def test_resampling_keeps_classes_within_sizes():
    labels = np.array([0] * 30 + [1] * 7 + [2] * 12)
    split = replace(stratified_split(table(40), 0.2, 0.2, 0), rows={"train": np.arange(49)})
    found = resample(split, Balance(resample="within", class_sizes=(10, 20)), labels, 0)
    assert np.bincount(labels[found.rows["train"]]).tolist() == [20, 10, 12]
    with pytest.raises(ValueError, match="belong together"):
        Balance(resample="within")


def test_a_holdout_validates_and_tests_on_the_same_pictures():
    data = table(40)
    for scheme in ("holdout", "first"):
        split = split_by(scheme, data, (0.7, 0.1, 0.2), 3)
        assert split.leaky
        assert split.rows["val"].tolist() == split.rows["test"].tolist()
        assert len(split.rows["train"]) + len(split.rows["test"]) == len(data.files)
    # by name: the first fifth of each class, as Keras takes it
    for label in set(data.labels):
        own = sorted(file for file, one in zip(data.files, data.labels, strict=True) if one == label)
        held = [data.files[row] for row in split.rows["test"] if data.labels[row] == label]
        assert sorted(held) == own[: int(0.2 * len(own))]


def test_weights_are_inverse_to_frequency_and_to_copies():
    labels = np.array([0] * 30 + [1] * 10)
    cells = ["big"] * 20 + [f"c{n}" for n in range(20)]
    split = replace(stratified_split(table(40), 0.2, 0.2, 0), rows={"train": np.arange(40)})
    by_class = row_weights(Balance(class_weights=True), split, labels, cells)
    assert by_class[:30].sum() == pytest.approx(by_class[30:].sum())
    by_cell = row_weights(Balance(sample_weights=True), split, labels, cells)
    assert by_cell[:20].sum() == pytest.approx(by_cell[20])
    both = row_weights(Balance(class_weights=True, sample_weights=True), split, labels, cells)
    assert both[:30].sum() == pytest.approx(both[30:].sum())
    assert both.mean() == pytest.approx(1)
    assert (row_weights(Balance(), split, labels, cells) == 1).all()
