"""The choice of a sample as a session sees it: it moves the answer, not the network, and holds on every page."""

from __future__ import annotations

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.making import draw_cell, make_entry
from tests.pages.test_explain import maps
from tests.pages.test_pages import ROOT, go, picker, png, said, upload
from zoo.api import default_runtime
from zoo.scores.sample.samples import only_these, samples
from zoo.serving.results import Prediction, with_sample
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import get_entry

LABELS = ["ig", "lymphocyte", "monocyte", "neutrophil"]
KINDS = ["monocyte", "eosinophil", "neutrophil"]  # drawn


@pytest.fixture
def app(tmp_path, monkeypatch) -> AppTest:
    """A model that knows immature granulocytes, and one that knows the white cells of blood alone."""
    place = tmp_path / "zoo"
    described = {"ig": "immature granulocyte (myelocyte)"}
    make_entry(place / "marrow", "test_resnet", 1, LABELS, title="Marrow")
    make_entry(place / "white", "cnn60", 2, title="White")
    config = (place / "marrow" / "config.json").read_text()
    given = f'"label_descriptions": {{"ig": "{described["ig"]}"}}, "label_names"'
    (place / "marrow" / "config.json").write_text(config.replace('"label_names"', given, 1))
    monkeypatch.setenv("HEMAZOO_ZOO", str(place))
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    st.cache_resource.clear()
    st.cache_data.clear()
    running = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    running.session_state["model"] = "marrow"
    return running.run()


def alone() -> list[Prediction]:
    """Answers of the zoo on the drawn cells, asked as trained."""
    with Runtime("cpu") as runtime:
        entry = get_entry("marrow")
        return [runtime.classify(entry, draw_cell(kind), samples()["alike"]) for kind in KINDS]


def without(prediction: Prediction) -> list[str]:
    """The kinds that the network does not name for a picture."""
    return [label for label in LABELS if label != prediction.label]


def choose(app: AppTest, sample: str) -> AppTest:
    picker(app, "Sample").set_value(sample).run()
    assert not app.exception
    return app


def only(app: AppTest, kinds: list[str]) -> AppTest:
    choose(app, "only these kinds")
    next(one for one in app.multiselect if one.label == "Kinds").set_value(kinds).run()
    assert not app.exception
    return app


def classified() -> int:
    return default_runtime().status().answered


def test_the_default_follows_the_model_and_a_choice_stays(app):
    assert picker(app, "Sample").value == "peripheral blood"
    assert samples()["peripheral blood"].summary in said(app)
    picker(app).set_value("white").run()
    assert picker(app, "Sample").value == "alike"
    choose(app, "bone marrow")
    for page in ("explain", "adapt", "classify"):
        assert picker(go(app, page), "Sample").value == "bone marrow"
    picker(app).set_value("marrow").run()
    assert picker(app, "Sample").value == "bone marrow"


def test_a_sample_changes_the_answer_without_running_the_network(app):
    upload(app, *((f"{kind}.png", png(kind)) for kind in KINDS))
    choose(app, "alike")
    table, before, network = app.dataframe[0].value, classified(), alone()
    assert table["label"].tolist() == [one.label for one in network]
    assert "the network alone says" not in said(app)
    only(app, without(network[0]))
    expected = [with_sample(get_entry("marrow"), one, only_these(without(network[0]))) for one in network]
    table = app.dataframe[0].value
    assert table["label"].tolist() == [one.label for one in expected]
    assert table["label"][0] != network[0].label
    assert np.allclose(table[LABELS], [list(one.probabilities.values()) for one in expected], atol=1e-5)
    changed = sum(one.label != one.network_label for one in expected)
    assert f"It changes {changed} of {len(KINDS)} answers." in said(app)
    assert "With this sample: " in said(app) and "; the network alone says " in said(app)
    assert app.dataframe[1].value["count"].sum() == len(KINDS)
    assert classified() == before


def test_kinds_are_written_out_and_needed(app):
    choose(app, "only these kinds")
    kinds = next(one for one in app.multiselect if one.label == "Kinds")
    assert kinds.options == ["immature granulocyte", "lymphocyte", "monocyte", "neutrophil"]
    assert "Choose the kinds that the sample holds. Until then: peripheral blood." in said(app)
    only(app, ["ig", "neutrophil"])
    assert not app.warning
    go(app, "explain")
    assert next(one for one in app.multiselect if one.label == "Kinds").value == ["ig", "neutrophil"]
    upload(app, ("cell.png", png("monocyte")))
    assert "Sample: only these kinds: immature granulocyte, neutrophil." in said(app)


def test_own_counts(app):
    upload(app, ("cell.png", png("monocyte")))
    choose(app, "my own shares")
    assert "how many cells of each kind were counted. Until then: peripheral blood." in said(app)
    (one,) = alone()[:1]
    other = without(one)[0]
    name = {"ig": "immature granulocyte"}.get(other, other)
    next(n for n in app.number_input if n.label == name).set_value(10**9).run()
    assert not app.warning
    assert f"With this sample: {name}; the network alone says" in said(app)
    go(app, "explain")
    assert next(n for n in app.number_input if n.label == name).value == 10**9


def test_an_own_file_is_used_or_refused_with_a_sentence(app):
    choose(app, "my own shares")

    def give(content: str) -> None:
        place = next(one for one in app.file_uploader if one.label == "File with shares")
        place.set_value([("clinic.toml", content.encode(), "application/toml")]).run()
        assert not app.exception

    give("[shares]\nneutrophil = -1")
    assert "clinic.toml is not a sample: shares, counts and odds are numbers from 0." in said(app)
    give("[shares")
    assert "clinic.toml is not a TOML file" in said(app)
    give("only = true\n[shares]\nbasophil = 1")
    assert "rules out every class of this model" in said(app)
    give("[shares]\nunicorn = 1")
    assert "names unicorn, which is no class" in said(app)
    give('name = "our clinic"\nsummary = "Adults of our clinic."\n[shares]\nneutrophil = 61\nlymphocyte = 29')
    assert not app.warning
    assert "Adults of our clinic." in said(app)
    go(app, "adapt")
    assert "Adults of our clinic." in said(app)
    next(button for button in app.button if button.label == "Remove the file").click().run()
    assert "how many cells of each kind were counted" in said(app)


def test_either_class_is_explained(app):
    upload(app, ("cell.png", png("monocyte")))
    network = alone()[0]
    go(app, "explain")
    only(app, without(network))
    names = {"ig": "immature granulocyte"}
    decided = with_sample(get_entry("marrow"), network, only_these(without(network))).label
    own = names.get(network.label, network.label)
    assert f"With this sample: {names.get(decided, decided)}; the network alone says {own}" in said(app)

    shown = next(item.value for item in app.markdown if "says **" in item.value)
    assert f"says **{names.get(decided, decided)}**" in shown and "shown: evidence" not in shown
    picker(app, "Evidence for").set_value("the class that the network alone says").run()
    assert f"shown: evidence for **{own}**" in said(app)
    before = classified()
    app.run()
    each = classified() - before  # a run of the page asks for neighbours, whatever was chosen
    picker(app, "Evidence for").set_value("the predicted class").run()
    assert "shown: evidence" not in said(app)
    choose(app, "alike")  # the network's own class, whose map is known
    assert f"says **{own}**" in said(app) and maps(app) == 1
    assert classified() == before + 3 * each
