"""Entries are read completely, or listed as broken with the reason; a broken one never stops the zoo."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tests.making import LABELS, make_entry, make_predictions
from zoo.entry import (
    Entry,
    EntryError,
    Evaluation,
    read_card,
    read_entry,
    read_header,
    read_history,
    read_predictions,
    summary,
    write_predictions,
)
from zoo.scores import metrics
from zoo.sources.catalogue import FolderSource, get_entry, list_entries, sources


@pytest.fixture
def good(tiny_zoo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_zoo / "tiny-cnn60", tmp_path / "zoo" / "mine"))


def test_reads_a_complete_entry(good):
    entry = read_entry(good)
    assert entry.usable
    assert entry.labels == LABELS
    assert entry.weights.parameters == 306_948
    assert read_card(entry).startswith("# Tiny cnn60")
    assert list(read_history(entry)["epoch"]) == [1, 2, 3]
    assert set(read_predictions(entry, "drawn-test")["label"]) == set(LABELS)


def test_an_entry_without_weights_can_be_compared_but_not_run(good):
    (good / "model.safetensors").unlink()
    entry = read_entry(good)
    assert isinstance(entry, Entry)
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


def test_lists_an_entry_with_a_taken_id_as_broken(good, tmp_path):
    make_entry(tmp_path / "other" / "mine", "cnn60")
    listed = list_entries([FolderSource(good.parent, "one"), FolderSource(tmp_path / "other", "two")])
    assert [isinstance(entry, Entry) for entry in listed] == [True, False]
    assert "already called mine" in listed[1].reason


def test_ignores_half_written_folders(good):
    (good.parent / ".mine.abc.partial").mkdir()
    assert [entry.id for entry in list_entries([FolderSource(good.parent, "test")])] == ["mine"]


def test_stored_predictions_give_the_same_scores(good):
    table = make_predictions(5)
    write_predictions(good, "drawn-test", table, LABELS)
    found = read_predictions(read_entry(good), "drawn-test")
    assert (found[LABELS].to_numpy() == table[LABELS].to_numpy()).all()
    assert metrics.evaluate(found, LABELS) == metrics.evaluate(table, LABELS)


@pytest.mark.parametrize("damage", ["missing", "text", "column", "label"])
def test_broken_predictions_raise_the_reason(good, damage):
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


def test_counts_parameters_by_the_header(good):
    found = read_header(good / "model.safetensors")
    assert found.bytes == (good / "model.safetensors").stat().st_size
    assert np.isclose(found.bytes, 4 * found.parameters, rtol=0.05)


def test_map_quality_is_read_by_benchmark():
    """Files that name any benchmarks, with null where nothing was measured, load and are written as they were."""
    share = {"value": 0.9, "low": 0.8, "high": 1.0}
    inside = {"pointing": share, "energy": share, "chance": 0.2, "images": 9}
    maps = {"bccd-frames": inside, "dataset2-test": None, "drawn-test": inside, "later": 3, "sanity": {"100 %": 0.1}}
    found = Evaluation.model_validate({"explanations": {"grad-cam": maps}})
    assert list(found.explanations["grad-cam"].localisation) == ["drawn-test", "bccd-frames"]
    written = found.as_written()["explanations"]["grad-cam"]
    assert {name: written[name] for name in maps} == maps
    with pytest.raises(ValidationError):
        Evaluation.model_validate({"explanations": {"grad-cam": {"drawn-test": {**inside, "chance": 2}}}})
