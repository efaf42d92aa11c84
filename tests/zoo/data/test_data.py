"""Any layout becomes one table; whatever is wrong with a data set is said in a sentence."""

from __future__ import annotations

import io
import json
import os
import re
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.making import LABELS, draw_cell, draw_folder
from zoo.data import DataError, layouts, pack, read_dataset
from zoo.data.table import split_name
from zoo.files import atomic_folder
from zoo.imaging.decode import PictureError

ONCE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def cells(count: int, size: tuple[int, int] = (32, 24)) -> np.ndarray:
    return np.stack([np.asarray(draw_cell(LABELS[n % 4], n, size)) for n in range(count)])


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_flat_class_folders(tmp_path):
    data = read_dataset(draw_folder(tmp_path / "set", 2))
    assert data.layout == "class folders"
    assert list(data.table.columns) == ["file", "label", "cell", "split", "origin"]
    assert [item.file for item in data.items][:2] == ["eosinophil/000.png", "eosinophil/001.png"]
    assert data.labels == tuple(LABELS)
    assert data.table["split"].isna().all()
    first = np.asarray(data.items[0].source.image())
    assert (first == np.asarray(draw_cell("eosinophil", 0))).all()


@pytest.mark.parametrize("wrapped", [False, True])
def test_parts_above_class_folders(tmp_path, wrapped):
    root = tmp_path / "set" / ("images/deep" if wrapped else "")
    for part in ("TRAIN", "TEST", "Validation", "TEST_SIMPLE"):
        draw_folder(root / part, 1)
    data = read_dataset(tmp_path / "set")
    assert set(data.table["split"]) == {"train", "test", "val", "test_simple"}
    assert set(data.table["origin"]) == {"TRAIN", "TEST", "Validation", "TEST_SIMPLE"}
    assert data.items[0].file.startswith("TEST/eosinophil/")


def test_pictures_outside_class_folders_have_no_label_and_other_files_are_ignored(tmp_path):
    draw_cell("monocyte").save(tmp_path / "one.png")
    (tmp_path / ".hidden.png").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    data = read_dataset(tmp_path)
    assert [(item.file, item.label) for item in data.items] == [("one.png", None)]


@pytest.mark.parametrize("dtype", ["uint8", "float32 of 1", "float64 of 255", "uint16"])
def test_npz_of_any_type_gives_the_same_pictures(tmp_path, dtype):
    whole = cells(8)
    stored = {
        "uint8": whole,
        "float32 of 1": (whole / 255).astype(np.float32),
        "float64 of 255": whole.astype(np.float64),
        "uint16": whole.astype(np.uint16),
    }[dtype]
    data = read_dataset(save(tmp_path / "a.npz", images=stored, labels=np.arange(8) % 4))
    assert data.labels == ("0", "1", "2", "3")
    got = np.stack([np.asarray(item.source.image()) for item in data.items])
    assert np.abs(got.astype(int) - whole).max() <= 1


def test_npz_label_names_one_hot_and_missing_labels(tmp_path):
    save(tmp_path / "a.npz", images=cells(4), labels=np.eye(4)[[0, 1, 2, 3]], label_names=np.array(LABELS))
    assert [item.label for item in read_dataset(tmp_path / "a.npz").items] == LABELS
    save(tmp_path / "b.npz", images=cells(3), labels=np.array([0, np.nan, 1]))
    assert [item.label for item in read_dataset(tmp_path / "b.npz").items] == ["0", None, "1"]


def test_medmnist_archives_have_splits_and_names(tmp_path):
    arrays = {}
    for part in ("train", "val", "test"):
        arrays |= {f"{part}_images": cells(8), f"{part}_labels": np.arange(8)[:, None]}
    data = read_dataset(save(tmp_path / "bloodmnist_64.npz", **arrays))
    assert data.table["split"].value_counts().to_dict() == {"train": 8, "val": 8, "test": 8}
    assert data.labels[0] == "basophil"
    assert "immature granulocytes" in data.labels


