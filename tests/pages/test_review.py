"""The review on the Classify page: fields, corrections with undo, counts, reports and saved reviews."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from pages.parts.review.alike import SHOWN
from tests.fields import draw_field, empty_ground, find, make_detector
from tests.pages.test_pages import MODEL, ROOT, go, picker, png, said, upload
from zoo.review.kinds import kinds, title_of


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
    monkeypatch.setenv("HEMAZOO_DETECTOR", "drawn")
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
    next(button for button in app.button if button.label.startswith("Correct")).click()
    app.run()
    assert not app.exception
    return app


def answers(app: AppTest, column: str = "label") -> list[str]:
    """A column of the table, a row a cell; the table begins with those for review."""
    table = app.dataframe[0].value
    return table.sort_values("cell" if "cell" in table else "file")[column].tolist()


class Downloads:
    """Content behind the download buttons of the last run."""

    def __init__(self, button) -> None:
        self.button, self.made = button, {}

    def __call__(self, label: str, data, *arguments, **options):
        self.made[label] = data
        return self.button(label, data, *arguments, **options)

    def __getitem__(self, label: str) -> bytes:
        made = self.made[label]
        return made() if callable(made) else made


@pytest.fixture
def downloads(monkeypatch) -> Downloads:
    recorder = Downloads(st.download_button)
    monkeypatch.setattr(st, "download_button", recorder)
    return recorder


def edit(app: AppTest, label: str, text: str) -> AppTest:
    next(box for box in app.text_input if box.label == label).set_value(text).run()
    assert not app.exception
    return app


def test_every_white_cell_of_a_field_has_its_row_and_the_field_its_counts(app):
    upload(app, ("field.png", field()))
    table = app.dataframe[0].value
    assert table["cell"].tolist() == [1, 2, 3, 4]
    assert set(table["file"]) == {"field.png"}
    assert "4 white cells" in [one.value for one in app.subheader]
    statistics = {row[""]: row["corrected"] for row in app.dataframe[2].value.to_dict("records")}
    assert statistics["White cells counted"] == "4"
    assert statistics["Red cells"] == "9"
    assert statistics["Cut by an edge, not counted"] == "1"
    assert statistics["Platelets per 100 red cells"] == "22.2"
    assert "µm a pixel" in said(app)


def test_a_correction_reaches_counts_reports_and_csv_and_can_be_undone(app, downloads):
    upload(app, ("field.png", field()))
    model = answers(app)
    edit(app, "Slide", "slide 7")
    edit(app, "Reader", "A. Reader")
    give(app, "blast")
    assert answers(app) == ["blast", *model[1:]]
    counted = app.dataframe[1].value.set_index("kind")
    assert counted.loc["blast", "count"] == 1
    assert "✎ Corrected; the model says" in said(app)
    table = pd.read_csv(io.BytesIO(downloads["Results as CSV"]))
    white = table[table["object"] == "white cell"]
    assert white["label"].tolist() == ["blast", *model[1:]]
    assert white["model_label"].tolist() == model
    assert white["reader"][0] == "A. Reader"
    html = downloads["Report as HTML"].decode()
    assert "slide 7" in html and "blast" in html and "not for diagnosis" in html
    assert downloads["Report as PDF"].startswith(b"%PDF")
    click(app, "Undo")
    assert answers(app) == model
    click(app, "Redo")
    assert answers(app)[0] == "blast"
    click(app, "As the model says")
    assert answers(app) == model


def test_a_review_is_saved_and_opened_for_the_same_picture_under_another_name(app, downloads, zoo_environment):
    upload(app, ("field.png", field()))
    give(app, "not a cell")
    edit(app, "Note", "stain on the lens")
    saved = downloads["Save review"]
    with zipfile.ZipFile(io.BytesIO(saved)) as file:
        assert file.namelist() == ["review.json"]
    other = start(zoo_environment)
    opener = next(one for one in upload(other, ("renamed.png", field())).file_uploader if one.label == "Open a review")
    opener.upload("review.zip", saved)
    other.run()
    assert not other.exception
    assert answers(other, "kind")[0] == "not a cell"
    assert other.dataframe[1].value["count"].sum() == 3
    assert "1 decision opened." in other.session_state["review"].told
    opener = next(one for one in other.file_uploader if one.label == "Open a review")
    opener.set_value([("bad.zip", b"no zip", "application/zip")]).run()
    assert "This is no saved review" in said(other)


@pytest.mark.parametrize(("time", "shown"), [("2026-03-01T10:20:30+02:00", "2026-03-01 08:20 UTC"), ("noon", "noon")])
def test_a_second_readers_times_are_told_in_utc_or_as_they_stand(app, downloads, zoo_environment, time, shown):
    upload(app, ("field.png", field()))
    give(app, "monocyte")
    with zipfile.ZipFile(io.BytesIO(downloads["Save review"])) as file:
        content = json.loads(file.read("review.json"))
    content["decisions"][0] |= {"kind": "lymphocyte", "time": time}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("review.json", json.dumps(content))
    place = next(one for one in app.file_uploader if one.label.startswith("Another person"))
    place.set_value([("theirs.zip", data.getvalue(), "application/zip")]).run()
    assert not app.exception
    assert "Fewer than 20 cells: it says little" in said(app)
    dispute = next(one.value for one in app.dataframe if "you" in one.value)
    assert dispute.filter(like="when, ").iloc[0, 0] == shown


def test_the_model_changes_and_corrections_stay(app):
    upload(app, ("field.png", field()))
    give(app, "plasma cell")
    picker(app).set_value("tiny-cnn60").run()
    assert answers(app, "kind")[0] == "plasma cell"


def test_a_chosen_cell_is_explained_and_reviewed_cells_go_to_adapt(app):
    upload(app, ("field.png", field()), ("other.png", field(1)))
    give(app, "monocyte")
    go(app, "explain")
    assert app.multiselect[0].value[0].endswith("-1")
    assert "Cell 1 of field.png" in said(app)
    go(app, "adapt")
    toggle = next(one for one in app.toggle if "reviewed on Classify" in one.label)
    assert toggle.label.startswith("Use 1 cell that")
    assert "Still needed: 4 more of monocyte" in said(app)


def open_known_cells(app: AppTest) -> AppTest:
    app.session_state["known cells"] = True
    app.run()
    assert not app.exception
    return app


@pytest.mark.parametrize("model", ["tiny-cnn60", MODEL])
def test_known_cells_like_the_chosen_one_are_shown_when_asked_for(app, model):
    picker(app).set_value(model).run()
    upload(app, ("field.png", field()))
    assert "Test cells of PBC" not in said(app)
    open_known_cells(app)
    assert "Test cells of PBC." in said(app)
    shown = [one.value for one in app.caption if one.value in {title_of(kind) for kind in kinds()}]
    assert len(shown) == SHOWN
    most = max(shown.count(kind) for kind in shown)
    assert f"{most} of {SHOWN}: **" in said(app)


def test_known_cells_are_shown_beside_the_answer_for_one_picture(without_detector):
    upload(without_detector, ("cell.png", png("monocyte")))
    assert "Test cells of PBC" in said(open_known_cells(without_detector))


def test_a_picture_without_cells_is_classified_as_a_whole_and_a_close_up_too(app):
    upload(app, ("empty.png", encoded(empty_ground())), ("cell.png", png("monocyte")))
    assert app.dataframe[0].value["file"].tolist() == ["empty.png", "cell.png"]
    assert "cell" not in app.dataframe[0].value
    assert "Whole fields" not in [one.value for one in app.subheader]


def test_fields_without_white_cells_are_named_in_one_box(app):
    reds = [encoded(draw_field(seed, white=0)[0]) for seed in range(3)]
    upload(app, ("field.png", field()), ("red.png", reds[0]))
    assert [one.value for one in app.info] == ["red\\.png: no white cell was found, only 12 other cells."]
    upload(app, ("field.png", field()), *((f"red{n}.png", data) for n, data in enumerate(reds)))
    (told,) = app.info
    assert told.value.startswith("In 3 pictures no white cell was found")
    assert "One answer a picture" in told.value
    assert any(list(table.value.columns) == ["file", "found"] for table in app.dataframe)


def test_one_answer_a_picture_is_a_choice(app):
    upload(app, ("field.png", field()))
    next(one for one in app.toggle if one.label == "One answer a picture").set_value(True).run()
    assert not app.exception
    assert "Whole fields" not in [one.value for one in app.subheader]
    assert any("Result as CSV" in one.proto.label for one in app.get("download_button"))


def test_without_a_detector_pictures_are_reviewed_as_wholes(without_detector):
    app = without_detector
    assert not [one for one in app.toggle if one.label == "One answer a picture"]
    upload(app, ("a.png", field()))
    give(app, "artefact")
    assert "✎ Corrected to artefact" in said(app)
    upload(app, ("a.png", field()), ("b.png", png("monocyte")))
    assert answers(app, "kind")[0] == "artefact"
    next(button for button in app.button if button.label == "Clear all").click().run()
    assert "review" not in app.session_state


def test_bundled_examples_are_offered_at_the_first_visit(app):
    labels = [button.label for button in app.button]
    assert {"field 1", "field 2", "neutrophil", "platelet", "not a cell", "All of them"} <= set(labels)
    assert "BCCD_Dataset (MIT)" in said(app)
    click(app, "lymphocyte")
    assert [one.name for one in app.session_state["pictures"].values()] == ["lymphocyte.jpg"]


@pytest.mark.parametrize("name", ["explain", "examples"])
def test_bundled_examples_are_offered_wherever_a_picture_is_needed(app, name):
    go(app, name)
    click(app, "lymphocyte")
    assert [one.name for one in app.session_state["pictures"].values()] == ["lymphocyte.jpg"]
