"""Layouts of strangers are recognised, counted and grouped; what can be read in two ways is refused with both."""

from __future__ import annotations

import gzip
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.layouts import (
    KINDS,
    Case,
    arrays,
    coco,
    flat,
    lines,
    picture,
    put,
    table,
    tarred,
    voc_xml,
    write,
    zipped,
)
from tests.odd_layouts import CASES
from zoo.data import AmbiguousError, DataError, ReadOptions, layouts, read_dataset, read_files
from zoo.imaging.decode import PictureError

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layout(tmp_path, case: Case):
    data = read_dataset(case.build(tmp_path))
    assert data.layout == case.layout
    assert Counter(item.label for item in data.items if item.label) == case.labels
    assert Counter(item.split for item in data.items if item.split) == case.splits
    assert data.groups == case.groups
    assert data.reason and data.about()[0] == f"Layout: {data.layout}; {data.reason}."
    assert len({item.file for item in data.items}) == len(data)
    for item in data.items:
        assert min(item.source.image().size) > 0
        assert item.source.content()


def test_there_are_many_layouts():
    assert len(CASES) >= 25


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["slide_1/a.png", "slide_2/a.png"], ("slide_1, slide_2", "--layout class", "--layout group")),
        (["patient_3/a.png"], ("patient_3", "--layout class", "--layout group")),
        (["north/red/a.png", "south/blue/a.png"], ("north, south", "--layout class/group", "--layout group/class")),
        (["neutrophil/monocyte/1.png", "lymphocyte/basophil/2.png"], ("--layout class/group", "--layout group/class")),
        (
            ["train/neutrophil/1.png", "train/monocyte/2.png", "test/neutrophil/1.png", "other/3.png"],
            ("test, train", "other", "--layout split/class", "--layout class "),
        ),
    ],
)
def test_ambiguous_folders_are_refused_with_the_readings(tmp_path, names, parts):
    put(tmp_path / "set", names)
    with pytest.raises(AmbiguousError) as error:
        read_dataset(tmp_path / "set")
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize(
    ("names", "options", "labels", "groups"),
    [
        (["slide_1/a.png", "slide_2/a.png"], ReadOptions("class"), {"slide_1", "slide_2"}, 0),
        (["slide_1/a.png", "slide_2/a.png"], ReadOptions("group"), set(), 2),
        (["north/red/a.png", "south/blue/a.png"], ReadOptions("group/class"), {"red", "blue"}, 2),
        (["north/red/a.png", "south/blue/a.png"], ReadOptions("class/-"), {"north", "south"}, 0),
        (["x/one/neutrophil_a/1.png", "x/two/monocyte_b/1.png"], ReadOptions("group/class"), None, 2),
        (["north/red/a.png", "south/blue/a.png"], ReadOptions(group="north"), None, None),
        (
            ["train/neutrophil/1.png", "test/monocyte/1.png", "o/3.png"],
            ReadOptions("split/class"),
            {"neutrophil", "monocyte"},
            0,
        ),
        (["p1_a.png", "p1_b.png", "p2_a.png"], ReadOptions(group_pattern=r"(p\d)_"), set(), 2),
        ([f"{k}/p{n}_{k}.png" for k in KINDS for n in (1, 2)], ReadOptions(group_pattern=r"p\d"), set(KINDS), 2),
        (["hospital 1/red/a.png", "hospital 2/blue/a.png"], ReadOptions(group="hospital"), {"red", "blue"}, 2),
    ],
)
def test_an_option_chooses_the_reading(tmp_path, names, options, labels, groups):
    put(tmp_path / "set", names)
    if groups is None:
        with pytest.raises(DataError):
            read_dataset(tmp_path / "set", options)
        return
    data = read_dataset(tmp_path / "set", options)
    assert data.groups == groups
    assert labels is None or set(data.labels) == labels


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (ReadOptions("nonsense"), "There is no layout nonsense. There are: "),
        (ReadOptions("coco"), "no .json file with images"),
        (ReadOptions("npz"), "cannot be read as npz"),
        (ReadOptions("split/group/class"), "names 3 levels of folders; there are 1"),
        (ReadOptions("table"), "There is no table in"),
        (ReadOptions(group="patient"), "--group patient names no column"),
        (ReadOptions(group_pattern="("), "is no regular expression"),
        (ReadOptions(group_pattern="zzz"), "matches no picture's name"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(tmp_path, options, part):
    with pytest.raises(DataError, match=part.replace("(", r"\(")):
        read_dataset(put(tmp_path / "set", flat()), options)


def test_two_columns_of_labels(tmp_path):
    root = table(tmp_path, lines(",", "file,reader_a,reader_b", "c{n}.png,{kind},monocyte"))
    with pytest.raises(AmbiguousError, match=r"reader_a, reader_b.*--layout table:reader_a; --layout table:reader_b"):
        read_dataset(root)
    assert read_dataset(root, ReadOptions("table:reader_b")).labels == ("monocyte",)
    with pytest.raises(DataError, match="no column reader_c"):
        read_dataset(root, ReadOptions("table:reader_c"))


def test_a_table_that_contradicts_folders(tmp_path):
    root = put(tmp_path / "set", flat())
    write(root / "labels.csv", "file,label\n" + "".join(f"{name},monocyte\n" for name in flat()))
    with pytest.raises(AmbiguousError, match=r"--layout (folders|table).*--layout (folders|table)"):
        read_dataset(root)
    assert read_dataset(root, ReadOptions("table")).labels == ("monocyte",)
    assert len(read_dataset(root, ReadOptions("folders")).labels) == 3


def test_a_table_that_agrees_in_other_words_only_adds_patients(tmp_path):
    root = put(tmp_path / "set", flat())
    write(root / "t.csv", "file,label,patient\n" + "".join(f"{name},{name[:3].upper()},P1\n" for name in flat()))
    data = read_dataset(root)
    assert data.layout == "class folders"
    assert data.groups == 1


def test_several_tables_and_several_archives_of_arrays(tmp_path):
    root = table(tmp_path, lines(",", "file,label", "c{n}.png,{kind}"), "a.csv")
    write(root / "b.csv", lines(",", "file,label", "c{n}.png,{kind}"))
    with pytest.raises(AmbiguousError, match=r"several tables with labels: a\.csv, b\.csv"):
        read_dataset(root)
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((1, 8, 8), np.uint8), labels=np.zeros(1))
    (tmp_path / "arrays").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"{name}.npz").rename(tmp_path / "arrays" / f"{name}.npz")
    with pytest.raises(AmbiguousError, match=r"2 \.npz files: a\.npz, b\.npz"):
        read_dataset(tmp_path / "arrays")