def voc(root: Path, rows: list[tuple[str, str, list[tuple[int, int, int, int]]]]) -> Path:
    (root / "JPEGImages").mkdir(parents=True)
    (root / "Annotations").mkdir()
    lines = [",Image,Category"]
    for number, (name, labels, boxes) in enumerate(rows):
        draw_cell("monocyte", size=(100, 80)).save(root / "JPEGImages" / f"{name}.jpg")
        objects = "".join(
            f"<object><name>WBC</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
            "</object>"
            for a, b, c, d in boxes
        )
        size = "<size><width>100</width><height>80</height></size>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
        lines.append(f'{number},{number},"{labels}"')
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def test_voc_frames_are_cropped_and_ambiguous_ones_reported(tmp_path):
    box = (40, 30, 60, 50)
    rows = [
        ("Blood_0", "NEUTROPHIL", [box]),
        ("Blood_1", "", [box]),
        ("Blood_2", "NEUTROPHIL, EOSINOPHIL", [box, box]),
        ("Blood_3", "MONOCYTE", []),
        ("Blood_4", "MONOCYTE", [box, box]),
        ("Blood_5", "LYMPHOCYTE", [(0, 0, 20, 20)]),
    ]
    data = read_dataset(voc(tmp_path / "frames", rows))
    assert [(item.label, item.cell) for item in data.items] == [("NEUTROPHIL", "Blood_0"), ("LYMPHOCYTE", "Blood_5")]
    assert data.items[0].source.image().size == (28, 28)
    assert data.items[1].source.image().size == (24, 24)  # cut by the frame's edge
    assert len(data.problems) == 4
    assert "no label" in data.problems["JPEGImages/Blood_1.jpg"]
    assert "2 labels (NEUTROPHIL, EOSINOPHIL)" in data.problems["JPEGImages/Blood_2.jpg"]


@pytest.mark.parametrize("kind", ["csv", "semicolons", "parquet"])
def test_manifest(tmp_path, kind):
    draw_folder(tmp_path / "pictures", 1)
    table = pd.DataFrame(
        {
            "file": [f"pictures/{label}/000.png" for label in LABELS] + ["", "pictures/monocyte/000.png"],
            "label": [*LABELS, "x", "monocyte"],
            "cell": ["a", "a", "b", "", "c", "d"],
            "split": ["TRAIN", "train", "test", "Val", "", ""],
        }
    )
    path = tmp_path / ("m.parquet" if kind == "parquet" else "m.csv")
    if kind == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep=";" if kind == "semicolons" else ",")
    data = read_dataset(path)
    assert [item.label for item in data.items] == LABELS
    assert [item.cell for item in data.items] == ["a", "a", "b", None]
    assert [item.split for item in data.items] == ["train", "train", "test", "val"]
    assert set(data.problems) == {"row 5", "row 6"}
    assert data.items[0].source.image().size == (96, 96)


def hub_parquet(path: Path, labels: list[int]) -> None:
    def content(n: int) -> bytes:
        buffer = io.BytesIO()
        draw_cell(LABELS[n % 4], n).save(buffer, "PNG")
        return buffer.getvalue()

    pictures = [{"bytes": content(n), "path": f"{n}.png"} for n in range(len(labels))]
    table = pa.table({"image": pictures, "label": labels})
    features = {"label": {"names": LABELS, "_type": "ClassLabel"}}
    meta = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(meta), path)


def test_a_fetched_hub_data_set(tmp_path):
    hub_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [0, 1, 2, 3])
    hub_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [3, -1])
    (tmp_path / "README.md").write_text("# a card")
    data = read_dataset(tmp_path)
    found = [(item.split, item.label) for item in data.items]
    assert found == [("test", "neutrophil"), ("test", None), *(("train", label) for label in LABELS)]
    assert data.items[0].source.image().size == (96, 96)


def test_every_layout_names_itself():
    assert len(layouts()) >= 5
    assert all(one.name and one.text and callable(one.read) for one in layouts())


@pytest.mark.parametrize(
    ("name", "split"),
    [("TRAIN", "train"), ("Testing", "test"), ("valid", "val"), ("TEST_SIMPLE", "test_simple"), ("monocyte", None)],
)
def test_split_names(name, split):
    assert split_name(name) == split


