"""Reviews kept on the server: found by their token alone, for their time, within the bound, erased when asked."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from zoo.limits import KEPT_MB
from zoo.review import kept


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path))
    monkeypatch.delenv(kept.VARIABLE, raising=False)
    return tmp_path / "reviews"


def test_a_review_is_found_by_its_token_alone_until_it_is_erased(folder: Path):
    mine, other = kept.new_token(), kept.new_token()
    assert mine != other
    assert kept.is_token(mine)
    assert not kept.is_token(mine + "/..")
    assert kept.keep(mine, "decisions", b"decided")
    assert kept.keep(mine, "pictures", b"pictures")
    assert kept.find(mine) == [b"pictures", b"decided"]  # decisions are about the pictures before them
    assert kept.find(other) == []
    names = [path.name for path in folder.iterdir()]
    assert len(names) == 2
    assert not any(mine in name for name in names)
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    kept.forget(mine)
    assert kept.find(mine) == []
    assert list(folder.iterdir()) == []


def test_a_review_whose_time_is_over_is_erased(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(kept.VARIABLE, "0.5")
    old, new = kept.new_token(), kept.new_token()
    kept.keep(old, "decisions", b"old")
    for path in folder.iterdir():
        os.utime(path, (0, time.time() - 1801))
    kept.keep(new, "decisions", b"new")
    assert kept.find(old) == []
    assert kept.find(new) == [b"new"]
    assert len(list(folder.iterdir())) == 1


def test_the_oldest_make_room_and_too_large_a_one_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(KEPT_MB.variable, "1")
    tokens = [kept.new_token() for _ in range(3)]
    for age, token in zip((30, 20), tokens, strict=False):
        kept.keep(token, "pictures", bytes(400_000))
        for path in folder.iterdir():
            if path.stat().st_mtime > time.time() - 5:
                os.utime(path, (0, time.time() - age))
    assert kept.keep(tokens[2], "pictures", bytes(400_000))
    assert [bool(kept.find(token)) for token in tokens] == [False, True, True]
    assert not kept.keep(tokens[0], "pictures", bytes(1_000_001))


@pytest.mark.parametrize(("text", "hours"), [("", kept.USUAL_HOURS), ("0", 0), ("1.5", 1.5)])
def test_the_owner_sets_the_time(text: str, hours: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(kept.VARIABLE, text)
    assert kept.hours() == hours


@pytest.mark.parametrize("text", ["-1", "a day", "inf", "nan"])
def test_a_time_that_is_none_is_explained(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(kept.VARIABLE, text)
    with pytest.raises(kept.KeptError, match="give hours, 0 to keep no reviews"):
        kept.hours()
