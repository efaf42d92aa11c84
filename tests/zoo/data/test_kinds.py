"""Names of kinds of cells: synonyms, spellings, and what a person adds."""

from __future__ import annotations

import unicodedata

import pytest

from tests.layouts import put, write
from zoo.data import DataError, read_dataset
from zoo.data.kinds import describe, kind_of, name_labels, read_label_table, rename
from zoo.scores.sample.samples import known_kinds


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        *(
            (name, "neutrophil")
            for name in ("NEU", "Seg", "SNE", "BNE", "Segmented neutrophils", "Neutrófilo", "neutrophil")
        ),
        *(
            (name, "neutrophil")
            for name in ("Neutrophils", "NEUTROPHIL", "Neutrophils segmented", "01_neutrophil", "ＮＥＵ")
        ),
        (unicodedata.normalize("NFD", "Neutrófilos"), "neutrophil"),
        (unicodedata.normalize("NFC", "Érythroblastes"), "erythroblast"),
        ("Eosinophils", "eosinophil"),
        ("Linfócitos", "lymphocyte"),
        ("LYMPHOCYTE cells", "lymphocyte"),
        ("Monozyten", "monocyte"),
        ("bas", "basophil"),
        ("Immature granulocytes (IG)", "ig"),
        ("immature_granulocytes", "ig"),
        ("NRBC", "erythroblast"),
        ("Platelets", "platelet"),
        ("モノ", None),
        ("好中球", "neutrophil"),
        ("slide 3", None),
        ("images", None),
        ("", None),
    ],
)
def test_kind_of(label, kind):
    assert kind_of(label) == kind


def test_every_kind_of_the_samples_is_known():
    assert all(kind_of(kind) == kind for kind in known_kinds())


@pytest.fixture
def data(tmp_path):
    return read_dataset(
        put(tmp_path / "set", ["NEU/1.png", "Segs/1.png", "monocyte/1.png", "monocite/1.png", "xyz/1.png"])
    )


def test_unknown_labels_are_kept_and_listed_with_counts_and_the_nearest_kind(data):
    names = name_labels(data.labels)
    told = describe(names, data)
    assert "Labels: NEU (1), Segs (1) → neutrophil." in told
    assert any("monocite (1 pictures); the nearest kind is monocyte" in line for line in told)
    assert any(line.startswith("Unknown label, kept: xyz (1 pictures). Rename") for line in told)
    assert set(rename(data, names).labels) == {"neutrophil", "monocyte", "monocite", "xyz"}


def test_a_table_of_labels_goes_first(data, tmp_path):
    path = write(tmp_path / "map.toml", '"XYZ" = ""\nmonocite = "monocyte"\nNEU = "band"\n')
    renamed = rename(data, name_labels(data.labels, read_label_table(path)))
    assert {item.file: item.label for item in renamed.items} == {
        "NEU/1.png": "band",
        "Segs/1.png": "neutrophil",
        "monocyte/1.png": "monocyte",
        "monocite/1.png": "monocyte",
    }
    assert renamed.problems["xyz/1.png"] == "its label, xyz, is left out"


def test_a_star_stands_for_all_unknown_labels(data, tmp_path):
    path = write(tmp_path / "map.toml", '[labels]\n"*" = ""\n')
    assert rename(data, name_labels(data.labels, read_label_table(path))).labels == ("monocyte", "neutrophil")


@pytest.mark.parametrize("text", ["a = 1", "no toml", 'labels = "x"', "[labels]\na = []"])
def test_a_wrong_table_of_labels_is_refused(tmp_path, text):
    with pytest.raises(DataError, match=r"map\.toml"):
        read_label_table(write(tmp_path / "map.toml", text))
    with pytest.raises(DataError, match="cannot be read"):
        read_label_table(tmp_path / "gone.toml")