@ONCE
@given(st.binary(max_size=400))
def test_refuses_other_content_named_npz(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|holds"):
        read_dataset(tmp_path / "x.npz")


@ONCE
@given(st.data())
def test_refuses_a_damaged_npz_with_a_sentence(tmp_path, data):
    raw = bytearray(save(tmp_path / "x.npz", images=cells(3), labels=np.arange(3)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    path = tmp_path / f"{data.draw(st.integers(0, 10**9))}.npz"
    path.write_bytes(bytes(raw))
    try:
        for item in read_dataset(path).items:
            item.source.image()
    except (DataError, PictureError) as error:
        assert str(error)
    finally:
        path.unlink()


@pytest.mark.parametrize("which", ["images", "labels"])
def test_object_arrays_are_refused_and_never_unpickled(tmp_path, which):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "unpickled",))

    arrays = {"images": cells(2), "labels": np.arange(2)}
    arrays[which] = np.array([Bomb(), Bomb()], object)
    with pytest.raises(DataError, match="objects"):
        read_dataset(save(tmp_path / "x.npz", **arrays))
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"images": cells(3), "labels": np.arange(2)}, "3 images, but 2 labels"),
        ({"images": cells(3)}, "needs the arrays images and labels"),
        ({"images": np.zeros((3, 8)), "labels": np.arange(3)}, "shape"),
        ({"images": np.zeros((3, 8, 8, 2)), "labels": np.arange(3)}, "shape"),
        ({"images": cells(3), "labels": np.zeros((3, 2))}, "one label an image"),
        ({"images": cells(3), "labels": np.zeros(3, complex)}, "not labels"),
        ({"images": np.zeros((2, 8, 8, 3), "U1"), "labels": np.arange(2)}, "not pixels"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8), "labels": np.zeros(0)}, "empty"),
        ({"images": np.zeros((2, 1, 1, 3), np.uint8), "labels": np.arange(2)}, "too small"),
    ],
)
def test_refuses_arrays_that_do_not_fit(tmp_path, arrays, sentence):
    with pytest.raises(DataError, match=sentence):
        read_dataset(save(tmp_path / "x.npz", **arrays))


def test_refuses_an_npz_that_claims_to_be_huge(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 512, 512, 3)}
    )
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
        archive.writestr("labels.npy", header.getvalue())
    with pytest.raises(DataError, match="damaged"):
        read_dataset(tmp_path / "x.npz")


@ONCE
@given(
    shape=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    labels=st.lists(st.sampled_from(["a", "Ω", "класс", "赤血球", "x y", "1"]), min_size=1, max_size=6),
)
def test_npz_round_trip_of_any_shape_and_label(tmp_path, shape, labels):
    images = np.random.default_rng(0).integers(0, 255, (len(labels), *shape, 3), dtype=np.uint8)
    data = read_dataset(save(tmp_path / "x.npz", images=images, labels=np.array(labels)))
    assert [item.label for item in data.items] == labels
    for item, image in zip(data.items, images, strict=True):
        assert (np.asarray(item.source.image()) == image).all()


@ONCE
@given(
    st.lists(st.text(st.characters(categories=("L", "N", "Zs", "So")), min_size=1, max_size=12), min_size=1, max_size=3)
)
def test_unicode_class_names(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("unicode")
    wanted = set()
    for name in names:
        if name.strip() and split_name(name) is None and not re.search(r"\d\d", name):  # 0012 may be a patient
            (root / name).mkdir(exist_ok=True)
            draw_cell("monocyte").save(root / name / "ä 血.png")
            wanted.add(name)
    if wanted:
        assert {item.label for item in read_dataset(root).items} == wanted


@ONCE
@given(st.text(max_size=200))
def test_a_manifest_of_any_text(tmp_path, text):
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_dataset(tmp_path / "m.csv")
    assert str(error.value).endswith(".")


def test_one_class_only_can_be_read(tmp_path):
    (tmp_path / "only").mkdir()
    draw_cell("monocyte").save(tmp_path / "only" / "1.png")
    assert read_dataset(tmp_path).labels == ("only",)


def test_circular_links_are_not_followed(tmp_path):
    draw_folder(tmp_path / "set", 1)
    (tmp_path / "set" / "monocyte" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "monocyte" / "self.png").symlink_to(tmp_path / "set" / "monocyte" / "self.png")
    data = read_dataset(tmp_path / "set")
    assert any("link" in why for why in data.problems.values())
    broken = next(item for item in data.items if item.file.endswith("self.png"))
    with pytest.raises(PictureError, match="cannot be opened"):
        broken.source.image()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError):
        read_dataset(tmp_path / "loop")


@pytest.mark.parametrize("what", ["nothing", "empty folder", "text file", "VOC without labels", "forbidden"])
def test_refuses_what_is_no_data_set(tmp_path, what):
    place = tmp_path / "place"
    if what == "empty folder":
        place.mkdir()
    elif what == "text file":
        place = tmp_path / "x.txt"
        place.write_text("hello")
    elif what == "VOC without labels":
        voc(place, [("a1", "X", [])])
        (place / "labels.csv").unlink()
    elif what == "forbidden":
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        place.mkdir(mode=0)
    with pytest.raises(DataError) as error:
        read_dataset(place)
    assert str(error.value).endswith(".")


