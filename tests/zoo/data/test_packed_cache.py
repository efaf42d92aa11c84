"""Decoded pictures in the cache folder: bounded, and made by one process only."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from tests.making import draw_folder
from zoo.data import pack, read_dataset
from zoo.files import only_writer


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    return read_dataset(draw_folder(tmp_path / "cells", 2))


def kept(tmp_path):
    return {path.name for path in (tmp_path / "cache" / "packed").iterdir()}


def test_what_was_used_longest_ago_is_removed(data, tmp_path, monkeypatch):
    """8 pictures of 130×130 take 0.41 MB: two sizes fit into 1 MB, three do not."""
    pack(data, (130, 130))
    first = kept(tmp_path)
    pack(data, (130, 129))
    second = kept(tmp_path) - first
    for age, names in ((500, first), (900, second)):
        for name in names:
            os.utime(tmp_path / "cache" / "packed" / name, (tmp_path.stat().st_mtime - age,) * 2)
    monkeypatch.setenv("HEMAZOO_PACKED_MB", "1")
    pack(data, (130, 128))
    assert first < kept(tmp_path) and not second & kept(tmp_path)
    pack(data, (300, 300))  # larger than the limit alone: it stays, as it is in use
    assert len(kept(tmp_path)) == 1


def test_a_process_waits_for_the_one_that_decodes(data, tmp_path):
    """Whoever holds the lock finishes first; its pictures are then taken from the cache."""
    pictures = np.array(pack(data, (32, 32)).pictures)
    (name,) = kept(tmp_path)
    folder = tmp_path / "cache" / "packed" / name
    aside = tmp_path / "aside"
    folder.rename(aside)
    found = []
    with only_writer(folder):
        waiting = threading.Thread(target=lambda: found.append(pack(data, (32, 32))))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive() and not folder.exists()
        aside.rename(folder)
        made = (folder / "pictures.npy").stat().st_ino
    waiting.join(30)
    assert np.array_equal(found[0].pictures, pictures)
    assert (folder / "pictures.npy").stat().st_ino == made, "it was not decoded again"
