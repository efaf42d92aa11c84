"""Data sets as strangers lay them out, drawn small: each builder writes one and returns what a person would name."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openpyxl
from PIL import Image

KINDS = ("neutrophil", "lymphocyte", "monocyte")
Builder = Callable[[Path], Path]


def picture(number: int = 0, size: tuple[int, int] = (12, 10)) -> bytes:
    """A PNG file of a ramp, another for each number; a single colour would be refused."""
    buffer = io.BytesIO()
    rows, columns = np.indices((size[1], size[0]))
    levels = np.stack([number + columns, 40 + number + rows, 200 + 0 * rows], axis=-1)
    Image.fromarray((levels % 250).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def put(root: Path, names: Iterable[str], size: tuple[int, int] = (12, 10)) -> Path:
    """Picture files of these relative names below `root`."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, size))
    return root


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


@dataclass(frozen=True)
class Case:
    """A layout: its builder, and what must be found: pictures by label, by split, groups, and a part of the reason."""

    name: str
    build: Builder
    labels: dict[str, int]
    splits: dict[str, int]
    groups: int
    layout: str


CASES: list[Case] = []


def case(
    name: str, layout: str, labels: dict[str, int] | None = None, splits: dict[str, int] | None = None, groups: int = 0
) -> Callable[[Builder], Builder]:
    """Register the decorated builder with what must be found."""

    def register(build: Builder) -> Builder:
        CASES.append(
            Case(name, build, dict.fromkeys(KINDS, 2) if labels is None else labels, splits or {}, groups, layout)
        )
        return build

    return register


def flat() -> list[str]:
    """Two pictures in a folder of each kind."""
    return [f"{kind}/{n}.png" for kind in KINDS for n in (1, 2)]


@case("class", "class folders")
def _(root: Path) -> Path:
    return put(root / "set", flat())


@case("class, wrapped twice", "class folders")
def _(root: Path) -> Path:
    return put(root / "set", [f"archive/images/{name}" for name in flat()])


@case("split/class", "split/class folders", splits={"train": 3, "val": 3})
def _(root: Path) -> Path:
    return put(root / "set", [f"{part}/{kind}/{part}.png" for kind in KINDS for part in ("Train", "VALIDATION")])


@case("train alone", "split/class folders", splits={"train": 6})
def _(root: Path) -> Path:
    return put(root / "set", [f"train/{name}" for name in flat()])


@case("class/split", "class/split folders", splits={"train": 3, "test": 3})
def _(root: Path) -> Path:
    return put(root / "set", [f"{kind}/{part}/1.png" for kind in KINDS for part in ("train", "test")])


@case("split/images/class", "split/-/class folders", splits={"train": 3, "test": 3})
def _(root: Path) -> Path:
    return put(root / "set", [f"{part}/images/{kind}/1.png" for kind in KINDS for part in ("train", "test")])


@case("group/class", "group/class folders", groups=2)
def _(root: Path) -> Path:
    return put(root / "set", [f"patient_{n}/{kind}/a.png" for kind in KINDS for n in (3, 7)])


@case("class/group", "class/group folders", groups=2)
def _(root: Path) -> Path:
    return put(root / "set", [f"{kind}/slide_{n}/a.png" for kind in KINDS for n in (3, 7)])


@case("split/group/class", "split/group/class folders", splits={"train": 3, "test": 3}, groups=2)
def _(root: Path) -> Path:
    names = [f"{part}/P{n:03}/{kind}/a.png" for kind in KINDS for n, part in ((1, "train"), (2, "test"))]
    return put(root / "set", names)


@case("class/images", "class folders")
def _(root: Path) -> Path:
    return put(root / "set", [f"{kind}/images/{n}.png" for kind in KINDS for n in (1, 2)])


@case("classes called test and train", "class folders", labels={"test": 2, "train": 2, "monocyte": 2})
def _(root: Path) -> Path:
    return put(root / "set", [f"{name}/{n}.png" for name in ("test", "train", "monocyte") for n in (1, 2)])


