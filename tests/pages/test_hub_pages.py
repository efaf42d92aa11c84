"""Models from the Hub in the app: listed, downloaded when chosen, pinned to a revision, available without network."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st
from huggingface_hub import constants
from streamlit.testing.v1 import AppTest

from tests.hub import Fault, Hub
from tests.making import add_evaluation, draw_cell, make_entry
from tests.pages.test_pages import go, picker, png, said, upload
from training.publish.hub import PublishOptions, publish
from zoo.entry import read_entry
from zoo.serving.runtime import Runtime
from zoo.sources import hub as zoo_hub

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(hub, tmp_path, monkeypatch) -> Hub:
    monkeypatch.setenv("HEMAZOO_ZOO", "hub:alice")
    for seed, tag in ((1, "v1"), (2, "v2")):
        folder = make_entry(tmp_path / tag / "tiny", "test_resnet", seed, title="Tiny of the Hub")
        add_evaluation(folder, seed)
        publish(read_entry(folder), "alice/tiny", PublishOptions(tag=tag), print)
    monkeypatch.setenv("HF_TOKEN", "")
    return hub


@pytest.fixture
def app(server) -> AppTest:
    st.cache_resource.clear()
    st.cache_data.clear()
    running = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    running.session_state["model"] = "alice--tiny"
    return running.run()


def confidence(folder: Path) -> str:
    with Runtime("cpu") as runtime:
        found = runtime.classify(read_entry(folder), draw_cell("monocyte", 1))
    return f"#### {found.label} · {100 * found.confidence:.1f} %"


def test_a_chosen_revision_answers(app, server, tmp_path):
    assert picker(app).value == "alice--tiny"
    upload(app, ("cell.png", png("monocyte", 1)))
    assert confidence(tmp_path / "v2" / "tiny") in said(app)
    go(app, "models")
    assert "From the Hub" in said(app)
    newest = server.repos["models", "alice/tiny"].at("main").sha
    assert newest[:10] in said(app)
    next(toggle for toggle in app.toggle if toggle.label == "Other revisions").set_value(True).run()
    box = picker(app, "Revision")
    assert {"tag v1", "tag v2", "branch main"} <= set(box.options)
    box.set_value("tag v1").run()
    next(button for button in app.button if button.label == "Use this revision").click().run()
    assert not app.exception
    assert "chosen in this session" in said(app)
    go(app, "classify")
    assert confidence(tmp_path / "v1" / "tiny") in said(app)
    go(app, "models")
    next(button for button in app.button if button.label == "Follow main again").click().run()
    go(app, "classify")
    assert confidence(tmp_path / "v2" / "tiny") in said(app)


def test_without_the_hub_the_page_shows_the_age_of_the_listing(app, server):
    upload(app, ("cell.png", png("monocyte", 1)))
    server.faults.append(Fault("GET /api/", 10**6, 418))
    go(app, "models")
    next(button for button in app.button if button.label == "Refresh from the Hub").click().run()
    assert "Last listed just now" in said(app)
    go(app, "classify")
    assert not app.error
    assert "·" in said(app)


def test_weights_that_cannot_be_downloaded_give_an_error(app, server):
    go(app, "models")
    st.cache_resource.clear()
    zoo_hub.reset()
    for path in Path(constants.HF_HUB_CACHE).rglob("model.safetensors"):
        path.unlink()
    for path in Path(constants.HF_HUB_CACHE).rglob("blobs/*"):
        if path.stat().st_size > 100_000:
            path.unlink()
    server.faults.append(Fault("HEAD .*model.safetensors", 10**6, 418))
    go(app, "classify")
    assert "cannot be reached" in said(app)
    assert "Choose another model" in said(app)


def test_models_are_filtered_by_words(app):
    go(app, "models")
    words = next(box for box in app.text_input if box.label == "Words")
    words.set_value("nothing like that").run()
    assert "No model matches" in said(app)
    next(box for box in app.text_input if box.label == "Words").set_value("tiny hub").run()
    assert list(app.dataframe[0].value["id"]) == ["alice--tiny"]
