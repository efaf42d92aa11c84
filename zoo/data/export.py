"""Write a data set as class folders, COCO or YOLO. Pictures are written anew as PNG, so no metadata goes along."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from zoo.data.table import CutSource, DataError, DataSet, FileSource, Item, Source
from zoo.files import atomic_folder, write_json, write_text
from zoo.imaging.decode import PictureError
from zoo.tables import guarded

UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*]+')
MARKS = ("data.csv", "data.yaml", "annotations")  # of which an exported folder holds one
MAX_NAME_LETTERS = 100
NO_LABEL = "it has no label"

Progress = Callable[[Iterable, str, int], Iterable]


@dataclass
class Frame:
    """A picture that is written: its items have one picture, or boxes in it."""

    name: str
    source: Source
    items: list[Item] = field(default_factory=list)

    @property
    def first(self) -> Item:
        """The first item; split and group are one for all."""
        return self.items[0]


@dataclass(frozen=True)
class Exported:
    """Number of pictures and cells that were written; `problems` names what was not: file → reason."""

    pictures: int
    cells: int
    problems: dict[str, str]


def export_data(data: DataSet, kind: str, out: Path, progress: Progress) -> Exported:
    """Write a data set into a new folder, whole or not at all.

    Args:
        data: The data set.
        kind: One of `EXPORTS`. Class folders hold cut cells; COCO and YOLO hold whole pictures with boxes.
        out: Folder to write or replace.
        progress: Wraps the pictures (pictures, title, total), for a progress bar.

    Returns:
        What was written and what was not.

    Raises:
        DataError: No picture has a label.
    """
    problems = {item.file: NO_LABEL for item in data.items if item.label is None}
    labelled = [item for item in data.items if item.label is not None]
    if not labelled:
        raise DataError(f"{data.place} has no labelled pictures; there is nothing to export.")
    frames = _frames(labelled, whole=kind != "folders")
    with atomic_folder(out) as folder:
        written = list(_pictures(frames, progress, problems))
        EXPORTS[kind](folder, data, written)
    return Exported(len(written), sum(len(frame.items) for frame, _ in written), problems)


def _pictures(
    frames: list[Frame], progress: Progress, problems: dict[str, str]
) -> Iterator[tuple[Frame, Callable[[], Image.Image]]]:
    """The frames that can be decoded; each is decoded again when it is written, so that memory holds one."""
    for frame in progress(frames, "checking", len(frames)):
        try:
            frame.source.image()
        except PictureError as error:
            problems |= {item.file: str(error) for item in frame.items}
            continue
        yield frame, frame.source.image


def _frames(items: list[Item], whole: bool) -> list[Frame]:
    """One frame an item, or where `whole` is wanted one for all boxes of a picture; names are unique."""
    frames: dict[str, Frame] = {}
    used: set[str] = set()
    for item in items:
        boxed = whole and _whole(item.source) is not item.source
        key = item.file.partition("#")[0] if boxed else item.file
        if key not in frames:
            frames[key] = Frame(_unique(key, used), _whole(item.source) if whole else item.source)
        frames[key].items.append(item)
    return list(frames.values())


def _whole(source: Source) -> Source:
    if isinstance(source, CutSource):
        return source.whole
    return FileSource(source.path) if isinstance(source, FileSource) and source.box else source


def _box(item: Item, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Box of an item in its picture of `size`, in pixels; the whole picture where it has none."""
    if isinstance(item.source, CutSource):
        left, top, right, bottom = item.source.pixels(size)
        return max(0.0, left), max(0.0, top), min(float(size[0]), right), min(float(size[1]), bottom)
    if isinstance(item.source, FileSource) and item.source.box:
        left, top, right, bottom = map(float, item.source.box)
        return left, top, right, bottom
    return 0.0, 0.0, float(size[0]), float(size[1])


def _side(item: Item) -> str:
    """The item's side of a split as a folder's name; empty if there is none. A table may hold anything there."""
    return folder_name(item.split) if item.split else ""


def _unique(name: str, used: set[str]) -> str:
    """A file name without suffix that no other picture of the export has, in any case of letters."""
    stem = re.sub(r"\.[A-Za-z0-9]{2,5}(?=$|#)", "", name)
    clean = UNSAFE.sub("_", stem).replace("#", "_").strip(". _")[-MAX_NAME_LETTERS:] or "picture"
    return _free(clean, used)


