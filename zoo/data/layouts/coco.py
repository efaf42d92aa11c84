"""COCO annotations: a JSON file of pictures, boxes and categories, one for each side of a split."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from zoo.data.layouts.boxes import NO_AREA, cut_item
from zoo.data.layouts.columns import GROUPS, PictureNames
from zoo.data.layouts.registry import Reading, is_chosen, layout
from zoo.data.options import ReadOptions
from zoo.data.table import DataError, Item, named, split_name
from zoo.data.tree import Tree

KEYS = ("images", "annotations", "categories")
SNIFF_BYTES = 200_000_000  # of a JSON file that is looked into
NO_ANNOTATION = "it is no annotation as it should be"
NOT_THERE = "the picture is not there, or several have its name"


@layout("coco", "COCO boxes: a .json file with images, annotations and categories")
def read_coco(tree: Tree, options: ReadOptions) -> Reading | None:
    """Cells cut out of frames; None where no JSON file annotates pictures."""
    found: dict[str, dict[str, Any]] = {}
    for name in tree.offered:
        if name.lower().endswith(".json") and (content := _content(tree, name)) is not None:
            found[name] = content
    if not found:
        if is_chosen(options, "coco"):
            raise DataError(f"{tree.name} has no .json file with images, annotations and categories.")
        return None
    pictures = PictureNames(tree)
    items: list[Item] = []
    problems: dict[str, str] = {}
    for name, content in found.items():
        try:
            _read(tree, name, content, pictures, items, problems)
        except DataError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{name} is no COCO file as it should be: {error!r}. Export it again.") from error
    if not tree.entry:
        used = {item.file.partition("#")[0] for item in items}
        problems |= {picture: "it has no box" for picture in tree.pictures if picture not in used}
    return Reading(
        tree.name, "COCO boxes", f"{named(list(found), 3)} holds boxes and categories", tuple(items), problems
    )


def _content(tree: Tree, name: str) -> dict[str, Any] | None:
    """The file's content if it has the keys of COCO."""
    try:
        raw = tree.read(name)
        if len(raw) > SNIFF_BYTES or not all(f'"{key}"'.encode() in raw for key in KEYS):
            return None
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    is_coco = isinstance(content, dict) and all(isinstance(content.get(key), list) for key in KEYS)
    return content if is_coco else None


def _read(
    tree: Tree, name: str, content: dict[str, Any], pictures: PictureNames, items: list[Item], problems: dict[str, str]
) -> None:
    side = _side(name)
    labels = {_id(entry["id"]): str(entry["name"]) for entry in content["categories"] if entry.get("name") is not None}
    _check_ids(name, "categories", content)
    _check_ids(name, "images", content)
    places: dict[str, Item] = {}
    for image in content["images"]:
        given = str(image["file_name"])
        found = pictures.find((PurePosixPath(name).parent / given).as_posix()) or pictures.find(given)
        if found is None:
            problems[given] = NOT_THERE
            continue
        group = next((str(image[key]) for key in GROUPS if image.get(key) is not None), None)
        part = side or _side(found)
        places[_id(image["id"])] = Item(found, tree.source(found), None, found, part, tree.name, group)
    for number, annotation in enumerate(content["annotations"]):
        try:
            cut = _cut(annotation, places, labels)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError):
            cut = NO_ANNOTATION
        if isinstance(cut, str):
            given_id = annotation.get("id", number) if isinstance(annotation, dict) else number
            problems[f"{name}, annotation {given_id}"] = cut
        else:
            items.append(cut)


def _id(value: Any) -> str:
    """An id by which images and categories are found: some programs write 1 here and "1" there."""
    return str(value)


def _check_ids(name: str, key: str, content: dict[str, Any]) -> None:
    """Refuse ids that are given twice: which of the two an annotation means is not known. Raises DataError."""
    counts = Counter(_id(entry["id"]) for entry in content[key])
    twice = [identity for identity, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{name} gives the id {twice[0]} to several of its {key}. Export it again.")


def _box(annotation: dict[str, Any]) -> Sequence[float] | None:
    """Left, top, width and height: the annotation's own, else of its polygons. None where there is neither."""
    box = annotation.get("bbox") or ()
    if len(box) == 4:
        return [float(value) for value in box]
    polygons = annotation.get("segmentation")
    if not isinstance(polygons, list) or not polygons:
        return None
    xs = [float(value) for polygon in polygons for value in polygon[::2]]
    ys = [float(value) for polygon in polygons for value in polygon[1::2]]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _cut(annotation: dict[str, Any], places: dict[str, Item], labels: dict[str, str]) -> Item | str:
    whole = places.get(_id(annotation["image_id"]))
    if whole is None:
        return NOT_THERE
    if annotation.get("iscrowd"):
        return "it marks a crowd, not a cell"
    category = _id(annotation["category_id"])
    if category not in labels:
        return f"category {category} has no name"
    box = _box(annotation)
    if box is None:
        return NO_AREA
    left, top, width, height = box
    label = labels[category]
    item = replace(whole, label=label)
    return cut_item(item, (left, top, left + width, top + height))


def _side(name: str) -> str | None:
    """Side of a split that a word of a file's name, or of the folders above it, stands for (instances_train2017)."""
    words = [word for part in reversed(PurePosixPath(name).parts) for word in re.findall(r"[A-Za-z]+", part)]
    return next((side for word in words if (side := split_name(word))), None)
