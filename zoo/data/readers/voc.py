"""Pascal-VOC frames with boxes and a label CSV (as BCCD): each white cell is cropped with a margin.

A label belongs to a frame, not to a box. So a frame counts where it has one label and one white cell; a frame with no
label, several labels, or several cells is reported, never guessed.
"""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from zoo.data.table import DataError, DataSet, FileSource, Item, natural
from zoo.imaging.decode import SUFFIXES

NAME = "Pascal-VOC frames (JPEGImages, Annotations) with labels.csv"
ORDER = 20
MARGIN = 0.2  # of the box's longer side, added on every side
CELL = "WBC"


@dataclass(frozen=True)
class Frame:
    """One annotated frame: picture, size in pixels, boxes (left, top, right, bottom) by object name."""

    path: Path
    size: tuple[int, int]
    boxes: dict[str, list[tuple[int, int, int, int]]]


def matches(path: Path) -> bool:
    """A folder with Annotations and JPEGImages."""
    return (path / "Annotations").is_dir() and (path / "JPEGImages").is_dir()


def read(path: Path) -> DataSet:
    """Crops of single, labelled white cells; all other frames are named in `problems`."""
    labels = _labels(path)
    items, problems = [], {}
    for frame in sorted((path / "JPEGImages").iterdir(), key=lambda p: natural(p.name)):
        if frame.suffix.lower() not in SUFFIXES:
            continue
        name = frame.relative_to(path).as_posix()
        try:
            found = read_frame(path, frame)
        except DataError as error:
            problems[name] = str(error)
            continue
        cells = found.boxes.get(CELL, [])
        given = labels.get(frame.stem, [])
        if len(given) != 1 or len(cells) != 1:
            problems[name] = _reason(len(cells), given)
            continue
        box = widened(cells[0], found.size)
        items.append(Item(f"{name}#0", FileSource(frame, box), given[0], frame.stem, None, path.name))
    return DataSet(path.name, path, "VOC frames", tuple(items), problems)


def read_frame(root: Path, frame: Path) -> Frame:
    """Annotation of one frame. Raises DataError if it is missing or cannot be read."""
    annotation = root / "Annotations" / f"{frame.stem}.xml"
    try:
        tree = ET.parse(annotation).getroot()
        size = (int(tree.findtext("size/width", "")), int(tree.findtext("size/height", "")))
        boxes: dict[str, list[tuple[int, int, int, int]]] = {}
        for thing in tree.iter("object"):
            edges = ("xmin", "ymin", "xmax", "ymax")
            left, top, right, bottom = (round(float(thing.findtext(f"bndbox/{edge}", ""))) for edge in edges)
            boxes.setdefault(thing.findtext("name", ""), []).append((left, top, right, bottom))
    except FileNotFoundError as error:
        raise DataError("There is no annotation of this frame.") from error
    except (ET.ParseError, ValueError, OSError) as error:
        raise DataError(f"Its annotation {annotation.name} cannot be read.") from error
    return Frame(frame, size, boxes)


def widened(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box with a margin, inside a picture of `size` (width, height)."""
    left, top, right, bottom = box
    margin = round(MARGIN * max(right - left, bottom - top))
    return max(0, left - margin), max(0, top - margin), min(size[0], right + margin), min(size[1], bottom + margin)


def _reason(cells: int, given: list[str]) -> str:
    if not given:
        return "It has no label."
    if len(given) > 1:
        return f"It has {len(given)} labels ({', '.join(given)}): which cell has which is not said."
    if cells == 0:
        return "It has a label but no box of a white cell."
    return f"It has one label and {cells} white cells: which cell it belongs to is not said."


def _labels(path: Path) -> dict[str, list[str]]:
    """Frame name → its labels, from labels.csv; an image named by number is the frame whose name ends in it."""
    file = path / "labels.csv"
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError as error:
        raise DataError(f"There is no labels.csv in {path}. It names each frame's label: Image, Category.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is no CSV text.") from error
    if rows and not {"Image", "Category"} <= set(rows[0]):
        raise DataError(f"{file} has the columns {', '.join(map(str, rows[0]))}; it needs Image and Category.")
    numbers = {}
    for frame in (path / "JPEGImages").iterdir():
        if digits := re.search(r"(\d+)$", frame.stem):
            numbers[int(digits.group(1))] = frame.stem
    found = {}
    for row in rows:
        name = (row["Image"] or "").strip()
        stem = numbers.get(int(name)) if name.isdecimal() else Path(name).stem
        if stem:
            found[stem] = [part.strip() for part in (row["Category"] or "").split(",") if part.strip()]
    return found
