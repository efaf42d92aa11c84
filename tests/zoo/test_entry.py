"""An entry is read whole, or listed as broken with the reason; it never takes the zoo down."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.making import LABELS, make_entry, make_predictions
from zoo import metrics
from zoo.catalogue import FolderSource, get_entry, list_entries, sources
from zoo.entry import (
    EntryError,
    read_card,
    read_entry,
    read_header,
    read_history,
    read_predictions,
    summary,
    write_predictions,
)


@pytest.fixture
def good(tiny_zoo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_zoo / "tiny-cnn60", tmp_path / "zoo" / "mine"))


def change_config(folder: Path, change) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_a_good_entry(good):
    entry = read_entry(good)
    assert entry.usable
    assert entry.labels == LABELS
    assert entry.weights.parameters == 306_948
    assert read_card(entry).startswith("# Tiny cnn60")
    assert list(read_history(entry)["epoch"]) == [1, 2, 3]
    assert set(read_predictions(entry, "drawn-test")["label"]) == set(LABELS)


def header(folder: Path, change) -> None:
    """Rewrite the safetensors header, leaving its data as it is."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    parsed = json.loads(data[8 : 8 + length])
    text = json.dumps(change(parsed) or parsed).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def set_in(*path, value):
    def change(config):
        place = config
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value

    return change


BREAKS = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "empty config": (lambda f: (f / "config.json").write_text(""), "not valid JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "config.json"),
    "deep config": (lambda f: (f / "config.json").write_text("[" * 100_000), "not valid JSON"),
    "binary config": (lambda f: (f / "config.json").write_bytes(bytes(range(256))), "not valid JSON"),
    "labels missing": (lambda f: change_config(f, lambda c: c.pop("label_names")), "label_names"),
    "too few labels": (lambda f: change_config(f, lambda c: c["label_names"].pop()), "3 label_names"),
    "labels twice": (
        lambda f: change_config(f, set_in("label_names", value=["a", "a", "b", "c"])),
        "not all different",
    ),
    "script label": (lambda f: change_config(f, set_in("label_names", 0, value="<script>")), "label_names"),
    "std zero": (lambda f: change_config(f, set_in("pretrained_cfg", "std", value=[0, 1, 1])), "std"),
    "huge input": (
        lambda f: change_config(f, set_in("pretrained_cfg", "input_size", value=[3, 9e9, 9e9])),
        "input_size",
    ),
    **{
        f"model_args {name}": (lambda f, given=given: change_config(f, set_in("model_args", value=given)), "model_args")
        for name, given in {
            "name a file": {"checkpoint_path": "/etc/passwd"},
            "name a file in a word": {"backbone": "../../weights"},
            "ask the Hub": {"pretrained": True},
            "ask another repository": {"backbone": "hf-hub:somebody/model"},
            "change what is loaded": {"pretrained_cfg_overlay": {"url": "http://somewhere"}},
            "go behind the name": {"__class__": "x"},
            "build without end": {"depth": 10**9},
            "are too many": {"depths": [1] * 10_000},
            "are too deep": {"depths": [[[[[[1]]]]]]},
            "are no numbers": {"drop_rate": float("nan")},
        }.items()
    },
    "no zoo part": (lambda f: change_config(f, lambda c: c.pop("zoo")), "zoo"),
    "future schema": (lambda f: change_config(f, set_in("zoo", "schema_version", value=99)), "schema_version"),
    "weights empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "not a safetensors"),
    "weights a pickle": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04\x95" + bytes(90)),
        "not a safetensors",
    ),
    "weights cut": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-1000]),
        "cut short",
    ),
    "weights too long": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes() + b"more"),
        "too long",
    ),
    "header lies": (lambda f: header(f, lambda h: h["classifier.bias"].update(shape=[10**6])), "claims a size"),
    "header without type": (lambda f: header(f, lambda h: h["classifier.bias"].pop("dtype") and None), "not described"),
    "header no mapping": (lambda f: header(f, lambda h: [1]), "damaged"),
    "evaluation broken": (lambda f: (f / "evaluation.json").write_text('{"benchmarks": 3}'), "evaluation.json"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_entry_says_why(good, name):
    damage, said = BREAKS[name]
    damage(good)
    entry = read_entry(good)
    assert not entry.ok
    assert said in entry.reason
    assert summary(entry)["status"] == "broken"
    listed = list_entries([FolderSource(good.parent, "test")])
    assert [e.id for e in listed] == ["mine"]
    with pytest.raises(EntryError, match="mine cannot be used"):
        get_entry("mine", listed)


def test_without_weights_it_can_be_compared_but_not_run(good):
    (good / "model.safetensors").unlink()
    entry = read_entry(good)
    assert entry.ok
    assert not entry.usable
    assert summary(entry)["weights"] is False
    assert len(read_predictions(entry, "drawn-test"))
    with pytest.raises(EntryError, match="published elsewhere"):
        get_entry("mine", [entry])


def test_sources_follow_the_environment(tmp_path, good):
    other = make_entry(tmp_path / "single", "cnn60")
    found = sources({"HEMAZOO_ZOO": f"{good.parent}:{other}:{tmp_path / 'nowhere'}"})
    assert [source.name for source in found] == ["builtin", str(good.parent), str(other), str(tmp_path / "nowhere")]
    listed = {entry.id: entry for entry in list_entries(found[1:])}
    assert listed["mine"].usable
    assert listed["single"].usable
    assert "cannot be listed" in listed["nowhere"].reason


def test_an_id_met_again_is_not_hidden(good, tmp_path):
    make_entry(tmp_path / "other" / "mine", "cnn60")
    listed = list_entries([FolderSource(good.parent, "one"), FolderSource(tmp_path / "other", "two")])
    assert [entry.ok for entry in listed] == [True, False]
    assert "already called mine" in listed[1].reason


def test_half_written_folders_are_no_entries(good):
    (good.parent / ".mine.abc.partial").mkdir()
    assert [entry.id for entry in list_entries([FolderSource(good.parent, "test")])] == ["mine"]


def test_predictions_come_back_as_they_were_scored(good):
    table = make_predictions(5)
    write_predictions(good / "predictions" / "drawn-test.parquet", table, LABELS)
    found = read_predictions(read_entry(good), "drawn-test")
    assert (found[LABELS].to_numpy() == table[LABELS].to_numpy()).all()
    assert metrics.evaluate(found, LABELS) == metrics.evaluate(table, LABELS)


@pytest.mark.parametrize("damage", ["missing", "text", "column", "label"])
def test_broken_predictions_say_why(good, damage):
    path = good / "predictions" / "drawn-test.parquet"
    table = make_predictions(0)
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("not parquet")
    elif damage == "column":
        table.drop(columns="cell").to_parquet(path)
    else:
        table.rename(columns={label: f"p:{label}" for label in LABELS}).replace("monocyte", "unicorn").to_parquet(path)
    with pytest.raises(EntryError, match=r"keeps no|not a readable|has no column|has labels"):
        read_predictions(read_entry(good), "drawn-test")


def test_headers_are_counted_without_loading(good):
    found = read_header(good / "model.safetensors")
    assert found.bytes == (good / "model.safetensors").stat().st_size
    assert np.isclose(found.bytes, 4 * found.parameters, rtol=0.05)
