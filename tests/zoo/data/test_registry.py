"""Data sets are what their TOML files say, and a wrong file is refused with a sentence."""

from __future__ import annotations

import pytest

from tests.making import register_dataset
from zoo.data import DataError
from zoo.data.registry import (
    BUILTIN,
    augmented_sets,
    datasets,
    definition_files,
    get_dataset,
    joins_of,
    laboratory_of,
)


def test_every_shipped_data_set_is_whole():
    known = datasets()
    assert set(known) == {path.stem for path in BUILTIN.glob("*.toml")}
    for name, one in known.items():
        assert one.name == name and one.citation in one.credit
        assert set(one.shares_pictures_with) | {one.augmented_from} <= {*known, ""}
        assert set(one.scored) | set(one.joins.values()) <= {*EIGHT}
    assert {one.laboratory for one in known.values() if one.role == "validation"} == {"lisc", "tecom", "jhu"}


EIGHT = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")


def test_labels_become_kinds():
    assert get_dataset("dataset2").kind("NEUTROPHIL") == "neutrophil"
    assert get_dataset("chula").kind("red") == ""
    assert get_dataset("pbc").kind("ig") == "ig"
    assert joins_of(datasets()) == {}  # no definition here counts one kind as another


def test_one_laboratory_may_have_several_data_sets():
    assert laboratory_of("bccd") == laboratory_of("dataset2")
    assert [(copied.name, original.name) for copied, original in augmented_sets()] == [("dataset2", "bccd")]
    assert laboratory_of("my-cells") == "my-cells"


def test_only_named_thumbnails_may_be_published():
    assert get_dataset("txl").may_be_published("images/val/bccd_1.jpg")
    assert not get_dataset("txl").may_be_published("images/val/raabin_1.jpg")
    assert not get_dataset("lisc").may_be_published("basophil/lisc_1.png")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("colour = 3\n", "north.toml is not a data set: there is no key colour."),
        ('reader = "floppy"\n', "there is no reader floppy"),
        ('[cells]\nby = "column"\n', 'by = "column" needs table'),
        ('[cells]\nby = "file"\npattern = "p"\n', "no group in brackets"),
        ("role = 3\n", "north.toml is not a data set: Cannot overwrite a value"),
        ('name = "south"\n', "Call the file south.toml"),
        ('frames = "../x"\n', "leads out of the data root"),
    ],
)
def test_a_wrong_file_is_refused_with_a_sentence(tmp_path, monkeypatch, more, sentence):
    register_dataset(tmp_path, "north", more=more)
    monkeypatch.setenv("HEMAZOO_REGISTRY", str(tmp_path))
    with pytest.raises(DataError) as refusal:
        datasets()
    assert sentence in str(refusal.value)


def test_unknown_data_sets_are_named():
    with pytest.raises(DataError, match=r"no data set called pcb\. There are: .*pbc"):
        get_dataset("pcb")


def test_a_registry_folder_adds_to_the_shipped_files(tmp_path, monkeypatch):
    register_dataset(tmp_path, "north")
    monkeypatch.setenv("HEMAZOO_REGISTRY", str(tmp_path))
    assert "north" in datasets() and "pbc" in datasets()
    register_dataset(tmp_path, "pbc")
    with pytest.raises(DataError, match="have one name"):
        definition_files(BUILTIN, "data")