def test_the_hash_is_of_the_content(tmp_path):
    folder = draw_folder(tmp_path / "set", 2)
    before = read_dataset(folder).hash
    assert read_dataset(folder).hash == before
    draw_cell("monocyte", 9).save(folder / "monocyte" / "000.png")
    assert read_dataset(folder).hash != before


def test_packed_once_and_read_again(tmp_path):
    folder = draw_folder(tmp_path / "set", 3)
    (folder / "monocyte" / "broken.png").write_text("no picture")
    cache = tmp_path / "cache"
    first = pack(read_dataset(folder), (32, 48), cache)
    assert first.pictures.shape == (13, 32, 48, 3)
    assert isinstance(first.pictures, np.memmap)
    assert list(first.problems) == ["monocyte/broken.png"]
    last = np.asarray(draw_cell("neutrophil", 2).resize((48, 32), Image.Resampling.BICUBIC))
    assert (first.pictures[-1] == last).all()
    (stored,) = cache.rglob("pictures.npy")
    written = stored.stat().st_ino
    again = pack(read_dataset(folder), (32, 48), cache)
    assert (again.pictures == first.pictures).all()
    assert again.pixels == first.pixels
    assert stored.stat().st_ino == written  # nothing was decoded again


def test_a_damaged_cache_is_made_again(tmp_path):
    data = read_dataset(draw_folder(tmp_path / "set", 2))
    good = np.array(pack(data, (16, 16), tmp_path / "cache").pictures)
    (stored,) = (tmp_path / "cache").rglob("pictures.npy")
    raw = bytearray(stored.read_bytes())
    raw[-5] ^= 255
    stored.write_bytes(bytes(raw))
    assert (pack(data, (16, 16), tmp_path / "cache").pictures == good).all()


def test_two_processes_that_pack_the_same_data_share_one_cache(tmp_path):
    """A cache that one process reads is not replaced by another process, because it would be missing for a moment."""
    data = read_dataset(draw_folder(tmp_path / "cells", 2))
    cache = tmp_path / "cache"
    begun, decoded = threading.Event(), []

    def watched(items, title, total):
        begun.set()
        time.sleep(0.2)  # the other one comes meanwhile, and waits
        decoded.append(total)
        return items

    with ThreadPoolExecutor(1) as other:
        quicker = other.submit(pack, data, (16, 16), cache, watched)
        begun.wait(60)
        slower = pack(data, (16, 16), cache, watched)
    first, second = (Path(found.pictures.filename) for found in (quicker.result(), slower))
    assert first == second
    assert decoded == [len(data)], "the second one reads what the first one wrote"
    assert np.array_equal(quicker.result().pictures, slower.pictures)
    assert not list(first.parent.parent.glob(".*"))  # nothing half-written is left


@pytest.mark.parametrize("keep", [True, False])
def test_a_folder_created_while_another_is_written(tmp_path, keep):
    target = tmp_path / "place"
    with atomic_folder(target, (lambda _: True) if keep else None) as mine:
        (mine / "file").write_text("mine")
        target.mkdir()
        (target / "file").write_text("theirs")
    assert (target / "file").read_text() == ("theirs" if keep else "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_folder_created_just_before_the_rename(tmp_path, monkeypatch):
    """Looked for, not there, and there when the new one is to be put in its place."""
    target = tmp_path / "place"
    looked = iter([False])
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: next(looked, True) if path == target else real(path))
    with atomic_folder(target) as mine:
        (mine / "file").write_text("mine")
        target.mkdir()
        (target / "file").write_text("theirs")
    assert (target / "file").read_text() == "mine"


def test_a_changed_picture_is_decoded_again(tmp_path):
    folder = draw_folder(tmp_path / "set", 1)
    before = np.array(pack(read_dataset(folder), (16, 16), tmp_path / "cache").pictures)
    draw_cell("eosinophil", 7).save(folder / "eosinophil" / "000.png")
    after = pack(read_dataset(folder), (16, 16), tmp_path / "cache").pictures
    assert (after[0] != before[0]).any()
    assert (after[1:] == before[1:]).all()