@case("numbered classes", "class folders", labels={"0": 1, "1": 1, "2": 1})
def _(root: Path) -> Path:
    return put(root / "set", ["0/a.png", "1/a.png", "2/a.png"])


@case("system files", "class folders")
def _(root: Path) -> Path:
    put(root / "set", flat())
    put(
        root / "set", ["__MACOSX/neutrophil/._1.png", ".ipynb_checkpoints/1.png", "checkpoints/1.png", ".cache/x/1.png"]
    )
    for name in (".DS_Store", "neutrophil/Thumbs.db", "neutrophil/._1.png"):
        (root / "set" / name).write_bytes(b"system")
    return root / "set"


@case("masks beside pictures", "class folders")
def _(root: Path) -> Path:
    names = [f"{kind}/{part}/{n}.png" for kind in KINDS for part in ("images", "masks") for n in (1, 2)]
    return put(root / "set", names)


@case("class folders with a table of patients", "class folders", groups=2)
def _(root: Path) -> Path:
    put(root / "set", flat())
    rows = "\n".join(f"{name},P{number % 2}" for number, name in enumerate(flat()))
    write(root / "set" / "patients.csv", f"file,patient_id\n{rows}\n")
    return root / "set"


@case("pictures without labels", "pictures without labels", labels={})
def _(root: Path) -> Path:
    return put(root / "set", ["images/1.png", "images/2.png"])


@case("split folders without classes", "pictures without labels", labels={}, splits={"train": 1, "test": 1})
def _(root: Path) -> Path:
    return put(root / "set", ["train/1.png", "test/2.png"])


def table(root: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    put(root / "set", [f"images/c{n}.png" for n in range(6)])
    write(root / "set" / name, text, encoding)
    return root / "set"


def lines(mark: str, header: str, row: str) -> str:
    """A table of six rows; `{n}`, `{kind}` and `{who}` stand for number, kind and patient."""
    rows = [row.format(n=n, kind=KINDS[n % 3], who=n % 2, part=("train", "test")[n % 2]) for n in range(6)]
    return "\n".join(part.replace(",", mark) for part in (header, *rows)) + "\n"


@case("csv in a folder", "manifest")
def _(root: Path) -> Path:
    return table(root, lines(",", "file,label", "images/c{n}.png,{kind}"))


@case("csv with a mark, semicolons, Windows paths and a split", "manifest", splits={"train": 3, "test": 3})
def _(root: Path) -> Path:
    text = lines(";", "Bild,Zelltyp,Menge", r"D:\data\images\c{n}.png,{kind},{part}")
    return table(root, text, encoding="utf-8-sig")


@case("tsv of absolute paths of another machine, with patients", "manifest", groups=2)
def _(root: Path) -> Path:
    return table(root, lines("\t", "path,diagnosis,Patient ID", "/home/ana/x/images/c{n}.png,{kind},P{who}"), "all.tsv")


@case("csv in UTF-16 with bars, names without suffix", "manifest")
def _(root: Path) -> Path:
    return table(root, lines("|", "id,type,area", "c{n},{kind},1.5{n}"), encoding="utf-16")


@case("csv named directly", "manifest", groups=2)
def _(root: Path) -> Path:
    return table(root, lines(",", "image,class,slide", "images/c{n}.png,{kind},s{who}")) / "labels.csv"


@case("one-hot columns", "manifest", {"NEU": 2, "LYM": 2, "MONO": 2})
def _(root: Path) -> Path:
    rows = [",".join([f"c{n}.png", *("1" if n % 3 == k else "0" for k in range(3))]) for n in range(6)]
    return table(root, "\n".join(["image,NEU,LYM,MONO", *rows]))


@case("one table a split", "manifest", splits={"train": 3, "test": 3})
def _(root: Path) -> Path:
    rows = lines(",", "file,label", "c{n}.png,{kind}").splitlines()
    table(root, "\n".join([rows[0], *rows[1:4]]), "train.csv")
    write(root / "set" / "test.csv", "\n".join([rows[0], *rows[4:]]))
    return root / "set"


@case("Excel", "manifest", groups=2)
def _(root: Path) -> Path:
    put(root / "set", [f"c{n}.png" for n in range(6)])
    book = openpyxl.Workbook()
    book.active.append(["note"])
    sheet = book.create_sheet("cells")
    sheet.append(["Picture", "Cell type", "Patient"])
    for n in range(6):
        sheet.append([f"c{n}.png", KINDS[n % 3], n % 2])
    book.save(root / "set" / "list.xlsx")
    return root / "set"


@case("csv with boxes", "manifest", labels={"neutrophil": 2, "lymphocyte": 1})
def _(root: Path) -> Path:
    put(root / "set", ["a.png", "b.png"], (60, 40))
    rows = ["a.png,neutrophil,5,5,15,15", "a.png,lymphocyte,30,5,40,15", "b.png,neutrophil,5,5,20,20"]
    write(root / "set" / "boxes.csv", "\n".join(["filename,cell_type,xmin,ymin,xmax,ymax", *rows]))
    return root / "set"


BOXED = {"neutrophil": 2, "lymphocyte": 2}


def voc_xml(*objects: tuple[str, int, int, int, int]) -> str:
    """An annotation of a 60×40 picture."""
    parts = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for name, a, b, c, d in objects
    )
    return f"<annotation><size><width>60</width><height>40</height></size>{parts}</annotation>"


