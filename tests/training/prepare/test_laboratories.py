"""Laboratories are mixed as their data sets' TOML files say: kinds, groups and test sides."""

from __future__ import annotations

import pytest

from tests.making import draw_folder, register_benchmark, register_dataset
from training.prepare.dataset import TrainingDataError
from training.prepare.laboratories import laboratories, read_mixed, read_pictures
from zoo.data import DataError
from zoo.data.registry import get_dataset


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_REGISTRY", str(tmp_path / "registry"))
    return tmp_path / "registry"


def cells_by_file(root, name: str) -> dict[str, str | None]:
    return {item.file: item.cell for item in read_pictures(get_dataset(name), root)}


def test_groups_come_from_a_column(tmp_path, registry):
    register_dataset(registry, "north", more='[cells]\nby = "column"\ntable = "cells.csv"\ncolumn = "slide"\n')
    draw_folder(tmp_path / "north", 2)
    (tmp_path / "north" / "cells.csv").write_text("file,slide\nmonocyte/000.png,A\nneutrophil/001.png,B\n")
    # a picture that the table does not name has no known group and is left out
    assert cells_by_file(tmp_path, "north") == {
        "north/monocyte/000.png": "north/A",
        "north/neutrophil/001.png": "north/B",
    }
    (tmp_path / "north" / "cells.csv").write_text("file\nmonocyte/000.png\n")
    with pytest.raises(DataError, match="columns file and slide"):
        cells_by_file(tmp_path, "north")


@pytest.mark.parametrize(
    ("grouping", "cell"),
    [
        ('by = "picture"', "north/monocyte/001.png"),
        ('by = "folder"', "north/monocyte"),
        ('by = "file"\npattern = "^0(..)"\nprefix = "slide-"', "north/slide-01"),
    ],
)
def test_groups_come_from_pictures_folders_or_file_names(tmp_path, registry, grouping, cell):
    register_dataset(registry, "north", more=f"[cells]\n{grouping}\n")
    draw_folder(tmp_path / "north", 2)
    assert cells_by_file(tmp_path, "north")["north/monocyte/001.png"] == cell


def test_training_pictures_of_tested_groups_are_left_out(tmp_path, registry):
    register_dataset(registry, "north", more='[cells]\nby = "file"\npattern = "(.)[.]png"\n')
    draw_folder(tmp_path / "north" / "TRAIN", 3)
    draw_folder(tmp_path / "north" / "TEST", 1)
    sides = {item.file: item.split for item in read_pictures(get_dataset("north"), tmp_path)}
    assert sides["north/TEST/monocyte/000.png"] == "test"
    assert "north/TRAIN/monocyte/000.png" not in sides
    assert sides["north/TRAIN/monocyte/001.png"] == "train"


def test_a_benchmark_may_be_the_test_side(tmp_path, registry):
    register_dataset(registry, "north", more='[labels]\nmonocyte = ""\n[cells]\ntest_benchmark = "north-test"\n')
    register_benchmark(registry, "north-test", "north", "file,cell,label\nneutrophil/001.png,a,neutrophil\n")
    draw_folder(tmp_path / "north", 2)
    items = list(read_pictures(get_dataset("north"), tmp_path))
    assert [item.file for item in items if item.split == "test"] == ["north/neutrophil/001.png"]
    assert {item.label for item in items} == {"eosinophil", "lymphocyte", "neutrophil"}  # monocytes are left out


def test_at_most_some_pictures_of_a_cell_are_drawn(tmp_path, registry):
    for name in ("north", "south"):
        register_dataset(registry, name, laboratory="hills", more='[cells]\nby = "folder"\n')
        draw_folder(tmp_path / name, 3)
    mix = read_mixed(tmp_path, {"north": 1, "south": 2}, 0)
    assert laboratories(["north", "south"]) == ["hills"]
    assert len(mix) == 4 + 8
    assert {item.cell for item in mix.items} == {f"hills/{label}" for label in mix.labels}


def test_only_readable_training_sets_are_mixed(tmp_path, registry):
    register_dataset(registry, "north", more='reader = "none"\n')
    for name in ("lisc", "txl", "north", "nowhere"):
        with pytest.raises(TrainingDataError, match=f"no laboratory '{name}' to mix"):
            read_mixed(tmp_path, {name: 1}, 0)
    with pytest.raises(TrainingDataError, match="Name the folder that holds pbc with --data"):
        read_mixed(tmp_path, {"pbc": 1}, 0)
