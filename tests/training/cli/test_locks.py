"""Two runs into one place: the second is refused while the first one lives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.making import draw_folder, make_entry
from training.cli import common
from training.cli import main as training
from zoo import files
from zoo.cli import main as zoo

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys, time
from pathlib import Path
from zoo.files import only_writer
with only_writer(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""
COMMANDS = {
    "classify": (zoo, "answers.jsonl", "classify {cells} --model {entry} --out {out}"),
    "train": (training, "mine", "train starter --data {cells} --out {out} --work {out}-work"),
    "train, its running state": (training, "mine-work", "train starter --data {cells} --out mine --work {out}"),
    "adapt": (training, "adapted", "adapt {entry} --data {cells} --out {out}"),
    "audit": (training, "report", "audit {cells} --out {out}"),
    "crossval": (training, "folds", "crossval starter --data {cells} --place {out}"),
}


@contextmanager
def another_run(place: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `place`."""
    command = [sys.executable, "-c", HOLDER, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_run_into_one_place_is_refused(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path))
    cells, entry = draw_folder(tmp_path / "cells", 2), make_entry(tmp_path / "made", "test_resnet", 1)
    main, name, text = COMMANDS[command]
    out = tmp_path / name
    with another_run(out):
        assert main(text.format(cells=cells, entry=entry.name, out=out).split()) == 2
    assert f"Another run is writing {out}. Wait for it, or choose another place" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("command", ["train", "audit"])
def test_what_the_other_run_wrote_is_not_replaced(command, tmp_path, monkeypatch, capsys):
    """The target appears between the first look and the lock."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path))
    cells = draw_folder(tmp_path / "cells", 2)
    main, name, text = COMMANDS[command]
    out = tmp_path / name
    only_writer = files.only_writer

    @contextmanager
    def late(target: Path) -> Iterator[None]:
        with only_writer(target):
            out.mkdir(exist_ok=True)
            (out / "theirs").touch()
            yield

    monkeypatch.setattr(files, "only_writer", late)
    monkeypatch.setattr(common, "only_writer", late)
    assert main(text.format(cells=cells, entry="", out=out).split()) == 2
    assert "already exists" in capsys.readouterr().err and (out / "theirs").exists()


REPLACING = {
    "adapt": "adapt made --data {cells} --out {out}",
    "audit": "audit {cells} --out {out} --restart",
    "export-data": "export-data {cells} --as yolo --out {out} --restart",
    "train": "train starter --data {cells} --out {out} --restart",
}


@pytest.mark.parametrize("command", REPLACING)
@pytest.mark.parametrize("place", ["cells", ".", "other"])
def test_data_and_other_folders_are_never_replaced(command, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path))
    cells = draw_folder(tmp_path / "cells", 2)
    draw_folder(tmp_path / "other", 1)
    make_entry(tmp_path / "made", "test_resnet", 1)
    before = sorted(tmp_path.rglob("*"))
    assert training(REPLACING[command].format(cells=cells, out=tmp_path / place).split()) == 2
    assert "Choose another --out" in capsys.readouterr().err
    assert set(before) <= set(tmp_path.rglob("*"))


def test_a_run_that_was_killed_holds_no_lock(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path))
    cells, entry = draw_folder(tmp_path / "cells", 1), make_entry(tmp_path / "made", "test_resnet", 1)
    out = tmp_path / "answers.jsonl"
    with another_run(out) as process:
        process.kill()
    assert zoo(["classify", str(cells), "--model", entry.name, "--out", str(out)]) == 0
    assert out.is_file()