@case("Pascal VOC", "VOC boxes", BOXED, {"train": 2, "val": 2})
def _(root: Path) -> Path:
    put(root / "set", ["JPEGImages/a.png", "JPEGImages/b.png"], (60, 40))
    for name, side in (("a", "train"), ("b", "val")):
        boxes = (("neutrophil", 5, 5, 15, 15), ("lymphocyte", 30, 10, 40, 20), ("neutrophil", 9, 9, 9, 9))
        write(root / "set" / "Annotations" / f"{name}.xml", voc_xml(*boxes))
        write(root / "set" / "ImageSets" / "Main" / f"{side}.txt", f"{name}\n")
    return root / "set"


@case("Pascal VOC with the XML beside the picture", "VOC boxes", {"neutrophil": 1, "lymphocyte": 1})
def _(root: Path) -> Path:
    put(root / "set", ["a.png", "b.png"], (60, 40))
    write(root / "set" / "a.xml", voc_xml(("neutrophil", 5, 5, 15, 15)))
    write(root / "set" / "b.xml", voc_xml(("lymphocyte", 5, 5, 15, 15)))
    return root / "set"


YOLO = "0 0.2 0.25 0.2 0.3\n1 0.6 0.25 0.2 0.3\n"


@case("YOLO with data.yaml", "YOLO boxes", BOXED, {"train": 2, "val": 2})
def _(root: Path) -> Path:
    put(root / "set", ["train/images/a.png", "valid/images/b.png"], (60, 40))
    write(root / "set/train/labels/a.txt", YOLO)
    write(root / "set/valid/labels/b.txt", YOLO)
    write(
        root / "set/data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [neutrophil, lymphocyte]\n"
    )
    return root / "set"


@case("YOLO with classes.txt and polygons", "YOLO boxes", BOXED)
def _(root: Path) -> Path:
    put(root / "set", ["images/a.png", "images/b.png"], (60, 40))
    write(root / "set/labels/a.txt", YOLO)
    write(root / "set/labels/b.txt", "0 0.1 0.1 0.3 0.1 0.3 0.4\n1 0.5 0.1 0.7 0.1 0.7 0.4\nnonsense\n")
    write(root / "set/classes.txt", "neutrophil\nlymphocyte\n")
    return root / "set"


