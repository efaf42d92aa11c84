"""The compare page as a session sees it: figures match the predictions, bad files are reported, addresses are views."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.making import LABELS, add_evaluation, draw_cell, make_entry, make_predictions
from tests.pages.test_pages import ROOT, go, picker, said
from zoo.benchmarks import leaderboard, scoring
from zoo.entry import read_entry, read_predictions, write_predictions
from zoo.files import write_json
from zoo.sources.catalogue import get_entry

TABS = [
    "Class by class",
    "ROC and PR",
    "Calibration",
    "Corruption",
    "Agreement",
    "Other laboratories",
    "Training curves",
    "All scores",
]


@pytest.fixture
def opened(zoo_environment):
    """Opens the page at an address."""

    def visit(**query: object) -> AppTest:
        st.cache_resource.clear()
        st.cache_data.clear()
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=90).run()
        for key, value in query.items():
            app.query_params[key] = value
        return go(app, "compare")

    return visit


def tables(app: AppTest) -> list[pd.DataFrame]:
    return [table.value for table in app.dataframe]


def test_an_address_is_a_view(opened):
    app = opened(models=["tiny-cnn60", "tiny-test-vit"], benchmark="drawn-test", tab="All scores")
    assert app.multiselect[0].value == ["tiny-cnn60", "tiny-test-vit"]
    scores = next(table for table in tables(app) if "score" in table).set_index("score")
    for name in ("tiny-cnn60", "tiny-test-vit"):
        entry = get_entry(name)
        table = read_predictions(entry, "drawn-test")
        share = (table[LABELS].to_numpy().argmax(1) == [LABELS.index(label) for label in table["label"]]).mean()
        found = entry.evaluation.benchmarks["drawn-test"].metrics["accuracy"]
        assert found.value == share
        assert (
            scores.loc["accuracy", entry.title]
            == f"{100 * share:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"
        )
    # and what is chosen comes into the address
    app.multiselect[0].set_value(["tiny-cnn60"]).run()
    assert "tiny-cnn60" in app.query_params["models"] and "vit" not in str(app.query_params["models"])


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_with_one_model_and_with_three(opened, tab):
    for models in (["tiny-cnn60"], ["tiny-cnn60", "tiny-test-vit", "tiny-test-resnet"]):
        app = opened(models=models, benchmark="drawn-test", tab=tab)
        assert not app.exception and not app.error
        leaders = tables(app)[0]
        assert leaders["model"].tolist() == [get_entry(name).title for name in models]
        assert leaders["home"].between(1, 100).all(), "percent"


def test_page_evaluation_and_card_show_the_same_scores(opened):
    models = ["cnn60", "wbc4-efficientnet-lite0"]
    app = opened(models=models, benchmark="dataset2-test", tab="All scores")
    scores = next(table for table in tables(app) if "score" in table).set_index("score")
    for name in models:
        entry = get_entry(name)
        found = entry.evaluation.benchmarks["dataset2-test"].metrics
        card = (entry.folder / "README.md").read_text(encoding="utf-8")
        for key, title in (
            ("accuracy", "accuracy"),
            ("macro_f1", "macro F1"),
            ("accuracy_by_cell", "accuracy by source cell"),
        ):
            value, low, high = found[key].value, found[key].low, found[key].high
            assert scores.loc[title, entry.title] == f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            assert f"| {value:.4f} ({low:.4f} to {high:.4f}) |" in card


def scores_of(app: AppTest) -> pd.DataFrame:
    return next(table for table in tables(app) if "score" in table).set_index("score")


def test_models_with_other_classes_are_compared_in_the_labels_of_both(opened):
    """Eight classes and four, in a laboratory whose sample is known."""
    app = opened(models=["champion8", "champion4"], benchmark="lisc", tab="All scores")
    assert not app.exception and not app.error
    for name in ("champion8", "champion4"):
        entry = get_entry(name)
        accuracy = entry.evaluation.benchmarks["lisc"].metrics["accuracy"]
        shown = scores_of(app).loc["accuracy", entry.title]
        assert shown == f"{100 * accuracy.value:.1f} % ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})"
    assert any("Sample: peripheral blood" in caption.value for caption in app.caption)


@pytest.mark.parametrize("tab", ["All scores", "Agreement", "Calibration"])
def test_another_sample_asks_the_stored_networks_again(opened, tab):
    app = opened(models=["champion8", "champion4"], benchmark="tecom", tab=tab)
    before = [table.to_csv() for table in tables(app)[1:]]
    next(box for box in app.selectbox if box.label == "Sample").set_value("alike").run()
    assert not app.exception and not app.error
    assert [table.to_csv() for table in tables(app)[1:]] != before
    assert app.query_params["sample"] in ("alike", ["alike"])
    assert any("Sample: alike" in caption.value for caption in app.caption)
    if tab == "All scores":
        entry = get_entry("champion8")
        expected = entry.evaluation.benchmarks["tecom"].samples["alike"]["accuracy"].value
        assert scores_of(app).loc["accuracy", entry.title].startswith(f"{100 * expected:.1f} %")


def test_a_model_without_network_predictions_is_left_out_by_name(zoo_environment, opened, tmp_path, monkeypatch):
    folder = tmp_path / "old" / "old8"
    shutil.copytree(get_entry("champion8").folder, folder)
    written = json.loads((folder / "evaluation.json").read_text())
    del written["benchmarks"]["tecom"]["network_labels"]
    write_json(folder / "evaluation.json", written)
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path / "old"))
    app = opened(models=["old8", "champion8"], benchmark="tecom", sample="alike", tab="All scores")
    assert not app.exception
    assert any("keeps only its answers on tecom" in error.value for error in app.error)


def test_models_with_one_title_are_distinguished(zoo_environment, tmp_path, monkeypatch, opened):
    for name in ("one", "two"):
        shutil.copytree(zoo_environment / "tiny-cnn60", tmp_path / "twins" / name)
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path / "twins"))
    app = opened(models=["one", "two"], tab="All scores")
    assert {"Tiny cnn60 (one)", "Tiny cnn60 (two)"} <= set(next(t for t in tables(app) if "score" in t).columns)


def test_without_a_model_the_page_says_what_to_do(opened):
    app = opened(models=["tiny-cnn60"])
    app.multiselect[0].set_value([]).run()
    assert "Choose at least one model" in app.info[0].value


def broken(folder, change):
    """Spoil an entry's stored predictions, or what evaluation.json says of them."""
    path = folder / "predictions" / "drawn-test.parquet"
    table = read_predictions(read_entry(folder), "drawn-test")
    written = json.loads((folder / "evaluation.json").read_text())
    record = written["benchmarks"]["drawn-test"]
    if change == "no file":
        path.unlink()
    elif change == "no parquet":
        path.write_bytes(b"PAR1 not")
    elif change == "a label too few":
        pd.read_parquet(path).drop(columns=f"p:{LABELS[0]}").to_parquet(path)
    elif change == "nan":
        write_predictions(path.parents[1], path.stem, table.assign(**{LABELS[1]: np.nan}), LABELS)
    elif change == "twice":
        write_predictions(path.parents[1], path.stem, pd.concat([table, table.head(3)]), LABELS)
    elif change == "none":
        write_predictions(path.parents[1], path.stem, table.head(0), LABELS)
    elif change == "over one":
        write_predictions(path.parents[1], path.stem, table.assign(**{LABELS[1]: 3.0}), LABELS)
    elif change == "strange label":
        write_predictions(path.parents[1], path.stem, table.assign(label="blast"), LABELS)
    elif change == "other labels":
        record["labels"] = [*LABELS[:3], "blast"]
        write_predictions(
            folder, path.stem, table.rename(columns={LABELS[3]: "blast"}).query("label != @LABELS[3]"), record["labels"]
        )
    write_json(folder / "evaluation.json", written)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("no file", "keeps no predictions for drawn-test"),
        ("no parquet", "not a readable parquet file"),
        ("a label too few", "has no column p:eosinophil"),
        ("nan", "not numbers"),
        ("twice", "more than once"),
        ("none", "has no rows"),
        ("over one", "not probabilities"),
        ("strange label", "labels the benchmark lacks: blast"),
        ("other labels", "names other classes"),
    ],
)
def test_bad_predictions_are_reported_and_the_other_models_stay(
    zoo_environment, tmp_path, monkeypatch, opened, change, sentence
):
    mixed = tmp_path / "mixed"
    shutil.copytree(zoo_environment, mixed)
    broken(mixed / "tiny-cnn60", change)
    monkeypatch.setenv("HEMAZOO_ZOO", str(mixed))
    app = opened(models=["tiny-test-vit", "tiny-cnn60"], benchmark="drawn-test", tab="All scores")
    assert sentence in app.error[0].value
    assert "cnn60" in app.error[0].value and "drawn-test" in app.error[0].value
    assert list(next(t for t in tables(app) if "score" in t).columns) == ["score", "Tiny test_vit"]


