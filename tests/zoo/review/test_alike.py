"""Known cells most like a new one: found by every kind of entry, computed once, kept on disk."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest

from tests.making import make_entry
from tests.zoo.serving.test_heads import ensemble, make_headed
from zoo.benchmarks import get_benchmark
from zoo.entry import EntryError, read_entry
from zoo.review import alike
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import get_entry


@pytest.fixture
def runtime():
    with Runtime("cpu", "fp32") as running:
        yield running


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    make_entry(tmp_path / "zoo" / "net", "test_resnet", 1)
    make_entry(tmp_path / "zoo" / "other", "cnn60", 2)
    ensemble(tmp_path / "zoo" / "both", ["net", "other"])
    make_headed(tmp_path / "zoo" / "forest", "forest")
    return tmp_path


def test_known_cells_are_as_many_of_each_kind_and_no_cell_is_there_twice():
    cells = alike.known_cells()
    counts = Counter(cell.kind for cell in cells)
    assert set(counts.values()) == {alike.PER_KIND}
    assert len(counts) == len(get_benchmark("pbc-test").labels)
    assert {cell.source for cell in cells} == {"PBC"}
    rows = get_benchmark("pbc-test").rows.set_index("file").loc[[cell.file for cell in cells]]
    assert rows["label"].tolist() == [cell.kind for cell in cells]
    assert not rows["cell"].duplicated().any()


@pytest.mark.parametrize("name", ["net", "other", "both", "forest"])
def test_a_known_cell_is_most_like_itself(place, runtime, name):
    entry = get_entry(name)
    known = alike.known_vectors(runtime, entry).result(60)
    for cell in known.cells[:: alike.PER_KIND]:
        found = alike.most_alike(runtime, entry, cell.image, known, 3)
        assert len(found) == 3
        assert found[0] is cell


def test_vectors_are_computed_once_and_again_where_the_file_is_damaged(place, runtime):
    alike.known_vectors(runtime, get_entry("net")).result(60)
    computed = runtime.status().answered
    (stored,) = (place / "cache" / "alike").iterdir()
    twin = read_entry(shutil.copytree(place / "zoo" / "net", place / "twin"))
    known = alike.known_vectors(runtime, twin).result(60)
    assert runtime.status().answered == computed
    stored.write_bytes(stored.read_bytes()[:100])
    again = read_entry(shutil.copytree(place / "zoo" / "net", place / "again"))
    assert alike.known_vectors(runtime, again).result(60).vectors[0] == pytest.approx(known.vectors[0], abs=1e-4)
    assert runtime.status().answered == 2 * computed
    alike.known_vectors(runtime, get_entry("other")).result(60)
    assert len(list((place / "cache" / "alike").iterdir())) == 2, "another model has another file"


def test_a_model_that_cannot_be_used_is_asked_again_once_it_can(place, runtime):
    weights = place / "zoo" / "net" / "model.safetensors"
    entry, content = get_entry("net"), weights.read_bytes()
    weights.unlink()
    with pytest.raises((EntryError, OSError)):
        alike.known_vectors(runtime, entry).result(60)
    weights.write_bytes(content)
    assert alike.known_vectors(runtime, entry).result(60).cells
