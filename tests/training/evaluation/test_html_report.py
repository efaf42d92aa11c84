"""`python -m training report`: a self-contained page with the entries' figures that is safe to open."""

from __future__ import annotations

import re
from html import escape

import numpy as np
import pandas as pd
import pytest

from tests.making import LABELS, add_evaluation, draw_cell, make_entry, make_predictions
from training.cli import main
from training.evaluation.html_report import render
from zoo.entry import read_entry, read_predictions, write_predictions
from zoo.scores import significance
from zoo.sources.catalogue import get_entry

DATA = "drawn"


@pytest.fixture
def entries(tmp_path):
    """Two entries scored on the same drawn pictures, whose folder is named like the data set."""
    made = []
    for number, name in enumerate(("cnn60", "test_resnet")):
        title = 'Tiny & "quoted" > plain' if number else "Plain"
        folder = make_entry(tmp_path / "zoo" / name, name, title=title, recipe={"data": {"name": DATA}})
        add_evaluation(folder, number + 1)
        made.append(folder)
    return made


def page(tmp_path, *arguments: object) -> str:
    out = tmp_path / "out" / "report.html"
    assert main(["report", *map(str, arguments), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def test_page_shows_scores_of_evaluation_and_counts_of_predictions(entries, tmp_path):
    text = page(tmp_path, *entries)
    for folder in entries:
        entry = read_entry(folder)
        found = entry.evaluation.benchmarks["drawn-test"].metrics
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "log_loss", "accuracy_by_cell"):
            score = found[name]
            assert f"<td>{score.value:.4f} ({score.low:.4f} to {score.high:.4f})</td>" in text
        table = read_predictions(entry, "drawn-test")
        wrong = (table[LABELS].to_numpy().argmax(1) != [LABELS.index(label) for label in table["label"]]).sum()
        assert f"{escape(entry.title)}: {wrong:,} wrong" in text
    assert "Pairs of models" in text and "Class by class" in text and "Difference" in text


def test_page_needs_no_other_file(entries, tmp_path):
    text = page(tmp_path, *entries)
    outside = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)  # plotly's own code names its home
    assert not re.search(r'(src|href)="(?!data:|#)', outside)
    assert outside.count('download="') >= 4  # every table as CSV


def test_text_of_an_entry_is_escaped(entries, tmp_path):
    for folder in entries:
        table = read_predictions(read_entry(folder), "drawn-test")
        table["file"] = "<script>alert(1)</script>" + table["file"]
        write_predictions(folder, "drawn-test", table, LABELS)
    report = tmp_path / "report.html"
    report.write_text(page(tmp_path, *entries), encoding="utf-8")
    text = report.read_text(encoding="utf-8")
    assert "Tiny &amp; &quot;quoted&quot; &gt; plain" in text
    # plotly's data are JSON in which the brackets of tags are written as escapes
    assert "<script>alert(1)" not in text


def test_thumbnails_are_shown_if_the_data_are_there_unless_switched_off(entries, tmp_path, monkeypatch):
    place = tmp_path / DATA
    place.mkdir()
    table = make_predictions(1)
    for file, label in zip(table["file"], table["label"], strict=True):
        draw_cell(label, 1, (48, 48)).save(place / file)
    monkeypatch.setenv("HEMAZOO_DATASETS", str(place))
    assert "data:image/jpeg;base64," in page(tmp_path, *entries)
    assert "data:image/jpeg;base64," not in page(tmp_path, *entries, "--no-thumbnails")


def test_entries_that_cannot_be_compared_are_an_error_message(entries, tmp_path, capsys):
    bare = make_entry(tmp_path / "zoo" / "bare", "cnn60")
    out = tmp_path / "none.html"
    assert main(["report", str(bare), "--out", str(out)]) == 1
    assert "Score it first" in capsys.readouterr().err
    table = read_predictions(read_entry(entries[0]), "drawn-test")
    write_predictions(entries[0], "drawn-test", table.assign(**{LABELS[0]: np.nan}), LABELS)
    assert main(["report", *map(str, entries), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "drawn-test" in said and "cnn60" in said
    assert not out.exists()


def test_most_confident_errors_come_first_and_only_where_the_other_model_is_correct():
    def table(shares: list[list[float]]) -> pd.DataFrame:
        made = pd.DataFrame(shares, columns=["a", "b"])
        return made.assign(file=[f"{i}.png" for i in range(len(made))], cell=["1", "2", "3"], label="a")

    right, wrong = table([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]]), table([[0.4, 0.6], [0.1, 0.9], [0.3, 0.7]])
    assert significance.misclassified(wrong, ["a", "b"])["file"].tolist() == ["1.png", "2.png", "0.png"]
    assert significance.only_first_correct(right, wrong, ["a", "b"])["file"].tolist() == ["1.png", "0.png"]
    with pytest.raises(ValueError, match="different pictures"):
        significance.only_first_correct(right, wrong.assign(file=["x", "y", "z"]), ["a", "b"])


def test_models_of_eight_and_of_four_classes_are_reported_together():
    entries = [get_entry("champion8"), get_entry("champion4")]
    page = render(entries, {entry.id: entry.title for entry in entries})
    assert "Left out, because scored on pictures of other classes" in page  # their own mixed test sets
    assert "Sample: peripheral blood." in page
