"""More data sets as strangers lay them out: archives in folders, odd names of sides, exports of other programs."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

from tests.layouts import CASES, KINDS, case, flat, lines, picture, put, tarred, voc_xml, write, zipped

__all__ = ["CASES"]


@case("archive beside a table", "manifest", groups=2)
def _(root: Path) -> Path:
    zipped(put(root / "x", [f"c{n}.png" for n in range(6)]), root / "set" / "images.zip")
    write(root / "set" / "labels.csv", lines(",", "file,label,patient", "c{n}.png,{kind},{who}"))
    return root / "set"


@case("an archive for each class", "class folders")
def _(root: Path) -> Path:
    for kind in KINDS:
        zipped(put(root / kind, ["1.png", "2.png"]), root / "set" / f"{kind}.zip")
    return root / "set"


@case("archives in an archive", "split/class folders", dict.fromkeys(KINDS, 4), {"train": 6, "test": 6})
def _(root: Path) -> Path:
    for side in ("train", "test"):
        zipped(put(root / side, [f"{side}/{name}" for name in flat()]), root / "y" / f"{side}.zip")
    return zipped(root / "y", root / "set.zip")


@case("tar.gz named zip", "class folders")
def _(root: Path) -> Path:
    return tarred(put(root / "x", flat()), root / "set.zip", gzip.compress)


class _Unflagged(zipfile.ZipInfo):
    """A member whose name is UTF-8 without the flag that says so, as macOS writes it."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 (zipfile's name)
        return self.filename.encode(), self.flag_bits


@case("macOS zip", "class folders", {"Neutrófilo": 1, "Linfócito": 1})
def _(root: Path) -> Path:
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for kind in ("Neutrófilo", "Linfócito"):
            archive.writestr(_Unflagged(f"{kind}/1.png"), picture())
    return root / "set.zip"


@case(
    "numbered sides with other names", "split/class folders", dict.fromkeys(KINDS, 6), {"train": 6, "val": 6, "test": 6}
)
def _(root: Path) -> Path:
    return put(root / "set", [f"{side}/{name}" for side in ("1_trainset", "2_eval", "3_holdout") for name in flat()])


@case("table whose pictures lie in folders of sides", "manifest", splits={"train": 3, "test": 3})
def _(root: Path) -> Path:
    put(root / "set", [f"{'train' if n < 3 else 'test'}/c{n}.png" for n in range(6)])
    write(root / "set" / "labels.csv", lines(",", "file,label", "c{n}.png,{kind}"))
    return root / "set"


@case("a metadata.csv for each side", "manifest", splits={"train": 6, "test": 6}, labels=dict.fromkeys(KINDS, 4))
def _(root: Path) -> Path:
    for side in ("train", "test"):
        put(root / "set", [f"{side}/c{n}.png" for n in range(6)])
        write(root / "set" / side / "metadata.csv", lines(",", "file_name,label", "c{n}.png,{kind}"))
    return root / "set"


@case("VOC, the same names on both sides", "VOC boxes", {"neutrophil": 1, "monocyte": 1}, {"train": 1, "test": 1})
def _(root: Path) -> Path:
    for side, kind in (("train", "neutrophil"), ("test", "monocyte")):
        put(root / "set", [f"{side}/images/1.png"], (60, 40))
        write(root / "set" / side / "annotations" / "1.xml", voc_xml((kind, 20, 10, 30, 20)))
    return root / "set"


@case("YOLO as Roboflow exports it", "YOLO boxes", {"neutrophil": 2}, {"train": 1, "val": 1})
def _(root: Path) -> Path:
    for side in ("train", "valid"):
        put(root / "set", [f"{side}/images/c_png.rf.{side}.png"], (60, 40))
        write(root / "set" / side / "labels" / f"c_png.rf.{side}.TXT", "0.0 0.5 0.5 0.2 0.2\n")
    write(
        root / "set" / "data.yaml", "names: ['neutrophil']\nroboflow:\n  url: https://universe.roboflow.com/x?a=1&b=2\n"
    )
    write(root / "set" / "ci.yaml", "{{ no }}: : yaml")
    return root / "set"


@case("COCO with polygons, ids as text and a broken annotation", "COCO boxes", {"neutrophil": 1})
def _(root: Path) -> Path:
    put(root / "set", ["images/a.png"], (60, 40))
    annotations = [
        {"id": 1, "image_id": "7", "category_id": 1, "segmentation": [[20, 10, 30, 10, 30, 20, 20, 20]]},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [10**400, 1, 2, 3]},
        {"id": 3, "category_id": 1},
        {"id": 4, "image_id": 7, "category_id": 2, "bbox": [1, 1, 9, 9]},
    ]
    images, categories = [{"id": 7, "file_name": "a.png"}], [{"id": 1, "name": "neutrophil"}, {"id": 2, "name": None}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write(root / "set" / "all.json", json.dumps(content))
    return root / "set"


@case("class folders beside damaged XML", "class folders")
def _(root: Path) -> Path:
    put(root / "set", flat())
    write(root / "set" / "neutrophil" / "1.xml", "<no")
    return root / "set"