def test_different_pictures_under_one_benchmark_name_give_a_warning(zoo_environment, tmp_path, monkeypatch, opened):
    mixed = tmp_path / "mixed"
    shutil.copytree(zoo_environment, mixed)
    path = mixed / "tiny-cnn60" / "predictions" / "drawn-test.parquet"
    table = read_predictions(read_entry(mixed / "tiny-cnn60"), "drawn-test")
    write_predictions(path.parents[1], path.stem, table.iloc[10:], LABELS)
    monkeypatch.setenv("HEMAZOO_ZOO", str(mixed))
    app = opened(models=["tiny-test-vit", "tiny-cnn60"], benchmark="drawn-test")
    assert any("different versions of “" in warning.value for warning in app.warning)


def test_disagreements_are_shown_with_pictures_and_maps(zoo_environment, tmp_path, monkeypatch, opened):
    """The data folder is at hand: thumbnails; its pictures come with a button that explains."""
    zoo, data = tmp_path / "zoo", tmp_path / "drawn"
    data.mkdir()
    table = make_predictions(1)
    for file, label in zip(table["file"], table["label"], strict=True):
        draw_cell(label, 1, (48, 48)).save(data / file)
    for seed, name in enumerate(("one", "two")):
        entry = make_entry(zoo / name, "test_resnet", seed, recipe={"data": {"name": "drawn"}})
        add_evaluation(entry, seed)
    monkeypatch.setenv("HEMAZOO_ZOO", str(zoo))
    monkeypatch.setenv("HEMAZOO_DATASETS", str(data))
    app = opened(models=["one", "two"], benchmark="drawn-test", tab="Agreement")
    why = [button for button in app.button if button.label == "Why?"]
    assert why
    why[0].click().run()
    assert not app.exception and not app.error
    assert "gets right" in said(app)


