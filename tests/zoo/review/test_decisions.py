"""Decisions about cells, kinds, counts by both answers, and files of a review."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from PIL import Image

from zoo.review import report as reports
from zoo.review.cells import Cell, Decision, Journal, Reviewed, review
from zoo.review.coco import coco
from zoo.review.differential import HIGH, LOW, differential
from zoo.review.kinds import VARIABLE, KindsError, kind_named, kinds, title_of
from zoo.review.session_file import (
    Review,
    ReviewFileError,
    SavedPicture,
    read_review,
    saved_cells,
    saved_decisions,
    write_review,
)
from zoo.review.training_cells import class_folders, labelled

SIZE = (1000, 1000)


def cell(number: int, label: str | None = "neutrophil", kind: str = "white cell", picture: str = "one") -> Cell:
    left = 30.0 * (number % 30)
    return Cell(picture, number, (left, 10.0, left + 20, 30.0), kind, label, 0.9, {"neutrophil": 0.9, "ig": 0.1})


def decided(cells: list[Cell], kind: str, journal: Journal | None = None) -> Journal:
    decisions = {one.key: Decision(kind, one.answer, "A") for one in cells}
    return (journal or Journal()).decide(decisions, f"{len(cells)} as {kind}")


def test_steps_are_undone_and_repeated_and_a_new_one_forgets_what_was_undone():
    first, second = cell(1), cell(2)
    journal = decided([second], "blast", decided([first, second], "monocyte"))
    assert [one.kind for one in review([first, second], journal)] == ["monocyte", "blast"]
    assert [one.kind for one in review([first, second], journal.undo())] == ["monocyte", "monocyte"]
    assert journal.undo().redo() == journal
    assert review([first], journal.undo().undo())[0].decision is None
    assert decided([first], "basophil", journal.undo()).redo().decisions[second.key].kind == "monocyte"
    assert Journal().undo() == Journal().redo() == Journal()


def test_a_box_that_was_found_a_little_differently_keeps_its_decision():
    journal = decided([cell(1)], "blast")
    moved = Cell("one", 7, (31.0, 11.5, 50.0, 30.0), "white cell", "monocyte", 0.5)
    elsewhere = Cell("one", 8, (60.0, 10.0, 80.0, 30.0), "white cell", "monocyte", 0.5)
    other_picture = Cell("two", 1, (30.0, 10.0, 50.0, 30.0), "white cell", "monocyte", 0.5)
    found = review([elsewhere, moved, other_picture], journal)
    assert [one.kind for one in found] == ["monocyte", "blast", "monocyte"]


def test_the_list_of_kinds_has_what_no_model_knows_and_different_keys():
    known = kinds()
    assert {"blast", "atypical lymphocyte", "smudge cell", "artefact", "not a cell", "unsure"} <= set(known)
    keys = [kind.key for kind in known.values() if kind.key]
    assert len(keys) == len(set(keys))
    assert kind_named("NEUTROPHIL").name == "neutrophil"
    assert title_of("ig") == "immature granulocyte"
    assert kind_named("martian cell").counted == "white"


def test_a_laboratory_adds_kinds_of_its_own(tmp_path, monkeypatch):
    own = tmp_path / "kinds.toml"
    own.write_text('["hairy cell"]\nshort = "HAI"\nkey = "h"\n[unsure]\nshort = "??"\ncounted = "none"\n')
    monkeypatch.setenv(VARIABLE, str(own))
    assert kinds()["hairy cell"].counted == "white"
    assert kinds()["unsure"].short == "??"
    assert "blast" in kinds()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "is no list of kinds"),
        ('[a]\nshort = "A"\nkey = "n"\n', "have the same key, 'n'"),
        ('[a]\nshort = "too long"\n', "short"),
        ('[a]\nshort = "A"\ncolour = "red"\n', "colour"),
        ("a = 1\n", "is no list of kinds"),
    ],
)
def test_a_bad_list_of_kinds_says_what_is_wrong(tmp_path, monkeypatch, text, said):
    own = tmp_path / "kinds.toml"
    own.write_text(text)
    monkeypatch.setenv(VARIABLE, str(own))
    with pytest.raises(KindsError, match=said):
        kinds()


def test_the_differential_has_both_answers_and_says_what_is_surely_low_or_high():
    cells = [cell(n) for n in range(1, 21)] + [cell(n, "lymphocyte", picture="two") for n in range(1, 21)]
    journal = decided(cells[:20], "lymphocyte")
    journal = decided([cells[0]], "not a cell", journal)
    found = differential(review(cells, journal), {"one": SIZE, "two": SIZE})
    table = found.table().set_index("kind")
    assert table.loc["neutrophil", ["model", "corrected"]].tolist() == [20, 0]
    assert table.loc["lymphocyte", ["model", "corrected"]].tolist() == [20, 39]
    assert table["model_share"].sum() == pytest.approx(1)
    assert table["corrected_share"].sum() == pytest.approx(1)
    assert table["flag"].tolist() == [LOW, HIGH]
    assert found.corrected.other == {"not a cell": 1}
    assert found.corrected.fields == 2


def test_a_report_names_the_source_of_what_is_normal(tmp_path, monkeypatch):
    def told() -> str:
        found = differential(review([cell(1), cell(2, "basophil")], Journal()), {"one": SIZE})
        return reports.html(reports.Report("", "", [], found, [], {}))

    assert "Normal: Dacie and Lewis, Practical Haematology" in told()
    own = tmp_path / "kinds.toml"
    own.write_text('[neutrophil]\nshort = "NEU"\nnormal = [45, 75]\nsource = "Our own adults, 2024"\n')
    monkeypatch.setenv(VARIABLE, str(own))
    assert "Our own adults, 2024; Dacie and Lewis" in told() and "45 to 75 %" in told()


def test_bands_and_segmented_neutrophils_count_together_for_the_reference():
    cells = [cell(n) for n in range(1, 21)]
    journal = decided(cells[10:], "segmented neutrophil", decided(cells[:10], "band neutrophil"))
    cells += [cell(n, "lymphocyte", picture="two") for n in range(1, 11)]
    table = differential(review(cells, journal), {"one": SIZE, "two": SIZE}).table().set_index("kind")
    assert not table["flag"].any()


def saved(cells: list[Cell], journal: Journal) -> Review:
    return Review(
        slide="7",
        reader="A",
        model="tiny",
        pictures=[SavedPicture(hash="one", name="a.png", size=SIZE)],
        cells=saved_cells(cells),
        decisions=saved_decisions(journal.decisions),
    )


def test_a_review_comes_back_from_its_file():
    cells = [cell(1), cell(2, None, "platelet")]
    journal = decided(cells[:1], "blast")
    content = write_review(saved(cells, journal), {"one": ("a.png", b"bytes")})
    review_read, pictures = read_review(content)
    assert [one.cell() for one in review_read.cells] == cells
    assert review_read.journal().decisions == journal.decisions
    assert (review_read.slide, review_read.reader, pictures) == ("7", "A", {"one": b"bytes"})


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name.replace("_json", ".json"), data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no zip", "no readable ZIP"),
        (zipped(other=b""), "is missing"),
        (zipped(review_json=b"{"), "cannot be read"),
        (zipped(review_json=json.dumps({"decisions": [{"picture": 1}]}).encode()), "decisions 0"),
        (zipped(review_json=json.dumps({"format": 99}).encode()), "newer"),
        (zipped(review_json=b" " * 30_000_000), "larger than"),
    ],
)
def test_a_file_that_is_no_review_is_refused(content, said):
    with pytest.raises(ReviewFileError, match=said):
        read_review(content)


def test_reports_hold_the_corrected_numbers_and_escape_what_people_typed():
    cells = [cell(1), cell(2)]
    journal = Journal().decide({cells[0].key: Decision("blast", "neutrophil", "A", note="<b>see</b> $x$")}, "one")
    reviewed = review(cells, journal)
    report = reports.Report(
        "<script>7",
        "A",
        [("Model", "tiny")],
        differential(reviewed, {"one": SIZE}),
        reviewed,
        {"one": "=a.png"},
        [(reviewed[0], Image.new("RGB", (20, 20)))],
    )
    page = reports.html(report)
    assert "<script>" not in page and "<b>see" not in page
    assert "neutrophil → blast" in page and "not for diagnosis" in page
    assert reports.pdf(report).startswith(b"%PDF")
    table = reports.cells_table(reviewed, report.files)
    assert table["label"].tolist() == ["blast", "neutrophil"]
    assert table["model_label"].tolist() == ["neutrophil", "neutrophil"]
    assert table["corrected"].tolist() == [True, False]


def test_reviewed_cells_become_class_folders_and_unsure_ones_do_not():
    cells = [cell(n) for n in range(1, 4)]
    journal = decided([cells[2]], "unsure", decided(cells[:2], "band neutrophil"))
    known = labelled(review(cells, journal))
    content = class_folders(known, lambda one: Image.new("RGB", (8, 8)), {"one": "../my slide.png"})
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.namelist() == ["band-neutrophil/my-slide-1.png", "band-neutrophil/my-slide-2.png"]
        assert Image.open(io.BytesIO(file.read(file.namelist()[0]))).size == (8, 8)
    assert not Reviewed(cells[0]).corrected


def test_the_models_errors_widen_the_limits_of_what_nobody_decided_about():
    cells = [cell(n, "neutrophil" if n % 2 else "lymphocyte") for n in range(20)]
    plain, measured = (differential(review(cells, Journal()), {"one": SIZE}, error).table() for error in (None, 0.1))
    assert (measured["high"] - measured["low"] > plain["high"] - plain["low"]).all()
    approved = Journal({one.key: Decision(str(one.answer), one.answer, "A") for one in cells})
    decided_all = differential(review(cells, approved), {"one": SIZE}, 0.1).table()
    chance = differential(review(cells, approved), {"one": SIZE}, 0.0).table()
    assert decided_all["low"].tolist() == chance["low"].tolist()
    assert (decided_all["low"] > measured["low"]).all()


def test_boxes_as_coco_hold_the_kinds_that_count_and_who_decided():
    cells = [cell(0), cell(1), cell(2, None, "red cell"), cell(3, None)]
    journal = Journal({cells[1].key: Decision("blast", "neutrophil", "A", "2026-01-01T00:00:00+00:00")})
    content = json.loads(coco(review(cells, journal), {"one": "a.png"}, {"one": SIZE}))
    names = {category["id"]: category["name"] for category in content["categories"]}
    boxes = content["annotations"]
    assert content["images"] == [{"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}]
    assert [names[box["category_id"]] for box in boxes] == ["neutrophil", "blast", str(cells[2].answer)]
    assert [box["bbox"] for box in boxes] == [[30.0 * n, 10.0, 20.0, 20.0] for n in range(3)]
    assert boxes[1] | {"reader": "A", "model": "neutrophil"} == boxes[1]
    assert "reader" not in boxes[0]
