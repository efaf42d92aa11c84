"""CSV exports: nothing in them is a formula, and reading gives back what was written."""

from __future__ import annotations

import csv
import string

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from tests.making import LABELS, draw_cell, make_entry
from zoo.cli import main
from zoo.tables import guarded, read_csv, to_csv, unguarded

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''+1", '=HYPERLINK("x")']
HARMLESS = ["", "a.png", "1-2", "'quoted'", "basophil", "-0.5", "+3", "-1e-7", "ä=1", " =1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_get_an_apostrophe_that_reading_removes(text):
    assert guarded(text) == f"'{text}"
    assert unguarded(guarded(text)) == text


@pytest.mark.parametrize("value", [*HARMLESS, -0.5, 3, None, True])
def test_anything_else_stays(value):
    assert guarded(value) is value
    assert unguarded(value) is value


@given(st.text("=+-@'\t\r01" + string.ascii_letters))
def test_every_text_is_read_back(text):
    assert unguarded(guarded(text)) == text


def test_a_table_is_read_back_and_its_numbers_stay_numbers(tmp_path):
    table = pd.DataFrame({"file": ["=1+1.png", "b.png"], "value": [-0.5, 2.0], "-x": ["+1 a", "c"]})
    place = tmp_path / "table.csv"
    place.write_text(to_csv(table), encoding="utf-8")
    assert zoo.read_csv(place).equals(table)
    with place.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["file", "value", "'-x"], ["'=1+1.png", "-0.5", "'+1 a"], ["b.png", "2.0", "c"]]


@pytest.mark.parametrize("option", ["--csv", "--out"])
def test_classified_files_with_dangerous_names(tmp_path, monkeypatch, option):
    """The names of readable files and of a broken one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path / "entries"))
    entry = make_entry(tmp_path / "entries" / "made", "test_resnet", 1)
    draw_cell(LABELS[0], 1).save("=1+1.png")
    (tmp_path / "@broken.png").write_bytes(b"no picture")
    assert main(["classify", "=1+1.png", "@broken.png", "--model", entry.name, option, "answers.csv"]) == 1
    raw = pd.read_csv("answers.csv")
    assert raw["file"].tolist() == ["'=1+1.png", "'@broken.png"]
    assert read_csv(tmp_path / "answers.csv")["file"].tolist() == ["=1+1.png", "@broken.png"]
