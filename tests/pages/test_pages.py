"""Every page as a session sees it: empty, in use, and when something is wrong."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
import tifffile
from streamlit.testing.v1 import AppTest

from pages.parts import entries as zoo_entries
from pages.parts.session import Upload, uploads
from pages.parts.wording import description, percent
from tests.making import LABELS, draw_cell, draw_folder, make_config, make_entry
from tests.zoo.imaging.encodings import ARRAY, TWELVE, png16, tiff
from zoo.benchmarks import published
from zoo.benchmarks.comparison import leaderboard_value
from zoo.benchmarks.leaderboard import home_benchmark
from zoo.entry import read_entry
from zoo.files import write_json
from zoo.scores.predictions import differential_count
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import get_entry, list_entries
from zoo.sources.runs import list_runs
from zoo.version import __version__

ROOT = Path(__file__).parents[2]
PAGES = ["classify", "explain", "compare", "models", "systems", "adapt", "data", "examples"]
MODEL = "tiny-test-efficientnet"


def png(label: str, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    draw_cell(label, seed).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def app(zoo_environment) -> AppTest:
    st.cache_resource.clear()
    st.cache_data.clear()
    running = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    running.session_state["model"] = MODEL
    return running.run()


def go(app: AppTest, page: str) -> AppTest:
    app.switch_page(f"pages/{page}.py").run()
    assert not app.exception
    return app


def upload(app: AppTest, *files: tuple[str, bytes]) -> AppTest:
    for name, data in files:
        app.file_uploader[0].upload(name, data)
    app.run()
    assert not app.exception
    return app


@pytest.mark.parametrize("name", ["champion8", "pbc8-efficientnet-lite0", "cnn60"])
def test_a_model_has_one_accuracy_on_every_page(app, name):
    """That of its own laboratory, of whatever benchmarks it holds more."""
    entry = get_entry(name)
    go(app, "models")
    row = app.dataframe[0].value.set_index("id").loc[name]
    assert row["at home"] in description(entry).replace("\\", "")
    assert row["benchmark"] in description(entry).replace("\\", "")
    defined = published().get(home_benchmark(entry))
    assert defined is None or row["benchmark"] == defined.title, "one title, whoever stored the scores"


def test_processes_that_a_page_starts_do_not_run_the_app(app):
    assert getattr(sys.modules["__main__"], "__file__", "") == str(ROOT / "app.py"), "as in Streamlit's server"
    process = multiprocessing.get_context("spawn").Process(target=os.getpid)
    process.start()
    process.join()
    assert process.exitcode == 0


def said(app: AppTest) -> str:
    kinds = (app.title, app.subheader, app.markdown, app.caption, app.info, app.warning, app.error, app.success)
    # without the backslashes that keep Markdown from acting
    return "\n".join(str(item.value) for kind in kinds for item in kind).replace("\\", "")


def picker(app: AppTest, label: str = "Model"):
    return next(box for box in app.selectbox if box.label == label)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens(app, page):
    go(app, page)
    assert app.title[0].value


def test_the_footer_shows_disclaimer_and_version(app):
    # also below a page that stops early, as this one does without pictures
    assert any("Not a medical device" in caption.value for caption in app.caption[-2:])
    assert any(f"HemaZoo {__version__}" in caption.value for caption in app.caption[-2:])


@pytest.mark.parametrize("page", ["classify", "explain"])
def test_an_empty_page_says_what_to_do(app, page):
    go(app, page)
    assert "Drop pictures above" in app.info[0].value


def test_one_picture_is_classified_as_the_zoo_does(app):
    upload(app, ("cell.png", png("monocyte")))
    with Runtime("cpu") as runtime:
        expected = runtime.classify(get_entry(MODEL), draw_cell("monocyte"))
    assert any(
        f"{expected.label} · {100 * expected.confidence:.1f} %" in item.value.replace("#### ", "")
        for item in app.markdown
    )


def test_many_pictures_give_a_table_and_a_count(app):
    files = [(f"{label}{seed}.png", png(label, seed)) for seed in range(3) for label in LABELS]
    upload(app, *files)
    assert "Differential count" in [item.value for item in app.subheader]
    results, count = app.dataframe[0].value, app.dataframe[1].value
    assert list(results["file"]) == [name for name, _ in files]
    assert count["count"].sum() == len(files)
    expected = differential_count(results["label"].tolist(), LABELS).set_index("label")
    expected = expected[expected["count"] > 0]
    assert dict(zip(count["kind"], count["count"], strict=True)) == expected["count"].to_dict()
    first = expected.loc[count["kind"][0]]
    assert count["interval"][0] == f"{100 * first['low']:.0f} to {100 * first['high']:.0f} %"


def test_failed_files_are_listed_beside_the_results_of_others(app):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.asarray(draw_cell("monocyte"), np.uint16) * 257, photometric="rgb")
    upload(app, ("text.png", b"no picture"), ("cell.png", png("monocyte")), ("deep.tif", buffer.getvalue()))
    assert "1 file could not be classified" in app.warning[0].value
    failed = app.dataframe[0].value
    assert failed["file"].tolist() == ["text.png"]
    assert "not a picture" in failed["reason"][0]
    assert app.dataframe[1].value["file"].tolist() == ["cell.png", "deep.tif"]


def test_removing_a_file_removes_its_result(app):
    upload(app, ("one.png", png("monocyte", 1)), ("two.png", png("monocyte", 2)))
    assert len(app.session_state["pictures"]) == 2
    app.file_uploader[0].set_value([("two.png", png("monocyte", 2), "image/png")]).run()
    assert [p.name for p in app.session_state["pictures"].values()] == ["two.png"]


def test_the_chosen_model_is_kept_on_every_page(app):
    picker(app).set_value("tiny-cnn60").run()
    for page in ("explain", "classify"):
        go(app, page)
        assert picker(app).value == "tiny-cnn60"
    go(app, "models")
    assert picker(app, "Model").value == "tiny-cnn60"
    picker(app, "Model").set_value("tiny-test-vit").run()
    assert picker(go(app, "explain")).value == "tiny-test-vit"


def test_pictures_are_kept_on_every_page_until_cleared(app):
    upload(app, ("cell.png", png("monocyte")))
    go(app, "explain")
    assert "tiny-test-efficientnet" in app.session_state["model"]
    assert any("says **" in item.value for item in app.markdown)
    go(app, "classify")
    next(button for button in app.button if button.label == "Clear all").click().run()
    assert "Drop pictures above" in app.info[0].value


def test_explain_shows_chosen_class_and_second_model(app):
    upload(app, ("cell.png", png("eosinophil")))
    go(app, "explain")
    picker(app, "Second model, side by side").set_value("tiny-cnn60").run()
    picker(app, "Evidence for").set_value("neutrophil").run()
    assert not app.exception
    verdicts = [item.value for item in app.markdown if "says **" in item.value]
    assert len(verdicts) == 2
    assert verdicts[1].startswith("Tiny cnn60")
    assert any("cannot be compared" in (caption.help or "") for caption in app.caption)
    assert len([button for button in app.get("download_button") if "Map as PNG" in button.proto.label]) == 2


def test_models_shows_every_entry_and_the_broken_ones_with_their_reason(zoo_environment, tmp_path, monkeypatch):
    mixed = Path(shutil.copytree(zoo_environment, tmp_path / "mixed"))
    (mixed / "tiny-test-vit" / "config.json").write_text("{")
    (mixed / "tiny-cnn60" / "model.safetensors").unlink()
    monkeypatch.setenv("HEMAZOO_ZOO", str(mixed))
    st.cache_resource.clear()
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    go(app, "models")
    table, broken = app.dataframe[0].value, app.dataframe[-1].value
    assert {"tiny-cnn60", "tiny-test-resnet"} <= set(table["id"])
    assert broken["id"].tolist() == ["tiny-test-vit"]
    assert "not valid JSON" in broken["reason"][0]
    picker(app, "Model").set_value("tiny-cnn60").run()
    assert "cannot classify" in app.warning[0].value
    assert "Made by a test." in said(app)
    go(app, "classify")
    assert "tiny-cnn60" not in picker(app).options
    assert "Tiny test_vit" not in picker(app).options


def test_models_says_the_sample_and_the_shares_in_training(app):
    go(app, "models")
    picker(app, "Model").set_value("champion8").run()
    shown = " ".join(text.value for text in [*app.markdown, *app.caption])
    assert "Asked by default with: **peripheral blood**" in shown
    assert "Shares in training: its recipe balances the classes" in shown


def test_a_model_that_cannot_be_loaded_gives_an_error(zoo_environment, tmp_path, monkeypatch):
    mixed = Path(shutil.copytree(zoo_environment, tmp_path / "mixed"))
    shutil.copy(mixed / "tiny-test-resnet" / "model.safetensors", mixed / "tiny-cnn60" / "model.safetensors")
    monkeypatch.setenv("HEMAZOO_ZOO", str(mixed))
    st.cache_resource.clear()
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.session_state["model"] = "tiny-cnn60"
    app.run()
    upload(app, ("cell.png", png("monocyte")))
    assert "do not fit cnn60" in app.error[0].value


def test_examples_without_network_give_an_error(app, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    go(app, "examples")
    assert "BCCD_Dataset" in said(app)
    next(button for button in app.button if button.label.startswith("Download")).click().run()
    assert not app.exception
    assert "cannot be fetched" in app.error[0].value


def test_a_folder_replaces_the_built_in_examples(zoo_environment, tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_EXAMPLES", str(draw_folder(tmp_path / "mine", 1)))
    st.cache_resource.clear()
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.session_state["model"] = MODEL
    app.run()
    go(app, "examples")
    assert "Use" in [button.label for button in app.button]
    next(button for button in app.button if button.label == "Classify all 4").click().run()
    assert not app.exception
    assert len(app.session_state["pictures"]) == 4


def test_an_empty_examples_folder_gives_an_error(app, tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_EXAMPLES", str(tmp_path / "nothing"))
    go(app, "examples")
    assert "no picture" in app.error[0].value


def test_the_device_in_use_is_shown(app):
    upload(app, ("cell.png", png("monocyte")))
    assert "Runs on **CPU" in said(app) or "Runs on **GPU" in said(app)


def test_a_page_shows_the_accuracy_of_the_stored_evaluation(app):
    entry = read_entry(get_entry(MODEL).folder)
    accuracy = entry.evaluation.benchmarks["drawn-test"].metrics["balanced_accuracy"]
    assert f"Accuracy {percent(accuracy)} at home on 60 cells" in said(app), "few cells: with interval and number"


def make_run(folder: Path, updated: float, epochs: int = 2) -> None:
    """Write the state of a training run in progress."""
    history = [{"epoch": n, "train_loss": 1 / n, "val_loss": 1 / n, "val_accuracy": 0.5} for n in range(1, epochs + 1)]
    state = {"title": "Mine <b>", "recipe": "x", "epoch": epochs + 1, "epochs": 10, "step": 5, "steps": 10}
    write_json(folder / "run.json", {**state, "images_per_second": 321.0, "updated": updated})
    write_json(folder / "history.json", history)


def test_runs_in_training_are_shown_with_their_curves(app, tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_RUNS", str(tmp_path / "runs"))
    make_run(tmp_path / "runs" / "mine", time.time())
    make_run(tmp_path / "runs" / "stopped", time.time() - 9999)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")
    go(app, "models")
    assert "In training" in said(app)
    runs = list_runs()
    assert [run.name for run in runs] == ["mine", "stopped"]
    assert runs[0].progress == pytest.approx(0.25)
    assert [run.alive for run in runs] == [True, False]
    assert len(app.expander) >= 1
    (tmp_path / "runs" / "mine" / "run.json").unlink()
    go(app, "models")
    assert "In training" not in said(app)


def test_entries_without_weights_are_listed_but_cannot_classify(app, zoo_environment, tmp_path, monkeypatch):
    more = tmp_path / "more"
    make_entry(more / "one", "cnn60", 1)
    make_entry(more / "two", "cnn60", 2)
    make_entry(more / "elsewhere", "cnn60", 3)
    (more / "elsewhere" / "model.safetensors").unlink()
    (more / "both").mkdir()
    write_json(more / "both" / "config.json", make_config("cnn60", members=["one", "two"]))
    monkeypatch.setenv("HEMAZOO_ZOO", str(more))
    st.cache_resource.clear()
    go(app, "models")
    table = app.dataframe[0].value.set_index("id")
    assert table.loc["both", "parameters"] == 2 * 306_948
    assert table.loc["elsewhere", "from"].endswith(", without weights")
    sizes = table["size in MB"]
    assert sizes["both"] > sizes["one"] > 1, "numbers, so that they can be sorted"
    picker(app, "Model").set_value("elsewhere").run()
    assert "published elsewhere" in said(app)
    go(app, "classify")
    assert "elsewhere" not in picker(app).options
    picker(app).set_value("both").run()
    upload(app, ("a.png", png("monocyte")))
    assert not app.error


def test_own_models_are_listed_before_reproductions(app):
    go(app, "models")
    ids = app.dataframe[0].value["id"].tolist()
    found = {entry.id: entry for entry in list_entries()}
    ranks = [(not found[name].usable, found[name].system) for name in ids]
    assert ranks == sorted(ranks)
    away = [leaderboard_value(found[name], "away") for name in ids if not found[name].system and found[name].usable]
    assert away == sorted(away, reverse=True), "the best in other laboratories first"
    go(app, "compare")
    benchmarks = picker(app, "Test pictures").options
    leaky = ["LEAKY" in name for name in benchmarks]
    assert leaky == sorted(leaky)


def test_a_session_keeps_a_limited_number_of_pictures(app, monkeypatch):
    monkeypatch.setenv("HEMAZOO_SESSION_PICTURES", "2")
    upload(app, *((f"{n}.png", png("monocyte", n)) for n in range(5)))
    assert len(app.session_state["pictures"]) == 2
    assert "Left out: 3 pictures." in said(app)
    app.run()
    assert "left out" not in said(app)


def test_all_sessions_together_keep_a_limited_number_of_bytes(app, monkeypatch):
    first = png("monocyte", 1)
    monkeypatch.setenv("HEMAZOO_ALL_SESSIONS_MB", "1")
    held = Upload(b"of another session")
    assert uploads.keep(held, 1_000_000 - uploads.bytes - len(first), 1_000_000)
    upload(app, ("a.png", first), ("b.png", png("monocyte", 2)))
    assert len(app.session_state["pictures"]) == 1
    assert "Left out: 1 picture." in said(app) and "for all its visitors" in said(app)
    del held
    upload(app, ("a.png", first), ("c.png", png("monocyte", 2)))
    assert len(app.session_state["pictures"]) == 2


def test_confidence_in_an_unseen_laboratory_is_shown(app, tmp_path, monkeypatch):
    """Shown beside the answer, in the table and in the download, if leave-one-laboratory-out measured it."""
    two = ("a.png", png("monocyte")), ("b.png", png("neutrophil"))
    upload(app, *two)
    assert "from a new laboratory" not in said(app) and "elsewhere" not in app.dataframe[0].value
    folder = make_entry(tmp_path / "zoo" / "travelled", "test_resnet", 4)
    balanced = {"north": {"value": 0.71, "low": 0.6, "high": 0.8}, "south": {"value": 0.64, "low": 0.5, "high": 0.7}}
    write_json(folder / "evaluation.json", {"elsewhere": {"temperature": 3.0, "balanced": balanced}})
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path / "zoo"))
    zoo_entries.refresh()
    app.session_state["model"] = "travelled"
    app.run()
    shown = app.dataframe[0].value
    raised = shown[LABELS].to_numpy() ** (1 / 3)
    assert np.allclose(shown["elsewhere"], raised.max(1) / raised.sum(1), atol=1e-6)
    assert (shown["elsewhere"] < shown["confidence"]).all()
    expected = f"Expect about {100 * shown['elsewhere'][0]:.0f} % if this slide comes from a new laboratory."
    caption = next(caption for caption in app.caption if caption.value == expected)
    assert "71 % in north and 64 % in south" in caption.help


def test_notes_are_under_the_picture_and_pages_are_pictures(app):
    upload(app, ("deep.png", png16(TWELVE)))
    assert not app.exception
    assert "Read as 12 bit." in said(app)
    upload(app, ("pages.tif", tiff(np.stack([ARRAY, ARRAY // 2]))))
    shown = app.dataframe[0].value
    assert [name for name in shown["file"] if "pages" in name] == ["pages.tif#page=1", "pages.tif#page=2"]
