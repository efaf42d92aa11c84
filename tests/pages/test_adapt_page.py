"""The adapt page: missing pictures are named, the gain is shown, and the new model can be used and downloaded."""

from __future__ import annotations

import io

import pytest
import streamlit as st
from PIL import ImageOps
from streamlit.testing.v1 import AppTest

from tests.making import LABELS, draw_cell
from tests.pages.test_pages import ROOT, go, picker, said, upload

MODEL = "tiny-test-resnet"


@pytest.fixture
def app(zoo_environment) -> AppTest:
    st.cache_resource.clear()
    st.cache_data.clear()
    running = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    running.session_state["model"] = MODEL
    return go(running.run(), "adapt")


def cell(label: str, seed: int) -> bytes:
    buffer = io.BytesIO()
    ImageOps.invert(draw_cell(label, seed)).save(buffer, "PNG")
    return buffer.getvalue()


def give(app: AppTest, label: str, *files: bytes) -> None:
    place = next(one for one in app.file_uploader if one.label == label.capitalize())
    for number, data in enumerate(files):
        place.upload(f"{number}.png", data)
    app.run()
    assert not app.exception


def button(app: AppTest, label: str):
    return next(one for one in app.button if one.label == label)


def test_missing_pictures_are_named(app):
    assert "5 cells each of two classes or more" in said(app)
    assert button(app, "Adapt").disabled
    give(app, "monocyte", *(cell("monocyte", n) for n in range(3)))
    assert "2 more of monocyte" in said(app)
    give(app, "monocyte", *(cell("monocyte", n) for n in range(5)))
    assert "cells of another class than monocyte" in said(app)
    assert button(app, "Adapt").disabled
    give(app, "neutrophil", *(cell("neutrophil", n) for n in range(5)), b"no picture")
    assert "5.png was left out" in said(app)
    assert not button(app, "Adapt").disabled


def test_an_adapted_model_is_scored_kept_and_used(app):
    picker(app, "Sample").set_value("bone marrow").run()
    for label in LABELS:
        give(app, label, *(cell(label, n) for n in range(6)))
    button(app, "Adapt").click().run()
    assert not app.exception
    told = {one.label: one.value for one in app.metric}
    assert set(told) == {"Before", "After", "Gain"}
    after, before = (float(told[key].split()[0]) for key in ("After", "Before"))
    assert float(told["Gain"].split()[0]) == pytest.approx(after - before, abs=0.11)
    assert "cross-validated" in said(app)
    made = app.session_state["own"][0]
    assert made.usable
    assert "Sample: bone marrow." in said(app)
    assert made.default_sample.name == "bone marrow"
    button(app, "Classify with it").click().run()
    go(app, "classify")
    assert picker(app).value == f"{MODEL}-my-lab"
    upload(app, ("cell.png", cell("monocyte", 50)))
    assert "·" in said(app)
    go(app, "compare")
    go(app, "models")
    assert "my-lab, cross-validated" in said(app)


def test_without_labels_no_gain_is_claimed(app):
    give(app, "without a label", *(cell(LABELS[n % 4], n) for n in range(12)))
    button(app, "Adapt").click().run()
    assert not app.exception
    assert "The gain cannot be measured without labels" in said(app)
    assert not app.metric


def give_folder(app: AppTest, files: dict[str, bytes]) -> None:
    place = next(one for one in app.file_uploader if one.accept_directory)
    place.set_value([(name, data, "image/png") for name, data in files.items()])
    app.run()
    assert not app.exception


def test_a_dropped_folder_is_read_as_a_data_set_and_adapts(app):
    spelled = dict(zip(LABELS, ("EOS", "Lymphocytes", "Monócito", "SNE"), strict=True))
    files = {f"lab/patient_{n % 3}/{spelled[label]}/{n}.png": cell(label, n) for label in LABELS for n in range(6)}
    give_folder(app, {**files, "lab/patient_1/smudge/1.png": cell("monocyte", 9), "lab/list.txt": b"x"})
    told = said(app)
    assert "Layout: group/class folders; the folders patient_0, patient_1, patient_2 are patients or slides" in told
    assert "Labels: EOS (6) → eosinophil." in told
    assert "smudge cell (1) was left out: the model has no such class." in told
    assert "no picture of a kind that is read: 1 (lab/list.txt)" in told
    button(app, "Adapt").click().run()
    assert not app.exception
    assert {one.label for one in app.metric} == {"Before", "After", "Gain"}


def test_an_ambiguous_folder_is_asked_about(app):
    files = {f"lab/slide_{n}/{k}.png": cell("monocyte", k) for n in (1, 2) for k in range(6)}
    give_folder(app, files)
    assert "slide_1, slide_2 look like patients or slides" in said(app)
    next(one for one in app.text_input if one.label == "Layout").set_value("group").run()
    assert "Layout: pictures without labels; --layout says so." in said(app)
    assert not button(app, "Adapt").disabled


def test_other_sessions_do_not_see_the_model(app, zoo_environment):
    give(app, "without a label", *(cell(LABELS[n % 4], n) for n in range(10)))
    button(app, "Adapt").click().run()
    assert [option for option in picker(go(app, "classify")).options if "my-lab" in option]
    other = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    assert not [option for option in picker(other).options if "my-lab" in option]
