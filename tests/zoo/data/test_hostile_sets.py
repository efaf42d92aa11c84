"""Hostile archives and annotations are refused with a sentence; one bad file does not stop the others."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.layouts import coco, flat, picture, put, table, tarred, voc_xml, write, zipped
from zoo.data import DataError, read_dataset
from zoo.data.export import export_data
from zoo.data.layouts.columns import SAMPLE
from zoo.imaging.decode import PictureError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HEMAZOO_CACHE", str(folder))
    return folder


def zip_of(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def member(name: str, **facts: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in facts.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:\\evil.png", "..\\evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_lead_out_are_refused(tmp_path, cache, name, kind):
    if kind == "zip":
        path = zip_of(tmp_path / "set.zip", ("monocyte/1.png", picture()), (name, picture()))
    else:
        path = tar_of(tmp_path / "set.tar", (member("monocyte/1.png"), picture()), (member(name), picture()))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"leads out of it\. It is refused"):
        read_dataset(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(cache.rglob("*"))


def test_a_zip_bomb_is_refused_by_its_index(tmp_path):
    path = zip_of(tmp_path / "set.zip", ("monocyte/1.bmp", bytes(150_000_000)))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(DataError, match="a bomb"):
        read_dataset(path)


def test_a_zip_with_overlapping_members_is_refused(tmp_path):
    path = zip_of(tmp_path / "set.zip", ("a/1.png", picture(1)), ("b/1.png", picture(2)))
    raw = bytearray(path.read_bytes())
    second = raw.rindex(b"PK\1\2")
    raw[second + 42 : second + 46] = struct.pack("<I", 4)  # where the second member begins
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match="members overlap"):
        read_dataset(path)


def test_a_member_that_lies_about_its_size_is_damaged_and_the_others_are_read(tmp_path):
    path = zip_of(tmp_path / "set.zip", ("monocyte/1.png", picture(1)), ("neutrophil/1.png", picture(2)))
    raw = bytearray(path.read_bytes())
    first = raw.index(b"PK\1\2")
    raw[first + 24 : first + 28] = struct.pack("<I", 20)
    path.write_bytes(bytes(raw))
    bad, good = read_dataset(path).items
    with pytest.raises(PictureError, match="damaged"):
        bad.source.image()
    assert good.source.image().size == (12, 10)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\3\4" + bytes(40)])
def test_what_is_no_archive_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"set{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_dataset(path)


def test_a_tar_bomb_stops_while_it_is_decompressed(tmp_path, cache):
    path = tmp_path / "set.tar.gz"
    with gzip.open(path, "wb", 9) as file:
        for _ in range(110):
            file.write(bytes(1_000_000))
    with pytest.raises(DataError, match="a bomb"):
        read_dataset(path)
    assert not [file for file in cache.rglob("*") if file.is_file()]


def test_links_and_devices_in_a_tar_are_passed_over(tmp_path):
    path = tar_of(
        tmp_path / "set.tar",
        (member("monocyte/1.png"), picture()),
        (member("monocyte/2.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
        (member("monocyte/3.png", type=tarfile.LNKTYPE, linkname="monocyte/1.png"), b""),
        (member("monocyte/4.png", type=tarfile.CHRTYPE), b""),
        (member("monocyte/5.png", type=tarfile.FIFOTYPE), b""),
    )
    data = read_dataset(path)
    assert [item.file for item in data.items] == ["monocyte/1.png"]
    assert len(data.problems) == 4


def test_pipes_in_a_folder_are_passed_over(tmp_path):
    put(tmp_path / "set", flat())
    os.mkfifo(tmp_path / "set" / "monocyte" / "pipe.png")
    data = read_dataset(tmp_path / "set")
    assert len(data) == 6
    assert "no regular file" in data.problems["monocyte/pipe.png"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_odd_names_are_escaped_and_read(tmp_path, kind):
    root = put(tmp_path / "set", ["monocyte/a\nb\t\x1b[31m.png"])
    if kind == "folder":
        Path(os.fsdecode(bytes(root / "monocyte") + b"/\xff.png")).write_bytes(picture())
    data = read_dataset(root if kind == "folder" else zipped(root, tmp_path / "set.zip"))
    names = [item.file for item in data.items]
    assert "monocyte/a\\nb\\t\\x1b[31m.png" in names and all(name.isprintable() for name in names)
    assert all(item.source.image().size == (12, 10) for item in data.items)
    assert len(names) == (2 if kind == "folder" else 1)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("inner.zip", b"PK\3\4", r"inner\.zip is no archive, or a damaged one"),
        ("list.csv", b"file,label\n1.png,monocyte\n", r"It holds tables \(list\.csv\), but not the pictures"),
        ("slide.SVS", b"x", "It holds whole slides or a microscope's own files.*export one region"),
    ],
)
def test_a_folder_without_pictures_says_what_it_holds(tmp_path, name, content, part):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=part):
        read_dataset(tmp_path)


def test_archives_are_opened_once_only(tmp_path):
    inner = zip_of(tmp_path / "inner.zip", ("monocyte/1.png", picture()))
    middle = zip_of(tmp_path / "middle.zip", ("inner.zip", inner.read_bytes()))
    outer = zip_of(tmp_path / "outer.zip", ("middle.zip", middle.read_bytes()))
    assert read_dataset(middle).labels == ("monocyte",)
    with pytest.raises(DataError, match=r"It holds inner\.zip: name the archive itself"):
        read_dataset(outer)


def test_a_second_member_of_one_name_is_counted(tmp_path):
    path = zip_of(tmp_path / "set.zip", ("monocyte/1.png", picture(1)))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("monocyte/1.png", picture(2))
        archive.writestr("Slide 1: left/1.png", picture(3))
    data = read_dataset(path)
    assert len(data) == 2 and "same name" in data.problems["monocyte/1.png (again)"]


def test_arrays_that_are_a_bomb_are_refused(tmp_path):
    path = zip_of(tmp_path / "x.npz", ("images.npy", bytes(120_000_000)), ("labels.npy", b"\x93NUMPY"))
    with pytest.raises(DataError, match="but a bomb"):
        read_dataset(path)


def test_folders_in_folders_are_followed_to_a_depth(tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_SET_LEVELS", "3")
    data = read_dataset(put(tmp_path / "set", ["monocyte/1.png", "neutrophil/1.png", "a/b/c/d/1.png"]))
    assert len(data) == 2 and "below 3 levels" in data.problems["a/b/c"]


@pytest.mark.parametrize("label", ["1" * 5000, "../../x"])
def test_odd_labels_and_sides_are_exported_inside_the_folder(tmp_path, label):
    sides = ["train"] * SAMPLE + ["../../../x"]
    rows = [f"images/c{n}.png,{label if n else 'monocyte'},{side}\n" for n, side in enumerate(sides)]
    put(tmp_path / "set", [f"images/c{n}.png" for n in range(len(sides))])
    write(tmp_path / "set" / "labels.csv", "file,label,split\n" + "".join(rows))
    data = read_dataset(tmp_path / "set")
    out = tmp_path / "a" / "b" / "out"
    export_data(replace(data, items=(data.items[0], *data.items[-3:])), "folders", out, lambda items, *_: items)
    assert len(list(out.rglob("*.png"))) == 4 and not (tmp_path / "x").exists()


def test_voc_numbers_without_bound_are_passed_over(tmp_path):
    put(tmp_path / "set", ["c1.png", "c2.png"], (60, 40))
    write(tmp_path / "set" / "c1.xml", voc_xml(("WBC", 20, 10, 30, 20)))
    write(tmp_path / "set" / "c2.xml", voc_xml(("WBC", 20, 10, 30, 20)).replace("<xmin>20", "<xmin>inf"))
    write(tmp_path / "set" / "labels.csv", f"Image,Category\n{'1' * 5000},NEUTROPHIL\n1,LYMPHOCYTE\n2,LYMPHOCYTE\n")
    data = read_dataset(tmp_path / "set")
    assert data.labels == ("LYMPHOCYTE",) and "cannot be read" in data.problems["c2.png"]


@pytest.mark.parametrize("key", ["images", "categories"])
def test_coco_ids_given_twice_are_refused(tmp_path, key):
    content = json.loads(coco({1: "a.png", 2: "b.png"}))
    content[key][1]["id"] = 1
    put(tmp_path / "set", ["a.png", "b.png"], (60, 40))
    write(tmp_path / "set" / "all.json", json.dumps(content))
    with pytest.raises(DataError, match=f"gives the id 1 to several of its {key}"):
        read_dataset(tmp_path / "set")


def test_encrypted_members_are_passed_over(tmp_path):
    path = zip_of(tmp_path / "set.zip", ("monocyte/1.png", picture(1)), ("neutrophil/1.png", picture(2)))
    raw = bytearray(path.read_bytes())
    first = raw.index(b"PK\1\2")
    raw[first + 8] |= 1
    path.write_bytes(bytes(raw))
    data = read_dataset(path)
    assert data.labels == ("neutrophil",)
    assert "password" in data.problems["monocyte/1.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_with_entities_is_refused_and_the_other_frames_are_read(tmp_path, encoding):
    put(tmp_path / "set", ["a.png", "b.png"], (60, 40))
    write(tmp_path / "set" / "a.xml", voc_xml(("monocyte", 5, 5, 15, 15)))
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol"}">' for n in range(12))
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE annotation [{entities}]><annotation>&l11;</annotation>'
    )
    write(tmp_path / "set" / "b.xml", text, encoding)
    data = read_dataset(tmp_path / "set")
    assert data.labels == ("monocyte",)
    assert "document type" in data.problems["b.png"]


def test_yaml_with_anchors_or_tags_is_refused(tmp_path):
    put(tmp_path / "set", ["images/a.png"])
    write(tmp_path / "set/labels/a.txt", "0 0.5 0.5 0.2 0.2\n")
    for text, part in (
        ("a: &a [x, x]\nnames: [*a, *a]\n", "anchors"),
        ("names: !!python/object/apply:os.system ['true']\n", "no YAML"),
        ("names: [" + "[" * 5000, "no YAML"),
    ):
        write(tmp_path / "set/data.yaml", text)
        with pytest.raises(DataError, match=part):
            read_dataset(tmp_path / "set")


def test_json_that_is_no_coco_is_no_coco(tmp_path):
    put(tmp_path / "set", flat())
    keys = '"images" "annotations" "categories"'
    write(tmp_path / "set" / "deep.json", "[" * 100_000 + keys)
    write(tmp_path / "set" / "other.json", json.dumps({"images": 1, "annotations": 2, "categories": 3}))
    assert read_dataset(tmp_path / "set").layout == "class folders"
    write(tmp_path / "set" / "wrong.json", json.dumps({"images": [{}], "annotations": [], "categories": []}))
    with pytest.raises(DataError, match=r"wrong\.json is no COCO file"):
        read_dataset(tmp_path / "set")


def test_a_workbook_with_entities_or_that_is_a_bomb_is_refused(tmp_path):
    root = table(tmp_path, "x,y\n1,2\n")
    sheet = "xl/worksheets/sheet1.xml"
    zip_of(root / "evil.xlsx", (sheet, b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'))
    with pytest.raises(DataError, match="declares entities"):
        read_dataset(root / "evil.xlsx")
    zip_of(root / "bomb.xlsx", (sheet, bytes(150_000_000)))
    with pytest.raises(DataError, match="a bomb"):
        read_dataset(root / "bomb.xlsx")
    (root / "none.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match="no Excel workbook"):
        read_dataset(root / "none.xlsx")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_archives_are_read_or_refused(tmp_path, data):
    kind = data.draw(st.sampled_from(["set.zip", "set.tar", "set.tar.gz"]))
    source = tmp_path / "source"
    if not source.exists():
        put(source, flat()[:3])
    path = tmp_path / kind
    if kind == "set.zip":
        zipped(source, path)
    else:
        tarred(source, path, gzip.compress if kind.endswith("gz") else bytes)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw[: data.draw(st.integers(len(raw) // 2, len(raw)))]))
    try:
        for item in read_dataset(path).items:
            item.source.image()
    except (DataError, PictureError) as error:
        assert str(error)