def test_a_refused_table_is_named_with_its_columns(tmp_path):
    root = table(tmp_path, lines(",", "file,area", "c{n}.png,1.{n}"))
    with pytest.raises(DataError, match=r"labels\.csv has the columns file, area; file names pictures, and none"):
        read_dataset(root / "labels.csv")
    write(root / "other.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match=r"other\.csv has the columns a, b; none of them names pictures"):
        read_dataset(root / "other.csv")


def test_yolo_without_names_is_refused(tmp_path):
    put(tmp_path / "set", ["images/a.png"])
    write(tmp_path / "set/labels/a.txt", "2 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match="classes 2, and no file names them"):
        read_dataset(tmp_path / "set")


def test_everything_passed_over_is_counted_by_reason_with_three_names(tmp_path):
    root = put(tmp_path / "set", flat())
    for n in range(5):
        write(root / "notes" / f"{n}.txt", "x")
    write(root / ".DS_Store", "x")
    told = read_dataset(root).about()
    assert any("5 (notes/0.txt, notes/1.txt, notes/2.txt and 2 more)" in line for line in told)
    assert any("hidden, system or checkpoint file: 1 (.DS_Store)" in line for line in told)


def test_rows_and_boxes_passed_over_are_counted(tmp_path):
    root = table(
        tmp_path, lines(",", "file,label", "c{n}.png,{kind}") + "gone.png,monocyte\nc1.png,monocyte\n,monocyte\n"
    )
    data = read_dataset(root)
    assert len(data) == 6
    assert {"row 7", "row 8", "row 9"} <= set(data.problems)
    put(tmp_path / "boxes", ["a.png", "b.png"], (60, 40))
    write(tmp_path / "boxes" / "a.json", coco({1: "a.png", 2: "gone.png"}))
    told = read_dataset(tmp_path / "boxes").problems
    assert len(told) == 4  # a missing picture, its two boxes, and a picture without a box


def test_cells_are_cut_out_with_their_margin(tmp_path):
    put(tmp_path / "set", ["a.png"], (60, 40))
    write(tmp_path / "set" / "a.xml", voc_xml(("neutrophil", 20, 10, 30, 20), ("monocyte", 100, 100, 120, 120)))
    cut, outside = read_dataset(tmp_path / "set").items
    assert cut.source.image().size == (14, 14)
    with pytest.raises(PictureError, match="outside the picture"):
        outside.source.image()


def test_uploaded_files_are_read_as_a_folder_is(tmp_path):
    files = {f"cells/patient_{n}/{kind}/a.png": picture(n) for kind in KINDS for n in (1, 2)}
    data = read_files("cells", {**files, "cells/.DS_Store": b"x"})
    assert (data.layout, data.groups, len(data)) == ("group/class folders", 2, 6)
    assert data.items[0].source.image().size == (12, 10)
    with pytest.raises(DataError, match="leads out of it"):
        read_files("cells", {"../x.png": picture()})
    with pytest.raises(DataError, match="commands"):
        read_files("cells", {"cells/a.parquet": b"x"})


@pytest.mark.parametrize("name", ["x.npz", "set.zip", "set.tgz"])
def test_an_uploaded_archive_is_read_in_memory(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    folder = put(tmp_path / "x", [f"{kind}/{n}.png" for kind in KINDS for n in (1, 2)])
    make = {
        "x.npz": arrays,
        "set.zip": partial(zipped, folder),
        "set.tgz": lambda path: tarred(folder, path, gzip.compress),
    }
    data = read_files("cells", {f"cells/{name}": make[name](tmp_path / name).read_bytes()})
    assert len(data) and all(item.source.image() for item in data.items)
    assert not (tmp_path / "cache").exists()


TABLES = {
    "sep=; of Excel": ("sep=;\nfile;label;patient\n", ";", "utf-8"),
    "title and comment": ("# exported by X\nMy study\nfile,label,patient\n", ",", "utf-8"),
    "no header": ("", ",", "utf-8"),
    "index column": (",file,label,patient\n", ",", "utf-8"),
    "UTF-16 without mark": ("file,label,patient\n", ",", "utf-16-le"),
    "UTF-32": ("file,label,patient\n", ",", "utf-32"),
}
NAMES = {"other suffix": "c{n}.jpg", "URL": "https://host/x/c{n}.png?token=1", "number": "{n}"}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_as_programs_write_them(tmp_path, kind):
    head, mark, encoding = TABLES[kind]
    first = ["{n}"] if kind == "index column" else []
    rows = "".join(
        mark.join([*first, "c{n}.png", "{kind}", "p{who}"]).format(n=n, kind=KINDS[n % 3], who=n // 2) + "\n"
        for n in range(6)
    )
    put(tmp_path / "set", [f"images/c{n}.png" for n in range(6)])
    write(tmp_path / "set" / "labels.csv", head + rows, encoding)
    data = read_dataset(tmp_path / "set")
    assert (len(data), len(data.labels), data.groups) == (6, 3, 0 if kind == "no header" else 3)


@pytest.mark.parametrize("kind", NAMES)
def test_pictures_as_tables_call_them(tmp_path, kind):
    put(tmp_path / "set", [f"images/{n:04}.png" if kind == "number" else f"images/c{n}.png" for n in range(6)])
    rows = "".join(f"{NAMES[kind].format(n=n)},{KINDS[n % 3]}\n" for n in range(6))
    write(tmp_path / "set" / "labels.csv", "file,label\n" + rows)
    assert len(read_dataset(tmp_path / "set").labels) == 3


@pytest.mark.parametrize(
    ("header", "box"),
    [
        ("x,y,width,height", "20,10,10,10"),
        ("x_center,y_center,width,height", "0.4167,0.375,0.16667,0.25"),
        ("xmin,ymin,xmax,ymax", '"20,0","10,0","30,0","20,0"'),
    ],
)
def test_boxes_of_tables(tmp_path, header, box):
    put(tmp_path / "set", ["a.png", "b.png"], (60, 40))
    write(tmp_path / "set" / "labels.csv", f"file,label,{header}\na.png,monocyte,{box}\nb.png,neutrophil,{box}\n")
    sizes = {item.source.image().size for item in read_dataset(tmp_path / "set").items}
    assert sizes == {(14, 14)}


def test_a_table_that_gives_no_labels_says_why(tmp_path):
    put(tmp_path / "set", ["a.png", "b.png"])
    write(tmp_path / "set" / "notes.csv", "file,remark\na.png,blurred\nb.png,sharp\n")
    write(tmp_path / "set" / "old.xls", "x")
    data = read_dataset(tmp_path / "set")
    assert (
        "none was recognised as their label" in data.problems["notes.csv"] and "save it as" in data.problems["old.xls"]
    )


def test_folders_that_nothing_is_made_of_are_told(tmp_path):
    data = read_dataset(put(tmp_path / "set", [f"{who}/{kind}/1.png" for who in ("Anna", "Bert") for kind in KINDS]))
    assert "nothing is made of the folders Anna, Bert" in data.reason and "--layout group/class" in data.reason


def test_every_layout_is_in_the_documentation():
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert not [one.name for one in layouts() if f"`{one.name}`" not in text]
