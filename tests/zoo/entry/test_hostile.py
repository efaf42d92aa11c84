"""Malicious or damaged entries and pictures give an error message: in Python, from the Hub, and in the app."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests import hostile
from tests.making import draw_cell
from tests.pages.test_pages import go, picker
from zoo.cli import main
from zoo.entry import (
    BrokenEntry,
    EntryError,
    read_card,
    read_entry,
    read_history,
    read_predictions,
    readable_entries,
    summary,
)
from zoo.imaging.decode import PictureError, decode
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import FolderSource, get_entry, list_entries
from zoo.sources.hub import HubSource

ROOT = Path(__file__).parents[3]
PICTURES = dict(hostile.pictures())


@pytest.fixture(scope="module")
def good(tiny_zoo: Path) -> Path:
    return tiny_zoo / "tiny-cnn60"


@pytest.fixture(scope="module")
def runtime():
    with Runtime("cpu", "fp32") as made:
        yield made


def test_there_are_enough_hostile_examples():
    assert len(hostile.BROKEN) + len(hostile.UNUSABLE) + len(hostile.HARMLESS) >= 60
    assert len(PICTURES) >= 150


@pytest.mark.parametrize("name", hostile.BROKEN)
def test_a_broken_entry_has_a_reason(good, tmp_path, name):
    damage, said = hostile.BROKEN[name]
    folder = hostile.damaged(good, tmp_path / "zoo" / "mine", damage)
    entry = read_entry(folder)
    assert isinstance(entry, BrokenEntry)
    assert re.search(said, entry.reason), entry.reason
    assert entry.reason.endswith(".")
    assert len(entry.reason) < 600
    assert summary(entry)["status"] == "broken"
    listed = list_entries([FolderSource(folder.parent, "test")])
    assert [e.id for e in listed] == ["mine"]
    with pytest.raises(EntryError, match="mine cannot be used"):
        get_entry("mine", listed)


@pytest.mark.parametrize("name", hostile.UNUSABLE)
def test_using_an_unusable_entry_raises_the_reason(good, tmp_path, runtime, name):
    damage, said = hostile.UNUSABLE[name]
    folder = hostile.damaged(good, tmp_path / "zoo" / "mine", damage)
    with pytest.raises(EntryError, match=said):
        runtime.classify(get_entry("mine", list_entries([FolderSource(folder.parent, "test")])), draw_cell("monocyte"))
    assert runtime.classify(read_entry(good), draw_cell("monocyte")).label, "and others go on"


@pytest.mark.parametrize("name", hostile.HARMLESS)
def test_foreign_files_beside_a_model_have_no_effect(good, tmp_path, runtime, name):
    folder = hostile.damaged(good, tmp_path / "zoo" / "mine", hostile.HARMLESS[name])
    entry, before = read_entry(folder), set(sys.modules)
    picture = draw_cell("monocyte", 4)
    assert runtime.classify(entry, picture).probabilities == runtime.classify(read_entry(good), picture).probabilities
    assert isinstance(read_card(entry), str)
    read_history(entry)
    if name.startswith("predictions"):
        with pytest.raises(EntryError):
            read_predictions(entry, "drawn-test")
    assert not {name for name in set(sys.modules) - before if "modeling" in name}


def test_a_missing_explanation_layer_raises_when_used(good, tmp_path, runtime):
    damage = hostile.HARMLESS["layer that is not there"]
    entry = read_entry(hostile.damaged(good, tmp_path / "mine", damage))
    with pytest.raises(ValueError, match="layer"):
        runtime.explain(entry, draw_cell("monocyte"))


@pytest.fixture(scope="module")
def corpus(good, tmp_path_factory) -> Path:
    """All entries of the corpora in one folder."""
    folder = tmp_path_factory.mktemp("corpus")
    damages = [damage for damage, _ in (*hostile.BROKEN.values(), *hostile.UNUSABLE.values())]
    for number, damage in enumerate([*damages, *hostile.HARMLESS.values()]):
        hostile.damaged(good, folder / f"e{number:03}", damage)
    shutil.copytree(good, folder / "good")
    return folder


def test_hostile_entries_from_the_hub_are_handled_alike(hub, corpus, monkeypatch):
    card = b"---\nlibrary_name: timm\ntags:\n- hemazoo\n---\n# x\n"
    for folder in sorted(corpus.iterdir()):
        files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and not p.is_symlink()}
        hub.put(
            f"alice/{folder.name}", {**files, "README.md": card, "../../escape.json": b"{}", "a/../config.json": b""}
        )
    found = {entry.id: entry for entry in HubSource("alice").entries()}
    assert len(found) == len(list(corpus.iterdir()))
    assert found["alice--good"].usable
    local = {entry.id: entry for entry in FolderSource(corpus, "test").entries()}
    for name, entry in local.items():
        if (
            isinstance(entry, BrokenEntry)
            and "weights" not in entry.reason
            and "safetensors" not in entry.reason
            and "link" not in entry.reason
        ):
            there = found[f"alice--{name}"]
            assert isinstance(there, BrokenEntry), (name, entry.reason)
            assert there.reason.endswith(".")
    with Runtime("cpu", "fp32") as runtime:
        right = runtime.classify(local["good"], draw_cell("monocyte")).probabilities
        for entry in readable_entries(found.values()):
            try:
                assert set(runtime.classify(entry, draw_cell("monocyte")).probabilities) == set(right)
            except EntryError as error:
                assert str(error).endswith((".", ")"))


def test_the_app_lists_hostile_entries(corpus, monkeypatch):
    monkeypatch.setenv("HEMAZOO_ZOO", str(corpus))
    st.cache_resource.clear()
    st.cache_data.clear()
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    go(app, "models")
    assert not app.exception
    table = app.dataframe[-1].value
    assert len(table) >= len(hostile.BROKEN)
    ids = [name for name in app.dataframe[0].value["id"] if name in {path.name for path in corpus.iterdir()}]
    assert len(ids) >= len(hostile.UNUSABLE) + len(hostile.HARMLESS)
    for title in ids:
        picker(app).set_value(title).run()
        assert not app.exception, title
        shown = " ".join(str(part.value) for part in app.markdown)
        assert "evil" not in shown or "![" not in shown, title


@pytest.mark.parametrize("name", PICTURES)
def test_a_hostile_picture_is_read_or_refused(name):
    try:
        found = decode(PICTURES[name])
    except PictureError as error:
        assert str(error).endswith(".")
    else:
        assert found.mode == "RGB"
        assert np.asarray(found).size <= 150_000_000


def test_the_command_line_names_each_failed_picture(tiny_zoo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_ZOO", str(tiny_zoo))
    for number, data in enumerate(PICTURES.values()):
        (tmp_path / f"{number:03}.png").write_bytes(data)
    draw_cell("monocyte").save(tmp_path / "good.png")
    assert main(["classify", str(tmp_path), "--model", "tiny-cnn60", "--json"]) == 1
    out, err = capsys.readouterr()
    records = {Path(one["file"]).name: one for one in map(json.loads, out.splitlines())}
    assert records["good.png"]["label"]
    for number, (name, data) in enumerate(PICTURES.items()):
        one = records[f"{number:03}.png"]
        assert ("error" in one) != _reads(data), name
    assert f"{sum('error' in one for one in records.values())} of {len(records)} files" in err


def _reads(data: bytes) -> bool:
    try:
        decode(data)
    except PictureError:
        return False
    return True