def coco(names: dict[int, str], extra: dict[str, object] | None = None) -> str:
    """COCO annotations: two cells in each picture."""
    images = [{"id": n, "file_name": name, **(extra or {})} for n, name in names.items()]
    boxes = [
        {"id": 10 * n + k, "image_id": n, "category_id": k, "bbox": [5 + 25 * (k - 1), 5, 10, 10]}
        for n in names
        for k in (1, 2)
    ]
    kinds = [{"id": 1, "name": "neutrophil"}, {"id": 2, "name": "lymphocyte"}]
    return json.dumps({"images": images, "annotations": boxes, "categories": kinds})


@case("COCO", "COCO boxes", BOXED, {"train": 2, "val": 2}, groups=1)
def _(root: Path) -> Path:
    put(root / "set", ["train2017/a.png", "val2017/b.png"], (60, 40))
    write(root / "set/annotations/instances_train2017.json", coco({1: "a.png"}, {"patient": "P1"}))
    write(root / "set/annotations/instances_val2017.json", coco({1: "b.png"}, {"patient": "P1"}))
    return root / "set"


@case("COCO as Roboflow writes it", "COCO boxes", BOXED, {"train": 4})
def _(root: Path) -> Path:
    put(root / "set", ["train/a.png", "train/b.png"], (60, 40))
    write(root / "set/train/_annotations.coco.json", coco({1: "a.png", 2: "b.png"}))
    return root / "set"


def arrays(path: Path) -> Path:
    """A small archive as MedMNIST writes it."""
    given = {}
    for part in ("train", "val", "test"):
        given[f"{part}_images"] = np.arange(8**3 * 3).reshape(8, 8, 8, 3).astype(np.uint8)
        given[f"{part}_labels"] = np.arange(8)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **given)
    return path


MEDMNIST = dict.fromkeys(
    (
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocytes",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    ),
    3,
)
PARTS = {"train": 8, "val": 8, "test": 8}


@case("npz as the browser saved it again", "npz", MEDMNIST, PARTS)
def _(root: Path) -> Path:
    return arrays(root / "bloodmnist (1).npz")


@case("npz in a zip", "npz", MEDMNIST, PARTS)
def _(root: Path) -> Path:
    return zipped(arrays(root / "x" / "bloodmnist_64.npz").parent, root / "set.zip")


def zipped(folder: Path, path: Path) -> Path:
    """A ZIP file of a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def tarred(folder: Path, path: Path, pack: Callable[[bytes], bytes] = bytes) -> Path:
    """A TAR file of a folder, packed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, "set")
    path.write_bytes(pack(buffer.getvalue()))
    return path


@case("zip of patient folders, with system files", "group/class folders", groups=2)
def _(root: Path) -> Path:
    names = [f"set/patient_{n}/{kind}/a.png" for kind in KINDS for n in (3, 7)]
    return zipped(put(root / "x", [*names, "__MACOSX/set/patient_3/._a.png"]), root / "set.zip")


@case("zip of a table", "manifest")
def _(root: Path) -> Path:
    return zipped(table(root, lines(",", "file,label", "images/c{n}.png,{kind}")), root / "set.zip")


@case("tar", "class folders")
def _(root: Path) -> Path:
    return tarred(put(root / "x", flat()), root / "set.tar")


@case("tar.gz of YOLO", "YOLO boxes", {"neutrophil": 1, "lymphocyte": 1})
def _(root: Path) -> Path:
    put(root / "x", ["images/a.png"], (60, 40))
    write(root / "x/labels/a.txt", YOLO)
    write(root / "x/classes.txt", "neutrophil\nlymphocyte\n")
    return tarred(root / "x", root / "set.tar.gz", gzip.compress)


@case("tar.bz2", "split/class folders", splits={"train": 6})
def _(root: Path) -> Path:
    return tarred(put(root / "x", [f"train/{name}" for name in flat()]), root / "set.tar.bz2", bz2.compress)


@case("tar.xz", "class folders")
def _(root: Path) -> Path:
    return tarred(put(root / "x", flat()), root / "set.txz", lzma.compress)