def test_pictures_that_come_with_the_program_are_shown_as_installed(opened, monkeypatch):
    monkeypatch.delenv("HEMAZOO_DATASETS", raising=False)
    app = opened(models=["champion8", "pbc8-efficientnet-lite0"], benchmark="pbc-test", tab="Agreement")
    assert not app.exception and not app.error
    assert app.get("image")
    assert "HEMAZOO_DATASETS" not in said(app)
    assert not [button for button in app.button if button.label == "Why?"], "a thumbnail is too small to explain"


def test_a_best_model_is_marked_only_if_significant(zoo_environment, tmp_path, monkeypatch, opened):
    zoo = tmp_path / "zoo"
    for seed, name in enumerate(("good", "same", "bad")):
        entry = make_entry(zoo / name, "test_resnet", 0, title=name)
        table = make_predictions(3)
        if name == "bad":
            table[LABELS] = table[LABELS].to_numpy()[:, ::-1]
        elif name == "same":
            table.loc[:1, LABELS] = table.loc[:1, LABELS].to_numpy()[:, ::-1]
        add_evaluation(entry, seed, table=table)
    monkeypatch.setenv("HEMAZOO_ZOO", str(zoo))
    app = opened(models=["good", "bad"], benchmark="drawn-test")
    assert f"Significantly best (red): **good** {leaderboard.COLUMNS['home'].title}" in said(app)
    app = opened(models=["good", "same"], benchmark="drawn-test")
    assert "No model is significantly best" in said(app)
    assert picker(app, "Test pictures").value == "drawn-test"


def test_scores_are_computed_once(opened, monkeypatch):
    """Changing a tab or the normalisation resamples nothing again."""
    asked = []
    for place, name in ((scoring, "score"), (scoring, "classes"), (leaderboard, "best")):
        real = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *a, _real=real, _name=name, **k: asked.append(_name) or _real(*a, **k))
    app = opened(models=["tiny-cnn60", "tiny-test-vit"], benchmark="drawn-test", tab="Class by class")
    assert asked.count("classes") == 2 and asked.count("score") == 0 and asked.count("best") == len(leaderboard.COLUMNS)
    before = list(asked)
    app.segmented_control(key="matrix").set_value("counts").run()
    app.segmented_control(key="of class").set_value("recall").run()
    assert not app.exception
    assert asked == before
    app.multiselect[0].set_value(["tiny-cnn60", "tiny-test-vit", "tiny-test-resnet"]).run()
    assert asked.count("classes") == 3  # only the new one
    app.segmented_control(key="of class").set_value("auc").run()
    assert asked.count("score") == 3
    assert any("auc" in table for table in tables(app))


def test_a_model_without_a_score_is_shown_as_not_scored(zoo_environment, tmp_path, monkeypatch, opened):
    zoo = tmp_path / "zoo"
    for seed, name in enumerate(("old", "new")):
        add_evaluation(make_entry(zoo / name, "test_resnet", seed, title=name), seed)
    add_evaluation(zoo / "old", 0, "other-test")  # replaces its evaluation
    monkeypatch.setenv("HEMAZOO_ZOO", str(zoo))
    app = opened(models=["old", "new"], benchmark="other-test", tab="All scores")
    assert not app.exception and not app.error
    assert "Not scored: new." in said(app)
    app = opened(models=["old", "new"], benchmark="drawn-test", tab="All scores")
    assert "Not scored: old." in said(app)
    assert any("PBC, test" in (caption.help or "") and "not scored" in caption.value for caption in app.caption)
