"""The review on the Classify page: fields, corrections with undo, counts, reports and saved reviews."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.fields import draw_field, empty_ground, find, make_detector
from tests.pages.test_pages import MODEL, ROOT, go, picker, png, said, upload


def encoded(image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def field(seed: int = 0) -> bytes:
    return encoded(draw_field(seed)[0])


def start(zoo_environment: Path) -> AppTest:
    st.cache_resource.clear()
    st.cache_data.clear()
    running = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    running.session_state["model"] = MODEL
    return running.run()


@pytest.fixture(scope="module")
def detectors(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("detectors")
    make_detector(folder / "drawn")
    return folder


@pytest.fixture
def app(zoo_environment, detectors, monkeypatch) -> AppTest:
    monkeypatch.setenv("HEMAZOO_ZOO", f"{zoo_environment}:{detectors}")
    monkeypatch.setattr("zoo.detection.detector.Detector.find", find)
    return start(zoo_environment)


@pytest.fixture
def without_detector(zoo_environment) -> AppTest:
    return start(zoo_environment)


def click(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click()
    app.run()
    assert not app.exception
    return app


def give(app: AppTest, kind: str) -> AppTest:
    box = next(box for box in app.selectbox if box.label == "Correct to" or "chosen cells" in box.label)
    box.set_value(kind).run()
    next(button for button in app.button if button.label.startswith("Give")).click()
    app.run()
    assert not app.exception
    return app


def downloaded(app: AppTest, label: str) -> bytes:
    from streamlit.runtime import Runtime

    button = next(one for one in app.get("download_button") if one.proto.label == label)
    return Runtime.instance().media_file_mgr.execute_deferred(button.proto.deferred_file_id)


def test_every_white_cell_of_a_field_has_its_row_and_the_field_its_counts(app):
    upload(app, ("field.png", field()))
    table = app.dataframe[0].value
    assert table["cell"].tolist() == [1, 2, 3, 4]
    assert set(table["file"]) == {"field.png"}
    assert "4 white cells" in [one.value for one in app.subheader]
    statistics = {row[""]: row["corrected"] for row in app.dataframe[2].value.to_dict("records")}
    assert statistics["White cells counted"] == "4"
    assert statistics["Red cells"] == "9"
    assert statistics["Cut by the right or bottom edge, not counted"] == "1"
    assert statistics["Platelets per 100 red cells"] == "22.2"
    assert "µm a pixel" in said(app)
