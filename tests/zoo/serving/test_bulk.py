"""`python -m zoo classify --out`: any number of files, interrupted and resumed, and on processes of Ray."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.making import LABELS, draw_folder
from zoo.cli import main
from zoo.serving import bulk
from zoo.serving.batch import FileResult
from zoo.sources.catalogue import get_entry

MODEL = "tiny-cnn60"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path, zoo_environment) -> Path:
    place = draw_folder(tmp_path / "cells", 6, size=(64, 64))
    (place / "monocyte" / "broken.png").write_text("no picture")
    return place


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def same(some: list[dict], others: list[dict]) -> bool:
    """The same answers in the same order, but for what the size of a batch changes."""
    assert [one["file"] for one in some] == [other["file"] for other in others]
    for one, other in zip(some, others, strict=True):
        assert one.get("error") == other.get("error")
        assert one.get("label") == other.get("label")
        assert one.get("probabilities") == pytest.approx(other.get("probabilities"), abs=1e-4)
    return True


def test_output_file_equals_standard_output(folder, tmp_path, capsys):
    assert main(["classify", str(folder), "--model", MODEL, "--json"]) == 1
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["classify", str(folder), "--model", MODEL, "--out", str(tmp_path / "out" / "all.jsonl")]) == 1
    assert same(lines(tmp_path / "out" / "all.jsonl"), said)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["all.jsonl"]
    assert main(["classify", str(folder), "--model", MODEL, "--out", str(tmp_path / "all.csv")]) == 1
    with (tmp_path / "all.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [one["file"] for one in said]
    assert sum(bool(row["error"]) for row in rows) == 1
    assert all(float(row[LABELS[0]]) >= 0 for row in rows if not row["error"])


def test_resumes_an_interrupted_run(folder, tmp_path, capsys, monkeypatch):
    """Cut in the middle of a line: nothing twice, nothing lost, nothing computed again."""
    out, whole = tmp_path / "all.jsonl", tmp_path / "whole.jsonl"
    assert main(["classify", str(folder), "--model", MODEL, "--out", str(whole)]) == 1
    real, count = bulk.as_record, 0

    def some(result: FileResult) -> dict:
        nonlocal count
        count += 1
        if count == 9:
            raise KeyboardInterrupt
        return real(result)

    monkeypatch.setattr(bulk, "as_record", some)
    command = ["classify", str(folder), "--model", MODEL, "--out", str(out)]
    assert main(command) == 130
    assert not out.exists()
    part = bulk.partial_path(out)
    part.write_bytes(part.read_bytes()[:-7])
    count = 100
    assert main(command) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 1
    assert count == 100 + 25 - 7
    assert same(lines(out), lines(whole))
    assert not part.exists()


def test_resumes_a_killed_run(folder, tmp_path):
    """SIGKILL, then --resume, again and again."""
    out = tmp_path / "all.jsonl"
    command = [sys.executable, "-m", "zoo", "classify", str(folder), "--model", MODEL, "--out", str(out)]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not bulk.partial_path(out).exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    if not out.exists():
        assert subprocess.run([*command, "--resume"], cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode == 1
    assert sorted(one["file"] for one in lines(out)) == sorted(map(str, folder.rglob("*.png")))


@pytest.mark.parametrize("change", [(b"confidence", b"confidance"), None], ids=["changed", "of an older version, torn"])
def test_goes_on_before_a_damaged_record(folder, tmp_path, capsys, monkeypatch, change):
    """A record that was changed while the run lay still is computed again, with those behind it."""
    out, whole = tmp_path / "all.jsonl", tmp_path / "whole.jsonl"
    command = ["classify", str(folder), "--model", MODEL, "--out"]
    assert main([*command, str(whole)]) == 1
    with monkeypatch.context() as interrupted, pytest.raises(SystemExit):
        interrupted.setattr(bulk, "finish_output", lambda *_: sys.exit("interrupted"))
        main([*command, str(out)])
    part = bulk.partial_path(out)
    records = part.read_bytes().splitlines(keepends=True)
    records[4] = records[4].replace(*change, 1) if change else b'{"file": "x.png"}\n'
    part.write_bytes(b"".join(records))
    assert main([*command, str(out), "--resume"]) == 1
    assert "was damaged: going on after its 3 sound records" in capsys.readouterr().err
    assert same(lines(out), lines(whole))


@pytest.mark.parametrize(
    ("prepare", "more", "said"),
    [
        (None, ["--out", "x.txt"], ".jsonl or .csv"),
        ("x.jsonl", ["--out", "x.jsonl"], "exists already"),
        (None, ["--out", "x.jsonl", "--resume"], "no run to resume"),
        ("x.jsonl.part", ["--out", "x.jsonl"], "--resume"),
        ("x.jsonl.part", ["--out", "x.jsonl", "--resume"], "another model"),
        (None, ["--resume"], "--out"),
    ],
)
def test_wrong_usage_gives_an_error_message(folder, tmp_path, monkeypatch, capsys, prepare, more, said):
    monkeypatch.chdir(tmp_path)
    if prepare:
        Path(prepare).write_text('{"model": "other"}\n')
    assert main(["classify", str(folder), "--model", MODEL, *more]) == 2
    assert said in capsys.readouterr().err


def test_memory_does_not_grow_with_the_number_of_files(zoo_environment, tmp_path):
    """3,000 files: nothing is kept of those that are done but their names."""
    one = draw_folder(tmp_path / "one", 1) / "monocyte" / "000.png"
    place = tmp_path / "many"
    place.mkdir()
    for number in range(3000):
        os.link(one, place / f"{number:05}.png")
    process, seen = psutil.Process(), []
    real = bulk.as_record

    def watching(result: FileResult) -> dict:
        if len(seen) % 500 == 0:
            seen.append(process.memory_info().rss)
        else:
            seen.append(0)
        return real(result)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "as_record", watching)
        assert main(["classify", str(place), "--model", MODEL, "--out", str(tmp_path / "all.jsonl")]) == 0
    sizes = [size for size in seen if size]
    assert sizes[-1] < sizes[1] + 40_000_000
    assert len(lines(tmp_path / "all.jsonl")) == 3000


def test_two_ray_workers_give_the_answers_of_one_process(folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("ray")
    monkeypatch.setattr(bulk, "CLUSTER_BATCH", 7)
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    command = ["classify", str(folder), "--model", MODEL, "--precision", "fp32"]
    assert main([*command, "--out", str(here)]) == 1
    assert main([*command, "--out", str(there), "--ray", "--workers", "2"]) == 1
    one, other = ({found["file"]: found for found in lines(path)} for path in (here, there))
    assert set(one) == set(other)
    for name, found in one.items():
        assert other[name].get("error") == found.get("error")
        assert other[name].get("probabilities") == pytest.approx(found.get("probabilities"), abs=1e-5)
    assert get_entry(MODEL).usable
