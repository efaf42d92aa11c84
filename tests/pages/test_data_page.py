"""The data page: an audit's findings, pictures behind them, and what it says when there is nothing to show."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from pages.parts.wording import plain
from tests.making import LABELS, draw_smear, draw_smears
from training.cli import main
from zoo.audits.reports import BUILTIN, ReportError, headlines, list_reports, read_report

ROOT = Path(__file__).parents[2]
VIEWS = ["Overview", "Samples", "Copies", "Suspects", "Shortcuts", "Map"]
HOSTILE = "<script>alert(1)<"  # no slash in a folder's name


@pytest.fixture(scope="module")
def audits(tmp_path_factory) -> Path:
    """Audits of one data set, with and without thumbnails; one class is called like a script."""
    root = tmp_path_factory.mktemp("audits")
    data = root / "cells"
    for part in ("TRAIN", "TEST"):
        draw_smears(data / part, 4)
    (data / "TRAIN" / HOSTILE).mkdir()
    for seed in range(3):
        draw_smear("monocyte", 50 + seed).save(data / "TRAIN" / HOSTILE / f"{seed}.png")
    (data / "TRAIN" / "monocyte" / "broken.png").write_text("no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEMAZOO_CACHE", str(root / "cache"))
        assert main(["audit", str(data), "--out", str(root / "reports" / "full")]) == 1
        assert main(["audit", str(data), "--out", str(root / "reports" / "bare"), "--no-thumbnails"]) == 1
    return root


@pytest.fixture
def page(zoo_environment, tmp_path, monkeypatch):
    """Opens the data page with reports and data sets named by the operator, and no built-in ones."""
    monkeypatch.setenv("HEMAZOO_BUILTIN_REPORTS", "0")

    def opened(reports: Path | str = "", datasets: Path | str = "") -> AppTest:
        monkeypatch.setenv("HEMAZOO_REPORTS", str(reports))
        monkeypatch.setenv("HEMAZOO_DATASETS", str(datasets))
        st.cache_resource.clear()
        st.cache_data.clear()
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
        app.switch_page("pages/data.py").run()
        assert not app.exception
        return app

    return opened


def said(app: AppTest) -> str:
    kinds = (app.title, app.subheader, app.markdown, app.caption, app.info, app.warning, app.error, app.success)
    return "\n".join(str(item.value) for kind in kinds for item in kind)


def html(app: AppTest) -> str:
    return "\n".join(item.proto.body for item in app.get("html"))


def look(app: AppTest, view: str) -> AppTest:
    app.button_group[0].set_value(view).run()
    assert not app.exception
    return app


def test_every_view_of_an_audit(page, audits):
    app = page(audits / "reports" / "full")
    report = read_report(audits / "reports" / "full").report
    for _, line in headlines(report):
        assert plain(line) in said(app)
    for view in VIEWS:
        look(app, view)
    look(app, "Samples")
    assert html(app).count("data:image/jpeg;base64,") == sum(min(12, n) for n in report.classes.values()) - 1


def test_both_audits_are_listed_and_one_has_pictures(page, audits):
    app = page(audits / "reports")
    assert app.selectbox[0].options == ["cells (bare)", "cells (full)"]
    assert any("HEMAZOO_DATASETS" in (caption.help or "") for caption in app.caption)
    assert "data:image" not in html(look(app, "Samples"))
    app.selectbox[0].select("cells (full)").run()
    assert "data:image" in html(app)


def test_an_audit_without_pictures_uses_those_of_the_data_set(page, audits):
    app = page(audits / "reports" / "bare", audits / "cells")
    assert app.selectbox[0].options == ["cells (bare)"]
    assert "data:image" in html(look(app, "Samples"))


def test_pictures_that_come_with_the_program_are_shown(page):
    app = page(BUILTIN / "pbc")
    assert re.search(r"2,074 of [\d,]+ pictures come with the program", said(app))
    classes = len(read_report(BUILTIN / "pbc").report.classes)
    assert html(look(app, "Samples")).count("data:image/jpeg;base64,") == 11 * classes


def test_names_from_a_data_set_cannot_run_as_script(page, audits):
    app = page(audits / "reports" / "full")
    for view in VIEWS:
        look(app, view)
        assert "<script" not in html(app)
        assert HOSTILE not in said(app)
    assert "<script>alert" not in (audits / "reports" / "full" / "index.html").read_text().split("</head>")[1]


def test_a_data_set_without_an_audit(page, audits):
    app = page("", audits / "cells")
    assert app.selectbox[0].options == ["cells (not audited)"]
    assert "36 pictures, 5 classes" in said(app)
    assert "python -m training audit" in app.code[0].value
    assert "data:image" in html(app)


def test_nothing_to_show(page):
    assert "There is no audit and no data set here" in said(page())


@pytest.mark.parametrize("damage", ["json", "version", "pictures", "other pictures"])
def test_a_damaged_report_gives_an_error(page, audits, tmp_path, damage):
    folder = tmp_path / "report"
    shutil.copytree(audits / "reports" / "full", folder)
    if damage == "json":
        (folder / "report.json").write_text("{")
    elif damage == "version":
        content = json.loads((folder / "report.json").read_text())
        (folder / "report.json").write_text(json.dumps({**content, "schema_version": 99}))
    elif damage == "pictures":
        (folder / "pictures.parquet").write_bytes(b"x")
    else:
        content = json.loads((folder / "report.json").read_text())
        (folder / "report.json").write_text(json.dumps({**content, "images": 3}))
    app = page(folder)
    assert "Run the audit again" in said(app)


def test_no_report_at_all(tmp_path):
    with pytest.raises(ReportError, match="no audit report"):
        read_report(tmp_path)
    assert list_reports({"HEMAZOO_REPORTS": str(tmp_path / "nowhere")}) == list_reports({"HEMAZOO_REPORTS": ""})


@pytest.mark.parametrize("folder", sorted(BUILTIN.iterdir()) if BUILTIN.is_dir() else [], ids=lambda f: f.name)
def test_built_in_audits(folder):
    audit = read_report(folder)
    table = audit.pictures
    assert "thumbnail" not in table  # no picture is part of the project
    assert len(table) == audit.report.images > 10_000
    assert set(table["label"]) == set(audit.report.classes)
    assert all(path.stat().st_size < 2_000_000 for path in folder.iterdir())
    known = table.dropna(subset="cell").set_index("file")["cell"].to_dict()
    assert known == audit.report.source_cells.of


def test_labels_are_the_drawn_ones(audits):
    assert set(read_report(audits / "reports" / "full").report.classes) == {*LABELS, HOSTILE}


def test_features_beside_a_report_are_positions_of_the_map(page, audits, monkeypatch):
    features = audits / "reports" / "bare" / "features-tiny.csv"
    monkeypatch.setenv("HEMAZOO_CACHE", str(audits / "cache"))
    assert main(["features", "tiny-cnn60", "--data", str(audits / "cells"), "--out", str(features)]) == 1
    try:
        app = look(page(audits / "reports" / "bare"), "Map")
        next(box for box in app.selectbox if box.label == "Position by").set_value("tiny").run()
        assert not app.exception
        assert "The first three features of tiny" in said(app)
        for toggle in ("Training and test side by side", "3-D"):
            next(item for item in app.toggle if item.label == toggle).set_value(True).run()
            assert not app.exception
        assert "**train**" in said(app)
        features.write_text("nothing")
        app = look(page(audits / "reports" / "bare"), "Map")
        next(box for box in app.selectbox if box.label == "Position by").set_value("tiny").run()
        assert "features-tiny.csv" in app.error[0].value.replace("\\", "")
    finally:
        features.unlink()
