"""Pascal-VOC frames with boxes: each cell is cut out with a margin.

Either each box names the kind of its cell, or (as in BCCD) a table `labels.csv` gives labels to frames. A label then
belongs to a frame, not to a box: a frame counts where it has one label and one white cell, others are reported.
"""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from zoo.data.kinds import kind_of
from zoo.data.layouts.boxes import MARGIN, cut_item
from zoo.data.layouts.registry import Reading, layout
from zoo.data.options import ReadOptions
from zoo.data.table import DataError, FileSource, Item, side_above, split_name
from zoo.data.tree import FolderTree, Tree, text_of
from zoo.limits import XML_MB

CELL, CELL_KIND = "WBC", "white blood cell"
LABELS = "labels.csv"
FRAMES = "JPEGImages"
SNIFFED = 20  # annotations among which one must be readable
NO_ANNOTATION = "There is no annotation of this frame."


@dataclass(frozen=True)
class Frame:
    """One annotated frame: picture, size in pixels, boxes (left, top, right, bottom) by object name."""

    path: Path
    size: tuple[int, int]
    boxes: dict[str, list[tuple[int, int, int, int]]]


class _NoDoctype(ET.TreeBuilder):
    """A tree builder that stops at a document type, before its entities are read."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse a document type."""
        raise DataError("It declares a document type, as hostile XML does, and is refused.")


@layout("voc", "Pascal-VOC frames: an XML file of boxes for each picture; a labels.csv may name the frames' kinds")
def read_voc(tree: Tree, options: ReadOptions) -> Reading | None:
    """Cells cut out of frames; None where no XML file annotates a picture."""
    if tree.entry:
        return None
    annotations = _annotations(tree)
    if not annotations or not any(_is_annotation(tree, name) for name in list(annotations.values())[:SNIFFED]):
        return None
    labels = next((name for name in tree.files if PurePosixPath(name).name == LABELS), None)
    by_frame = _labels(tree, labels) if labels else None
    if by_frame is not None:
        return _labelled_frames(tree, annotations, by_frame, str(labels))
    return _labelled_boxes(tree, annotations)


def _annotations(tree: Tree) -> dict[str, str]:
    """The annotation of each picture that has one: of its name, and of several the one that shares most folders."""
    by_stem: dict[str, list[str]] = {}
    for name in tree.files:
        if name.lower().endswith(".xml"):
            by_stem.setdefault(PurePosixPath(name).stem, []).append(name)
    found = {}
    for picture in tree.pictures:
        path = PurePosixPath(picture)
        if known := by_stem.get(path.stem):
            found[picture] = max(known, key=lambda name: len({*path.parts[:-1]} & {*PurePosixPath(name).parts[:-1]}))
    return found


def parse_xml(content: bytes) -> ET.Element:
    """The root of an XML document. Raises DataError if it is too large, malformed or declares a document type."""
    if len(content) > XML_MB.bytes:
        raise DataError(f"It is larger than {XML_MB.value} MB.")
    parser = ET.XMLParser(target=_NoDoctype())
    try:
        parser.feed(content)
        return parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("It is no XML, or damaged.") from error


def read_frame(root: Path, frame: Path) -> Frame:
    """Annotation of one frame in a folder. Raises DataError if it is missing or cannot be read."""
    tree = FolderTree(root)
    try:
        return _frame(tree, frame.relative_to(root).as_posix(), f"Annotations/{frame.stem}.xml")
    except FileNotFoundError as error:
        raise DataError(NO_ANNOTATION) from error