def folder_name(name: str) -> str:
    """A label or side of a split as the name of one folder, which leads nowhere else."""
    return UNSAFE.sub("_", name).strip(". ")[:MAX_NAME_LETTERS] or "_"


def _free(clean: str, used: set[str]) -> str:
    """The name, with a number if another has it."""
    found, number = clean, 1
    while found.casefold() in used:
        number += 1
        found = f"{clean}-{number}"
    used.add(found.casefold())
    return found


def _write_folders(folder: Path, data: DataSet, frames: list[tuple[Frame, Callable[[], Image.Image]]]) -> None:
    """SPLIT/CLASS/NAME.png, and data.csv with split and group of each picture."""
    rows = [("file", "label", "split", "group")]
    used: set[str] = set()
    folders = {label: _free(folder_name(label), used) for label in data.labels}
    for frame, image in frames:
        item = frame.first
        place = "/".join(filter(None, (_side(item), folders[str(item.label)], f"{frame.name}.png")))
        _save(image(), folder / place)
        rows.append((place, str(item.label), item.split or "", item.group or ""))
    _write_csv(folder / "data.csv", rows)


def _write_coco(folder: Path, data: DataSet, frames: list[tuple[Frame, Callable[[], Image.Image]]]) -> None:
    """images/NAME.png, and annotations/SPLIT.json."""
    categories = [{"id": number, "name": name} for number, name in enumerate(data.labels, 1)]
    numbers = {entry["name"]: entry["id"] for entry in categories}
    parts: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for number, (frame, image) in enumerate(frames, 1):
        picture = image()
        name = f"{frame.name}.png"
        _save(picture, folder / "images" / name)
        part = parts.setdefault(_side(frame.first) or "all", {"images": [], "annotations": []})
        entry: dict[str, Any] = {"id": number, "file_name": name, "width": picture.width, "height": picture.height}
        part["images"].append(entry | ({"group": frame.first.group} if frame.first.group else {}))
        for item in frame.items:
            left, top, right, bottom = _box(item, picture.size)
            part["annotations"].append(
                {
                    "id": sum(len(one["annotations"]) for one in parts.values()) + 1,
                    "image_id": number,
                    "category_id": numbers[item.label],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    for split, part in parts.items():
        write_json(folder / "annotations" / f"{split}.json", {**part, "categories": categories})


def _write_yolo(folder: Path, data: DataSet, frames: list[tuple[Frame, Callable[[], Image.Image]]]) -> None:
    """images/SPLIT/NAME.png, labels/SPLIT/NAME.txt, data.yaml, and groups.csv where groups are known."""
    numbers = {name: number for number, name in enumerate(data.labels)}
    rows = [("file", "group")]
    splits: set[str] = set()
    for frame, image in frames:
        picture, split = image(), _side(frame.first)
        splits.add(split)
        place = "/".join(filter(None, ("images", split, f"{frame.name}.png")))
        _save(picture, folder / place)
        lines = []
        for item in frame.items:
            left, top, right, bottom = _box(item, picture.size)
            shares = (
                (left + right) / 2 / picture.width,
                (top + bottom) / 2 / picture.height,
                (right - left) / picture.width,
                (bottom - top) / picture.height,
            )
            lines.append(f"{numbers[str(item.label)]} {' '.join(f'{share:.6f}' for share in shares)}\n")
        write_text(folder / "/".join(filter(None, ("labels", split, f"{frame.name}.txt"))), "".join(lines))
        if frame.first.group:
            rows.append((place, frame.first.group))
    sides = {split or "train": f"images/{split}".rstrip("/") for split in sorted(splits)}
    names = dict(enumerate(data.labels))
    write_text(folder / "data.yaml", yaml.safe_dump({**sides, "names": names}, allow_unicode=True, sort_keys=False))
    if len(rows) > 1:
        _write_csv(folder / "groups.csv", rows)


EXPORTS: dict[str, Callable[[Path, DataSet, list[tuple[Frame, Callable[[], Image.Image]]]], None]] = {
    "folders": _write_folders,
    "coco": _write_coco,
    "yolo": _write_yolo,
}


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.info.clear()  # comments and profiles of the original
    image.save(path, "PNG")


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([guarded(value) for value in row] for row in rows)
    write_text(path, text.getvalue())
