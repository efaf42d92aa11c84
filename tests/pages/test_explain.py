"""The explain page as a session sees it: every method, contrasts, layers, the grid, parts, and the printable page."""

from __future__ import annotations

import io
import re
import shutil

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from tests.making import LABELS, draw_cell, make_entry
from tests.pages.test_pages import ROOT, go, picker, png, said, upload
from tests.zoo.serving.test_heads import ensemble, make_headed
from tests.zoo.serving.test_ood import cloud
from zoo.attribution import METHODS
from zoo.attribution.overlay import COLOURS, contours, overlay, parts
from zoo.figures.sheet import Panel, sheet
from zoo.files import write_json
from zoo.serving.ood import fit_ood_detector, write_ood_detector


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A network, another one, their ensemble, and a forest on one's features."""
    place = tmp_path / "zoo"
    make_entry(place / "net", "test_resnet", 1, title="Net")
    make_entry(place / "other", "cnn60", 2, title="Other")
    ensemble(place / "both", ["net", "other"], title="Both")
    make_headed(place / "forest", "forest")
    monkeypatch.setenv("HEMAZOO_ZOO", str(place))
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    return place


@pytest.fixture
def app(zoo) -> AppTest:
    st.cache_resource.clear()
    st.cache_data.clear()
    opened = AppTest.from_file(str(ROOT / "app.py"), default_timeout=90).run()
    upload(opened, ("cell.png", png("eosinophil")))
    return go(opened, "explain")


def maps(app: AppTest) -> int:
    return len([b for b in app.get("download_button") if "Map as PNG" in b.proto.label])


@pytest.mark.parametrize("model", ["net", "both"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_shows_a_map(app, model, method):
    picker(app).set_value(model).run()
    picker(app, "Method").set_value(method).run()
    assert not app.exception
    assert not app.error
    assert maps(app) == 1
    assert METHODS[method].title in said(app)


def test_a_forest_is_explained_by_occlusion_and_beside_it_a_network_too(app):
    picker(app).set_value("forest").run()
    assert picker(app, "Method").options == [METHODS["occlusion"].title]
    picker(app, "Second model, side by side").set_value("net").run()
    assert not app.exception
    assert not app.error
    assert maps(app) == 2


def test_contrast_of_two_classes(app):
    picker(app).set_value("net").run()
    picker(app, "Evidence for").set_value("neutrophil").run()
    picker(app, "rather than").set_value("monocyte").run()
    assert any("**neutrophil**" in m.value and "rather than **monocyte**" in m.value for m in app.markdown)
    picker(app, "Method").set_value("eigen-cam").run()
    assert "choose Grad-CAM" in said(app)


def test_a_sentence_says_how_much_of_the_evidence_lies_on_the_cell(app):
    picker(app).set_value("net").run()
    assert re.search(r"\d+ % of the evidence for eosinophil lies on the cell, which fills \d+ % of the pict", said(app))


def test_layers_styles_and_zoom(app):
    picker(app).set_value("net").run()
    picker(app, "Layer").set_value("layer2").run()
    assert maps(app) == 1
    for colours in COLOURS:
        picker(app, "Colours").set_value(colours).run()
        assert COLOURS[colours] in said(app)
    next(toggle for toggle in app.toggle if toggle.label == "Zoom together").set_value(True).run()
    assert not app.exception
    assert len(app.get("plotly_chart")) == 1


def test_the_grid_ranks_methods_by_faithfulness(app):
    picker(app).set_value("net").run()
    next(toggle for toggle in app.toggle if toggle.label == "Compare all methods").set_value(True).run()
    assert not app.exception
    table = next(table.value for table in app.dataframe if "ROAD" in table.value)
    assert set(table["method"]) == {method.title for method in METHODS.values() if method.quick}
    assert table["ROAD"].is_monotonic_decreasing
    assert table["ROAD"].between(-1, 1).all()
    next(toggle for toggle in app.toggle if toggle.label == "Slow methods too").set_value(True).run()
    table = next(table.value for table in app.dataframe if "ROAD" in table.value)
    assert len(table) == len(METHODS)


def test_measured_map_quality_is_shown_beside_the_map(zoo, app):
    told = {"value": 0.94, "low": 0.9, "high": 0.97}
    inside = {"pointing": told, "energy": told, "chance": 0.11, "images": 83}
    found = {"grad-cam": {"bccd-frames": inside, "road": {"value": 0.3, "low": 0.2, "high": 0.4}}}
    write_json(zoo / "net" / "evaluation.json", {"schema_version": 1, "explanations": found})
    st.cache_resource.clear()
    app.run()
    picker(app).set_value("net").run()
    (caption,) = [one for one in app.caption if one.value == "Such maps lie on the cell in 94 % of test pictures."]
    assert "land on the cell in 94.0 % (90.0 to 97.0) of 83 whole smear frames (by chance 11 %)" in caption.help
    assert "ROAD of +0.30 (+0.20 to +0.40)" in caption.help
    picker(app, "Method").set_value("layer-cam").run()
    assert "Such maps" not in said(app)


def test_parts(app):
    picker(app).set_value("net").run()
    app.session_state["views"] = "Parts"
    app.run()
    assert not app.exception
    assert "part 4" in said(app)


def test_an_unknown_picture_gives_an_error_on_both_pages(zoo, app):
    vectors, labels = cloud(400, 1, 128)
    write_ood_detector(
        zoo / "other", fit_ood_detector(vectors, labels, vectors)
    )  # of nothing that the network ever gives
    st.cache_resource.clear()
    shutil.copytree(zoo / "other", zoo / "gated")
    app.run()
    picker(app).set_value("gated").run()
    assert any("No recognisable blood cell" in error.value for error in app.error)
    go(app, "classify")
    assert any("No recognisable blood cell" in error.value for error in app.error)


def test_overlays_change_marked_pixels_only():
    image, values = draw_cell("monocyte", 1, (80, 60)), np.zeros((60, 80), np.float32)
    assert overlay(image, values).tobytes() == image.tobytes()
    assert contours(image, values).tobytes() == image.tobytes()
    values[20:40, 30:50] = 1
    for colours in COLOURS:
        heat = np.abs(np.asarray(overlay(image, values, 0.5, colours), int) - np.asarray(image, int)).sum(2)
        assert (heat[20:40, 30:50] > 0).mean() > 0.9
        assert not heat[:10].any()
        lines = np.abs(np.asarray(contours(image, values, colours), int) - np.asarray(image, int)).sum(2)
        assert lines[20, 40] > 0
        assert not lines[28:32, 38:42].any()  # what is inside stays to be seen
    two = np.stack([values, 1 - values])
    drawn = np.asarray(parts(image, two, 1.0))
    assert tuple(drawn[30, 40]) != tuple(drawn[5, 5])


@pytest.mark.parametrize("kind", ["pdf", "png"])
def test_printable_page(kind):
    image = draw_cell("monocyte", 1)
    panel = Panel(image, ["A model $x^", "Grad-CAM for monocyte", "entry a"], dict.fromkeys(LABELS, 0.25))
    found = sheet(image, "cell $1.png", [panel, panel], kind)
    assert found.startswith(b"%PDF" if kind == "pdf" else b"\x89PNG")
    assert len(found) > 10_000
    if kind == "png":
        assert Image.open(io.BytesIO(found)).width > 900
