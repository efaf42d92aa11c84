"""`python -m training` and `hemazoo-train`: commands, help and exit statuses."""

from __future__ import annotations

import pytest

from training.cli import PROGRAM, main
from zoo.cli.common import find_commands
from zoo.version import __version__

COMMANDS = find_commands(PROGRAM.package)


def call(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as error:
        return int(error.code or 0)


def test_every_command_is_found():
    names = (
        "adapt audit crossval deploy-space evaluate explain-quality export-data features fetch gate loso publish "
        "publish-examples recipes report reproduce rows split sweep train"
    )
    assert set(COMMANDS) >= set(names.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    assert call(command, "--help") == 0
    text = capsys.readouterr().out
    assert f"usage: python -m training {command}" in text
    assert COMMANDS[command].partition("\n")[0] in " ".join(text.split())


def test_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"HemaZoo {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "COMMAND"),
        (("bake",), 2, "invalid choice"),
        (("train", "no-such-recipe", "--out", "x"), 2, "no-such-recipe"),
        (("train", "cnn60", "--out", "x", "--set", "optimizer.speed=1"), 2, "optimizer.speed"),
        (("train", "cnn60", "--out", "x", "--finish"), 2, "There is no unfinished run"),
        (("train", "cnn60", "--out", "x", "--resume"), 2, "There is nothing to resume"),
        (("train", "cnn60", "--out", "a b"), 2, "is not an entry name"),
        (("train", "cnn60", "--published", "--out", "x"), 2, "End the entry's name in _as_published"),
        (("evaluate", "cnn60"), 2, "Name the data sets' folder"),
        (("evaluate", "cnn60", "--benchmark", "nothing", "--data", "x"), 2, "There is no benchmark nothing"),
        (("evaluate", "no-such-entry", "--data", "x"), 1, "There is no model"),
        (("crossval", "cnn60", "--data", "x", "--folds", "1"), 2, "At least 2 folds"),
        (("split", "x", "--scheme", "grouped", "--out", "y", "--fractions", "1,2"), 2, "is not three numbers"),
        (("split", "x", "--scheme", "grouped", "--out", "y", "--fractions", "0.5,0.5,0.5"), 2, "add up to 1"),
        (("audit", "nowhere", "--out", "report"), 1, "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_usage_is_reported_in_a_sentence(tmp_path, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == status
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