def widened(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box with a margin, inside a picture of `size` (width, height)."""
    left, top, right, bottom = box
    margin = round(MARGIN * max(right - left, bottom - top))
    return max(0, left - margin), max(0, top - margin), min(size[0], right + margin), min(size[1], bottom + margin)


def _is_annotation(tree: Tree, name: str) -> bool:
    """Whether an XML file is a VOC annotation."""
    try:
        return parse_xml(tree.read(name)).tag == "annotation"
    except DataError:
        return False


def _frame(tree: Tree, picture: str, annotation: str) -> Frame:
    try:
        root = parse_xml(tree.read(annotation))
        size = (int(root.findtext("size/width", "")), int(root.findtext("size/height", "")))
        boxes: dict[str, list[tuple[int, int, int, int]]] = {}
        for thing in root.iter("object"):
            left, top, right, bottom = (round(value) for value in _box(thing))
            boxes.setdefault(thing.findtext("name", ""), []).append((left, top, right, bottom))
    except FileNotFoundError:
        raise
    except DataError as error:
        raise DataError(f"Its annotation {PurePosixPath(annotation).name}: {error}") from error
    except (ValueError, OverflowError, OSError) as error:
        raise DataError(f"Its annotation {PurePosixPath(annotation).name} cannot be read.") from error
    return Frame(Path(picture), size, boxes)


def _box(thing: ET.Element) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(thing.findtext(f"bndbox/{e}", "")) for e in ("xmin", "ymin", "xmax", "ymax"))
    return left, top, right, bottom


def _labelled_boxes(tree: Tree, annotations: dict[str, str]) -> Reading:
    """One item for each box; the object's name is the label."""
    items: list[Item] = []
    problems: dict[str, str] = {}
    splits = _splits(tree)
    for name in tree.pictures:
        stem = PurePosixPath(name).stem
        try:
            root = parse_xml(tree.read(annotations[name])) if name in annotations else None
        except DataError as error:
            problems[name] = f"its annotation cannot be used: {error}"
            continue
        if root is None:
            problems[name] = "it has no annotation"
            continue
        side = splits.get(stem) or side_above(name)
        whole = Item(name, tree.source(name), None, name, side, tree.name)
        for number, thing in enumerate(root.iter("object")):
            cut = _cut(whole, thing)
            if isinstance(cut, str):
                problems[f"{name}#{number}"] = cut
            else:
                items.append(cut)
    return Reading(tree.name, "VOC boxes", "XML files hold a box and a name for each cell", tuple(items), problems)


def _cut(whole: Item, thing: ET.Element) -> Item | str:
    label = (thing.findtext("name") or "").strip()
    try:
        box = _box(thing)
    except ValueError:
        return "its box is no four numbers"
    labelled = replace(whole, label=label or None)
    return cut_item(labelled, box)


def _splits(tree: Tree) -> dict[str, str]:
    """Side of each frame by its stem, from ImageSets/Main/train.txt and the like."""
    found: dict[str, str] = {}
    for name in tree.files:
        path = PurePosixPath(name)
        side = split_name(path.stem) if path.suffix == ".txt" and "ImageSets" in path.parts else None
        if side and path.stem.lower() != "trainval":
            for line in text_of(tree, name).splitlines():
                if words := line.split():
                    found.setdefault(PurePosixPath(words[0]).name, side)
    return found


def _labelled_frames(tree: Tree, annotations: dict[str, str], labels: dict[str, list[str]], table: str) -> Reading:
    """Crops of single, labelled white cells; all other frames are named in `problems`."""
    items, problems = [], {}
    for name in tree.pictures:
        stem = PurePosixPath(name).stem
        try:
            if name not in annotations:
                raise DataError(NO_ANNOTATION)
            found = _frame(tree, name, annotations[name])
        except DataError as error:
            problems[name] = str(error)
            continue
        cells = _white_cells(found)
        given = labels.get(stem, [])
        if len(given) != 1 or len(cells) != 1:
            problems[name] = _reason(len(cells), given)
            continue
        box = widened(cells[0], found.size)
        items.append(_framed(tree, name, box, given[0], stem))
    reason = f"XML files hold boxes, and {table} names the kind in each frame"
    return Reading(tree.name, "VOC frames", reason, tuple(items), problems)


def _white_cells(frame: Frame) -> Sequence[tuple[int, int, int, int]]:
    return [box for name, boxes in frame.boxes.items() if name == CELL or kind_of(name) == CELL_KIND for box in boxes]


def _framed(tree: Tree, name: str, box: tuple[int, int, int, int], label: str, stem: str) -> Item:
    source = tree.source(name)
    if isinstance(source, FileSource):
        return Item(f"{name}#0", FileSource(source.path, box), label, stem, None, tree.name)
    item = cut_item(Item(name, source, label, stem, None, tree.name), box)
    assert isinstance(item, Item), "a white cell's box was checked"
    return item


def _reason(cells: int, given: list[str]) -> str:
    if not given:
        return "It has no label."
    if len(given) > 1:
        return f"It has {len(given)} labels ({', '.join(given)}): which cell has which is not said."
    if cells == 0:
        return "It has a label but no box of a white cell."
    return f"It has one label and {cells} white cells: which cell it belongs to is not said."


def _labels(tree: Tree, name: str) -> dict[str, list[str]] | None:
    """Frame's stem → its labels, from labels.csv; an image named by number is the frame whose name ends in it.

    None if the table is of another kind.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(text_of(tree, name))))
    except csv.Error as error:
        raise DataError(f"{name} is no CSV text.") from error
    if not rows or not {"Image", "Category"} <= set(rows[0]):
        return None
    numbers = {}
    for frame in tree.pictures:
        stem = PurePosixPath(frame).stem
        if digits := re.search(r"(\d+)$", stem):
            numbers[digits.group(1).lstrip("0")] = stem
    found = {}
    for row in rows:
        image = (row["Image"] or "").strip()
        stem = numbers.get(image.lstrip("0"), "") if image.isdecimal() else PurePosixPath(image).stem
        if stem:
            found[stem] = [part.strip() for part in (row["Category"] or "").split(",") if part.strip()]
    return found
