"""Progress where there is no terminal."""

from __future__ import annotations

import pytest

from zoo import progress
from zoo.progress import duration, progress_bar


def test_prints_plain_lines_where_stderr_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress_bar(description="epoch 1/3", total=4, unit="image") as bar:
        for _ in range(2):
            bar.set_postfix_str("loss 0.5, about 2 minutes left in all", refresh=False)
            bar.update(2)
    said = capsys.readouterr().err
    assert "\r" not in said and said.endswith("\n")
    assert "epoch 1/3: 50 %, 2 of 4 images, " in said
    assert said.splitlines()[-1].endswith("left, loss 0.5, about 2 minutes left in all")
    assert said.count("100 %") == 1


def test_percent_are_not_counted_twice(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress_bar(None, "adapting", total=100, unit="%") as bar:
        bar.set_postfix_str("features", refresh=False)
        bar.update(40)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("adapting: 40 %, ") and line.endswith(" left, features") and line.count("%") == 1


def test_prints_nothing_for_what_is_short(capsys):
    assert list(progress_bar(range(3), "measuring", unit="image")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2, "5 seconds"), (41, "40 seconds"), (70, "1 minute"), (200, "3 minutes"), (9000, "2.5 hours")],
)
def test_durations_are_as_exact_as_an_estimate(seconds, words):
    assert duration(seconds) == words
