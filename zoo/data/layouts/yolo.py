"""YOLO labels: a text file of relative boxes for each picture, and data.yaml or classes.txt with the class names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import yaml

from zoo.data.kinds import OTHERS
from zoo.data.layouts.boxes import cut_item
from zoo.data.layouts.registry import Reading, is_chosen, layout
from zoo.data.options import ReadOptions
from zoo.data.table import DataError, Item, side_above
from zoo.data.tree import Tree, text_of

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "names.txt")
NO_LABELS = frozenset((*NAME_FILES, "readme.txt", "train.txt", "val.txt", "test.txt", "requirements.txt", "notes.txt"))
MAX_YAML_BYTES = 1_000_000
MIN_POLYGON = 7  # words of a line: class and three points
NOT_A_BOX = "the line is no class number and box"


@layout("yolo", "YOLO boxes: a .txt file for each picture, with data.yaml or classes.txt")
def read_yolo(tree: Tree, options: ReadOptions) -> Reading | None:
    """Cells cut out of frames; None where no text file annotates a picture."""
    if tree.entry:
        return None
    texts = {
        name.removesuffix(PurePosixPath(name).suffix): name
        for name in tree.files
        if name.lower().endswith(".txt") and PurePosixPath(name).name.lower() not in NO_LABELS
    }
    labels = {picture: name for picture in tree.pictures if (name := _label_file(picture, texts))}
    if not labels or not any(_parse(text_of(tree, name)) for name in list(labels.values())[:20]):
        if is_chosen(options, "yolo"):
            raise DataError(f"{tree.name} has no .txt files with YOLO boxes beside its pictures, or in labels/.")
        return None
    names, source = _names(tree)
    items: list[Item] = []
    problems: dict[str, str] = {}
    for picture in tree.pictures:
        if picture not in labels:
            problems[picture] = "it has no label file"
            continue
        side = side_above(picture)
        whole = Item(picture, tree.source(picture), None, picture, side, tree.name)
        for number, line in enumerate(text_of(tree, labels[picture]).splitlines(), 1):
            if line.strip():
                cut = _cut(whole, line, names)
                if isinstance(cut, str):
                    problems[f"{labels[picture]}, line {number}"] = cut
                else:
                    items.append(cut)
    unnamed = {str(item.label) for item in items} - set(options.labels) if not names else set()
    if unnamed and OTHERS not in options.labels:
        numbers = ", ".join(sorted(unnamed))
        raise DataError(
            f"{tree.name} has YOLO boxes of the classes {numbers}, and no file names them. Add a classes.txt with one "
            "name a line, or the data.yaml, or name them with --labels."
        )
    reason = f"text files hold relative boxes, and {source} names the classes"
    return Reading(tree.name, "YOLO boxes", reason, tuple(items), problems)


def _label_file(picture: str, texts: Mapping[str, str]) -> str | None:
    """The label file of a picture: beside it, or below `labels` where it lies below `images`."""
    path = PurePosixPath(picture)
    places = [path.with_suffix("").as_posix()]
    for level, part in enumerate(path.parts[:-1]):
        if part.lower() == "images":
            places.append(
                PurePosixPath(*path.parts[:level], "labels", *path.parts[level + 1 :]).with_suffix("").as_posix()
            )
    places.append((path.parent / "labels" / path.name).with_suffix("").as_posix())
    return next((texts[place] for place in places if place in texts), None)


def _parse(text: str) -> bool:
    """Whether a text's first line is a class number and a box or polygon."""
    lines = text.strip().splitlines()
    return bool(lines) and _numbers(lines[0]) is not None


def _numbers(line: str) -> tuple[int, list[float]] | None:
    words = line.split()
    try:
        number, values = _whole_number(words[0]), [float(word) for word in words[1:]]
    except (ValueError, IndexError, OverflowError):
        return None
    # a box may be followed by a confidence; a polygon has pairs of numbers
    shaped = len(words) in (5, 6) or (len(words) >= MIN_POLYGON and len(words) % 2)
    return (number, values) if shaped and number >= 0 and all(-0.5 <= value <= 1.5 for value in values) else None


def _whole_number(word: str) -> int:
    """A class number, which some programs write as 0.0. Raises ValueError or OverflowError."""
    value = float(word)
    if not value.is_integer():
        raise ValueError(word)
    return int(value)


def _cut(whole: Item, line: str, names: Mapping[int, str]) -> Item | str:
    found = _numbers(line)
    if found is None:
        return NOT_A_BOX
    number, values = found
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    if names and number not in names:
        return f"class {number} has no name"
    label = names.get(number, str(number))
    return cut_item(replace(whole, label=label), box, relative=True)


def _names(tree: Tree) -> tuple[dict[int, str], str]:
    """Names of the class numbers, and the file that gives them; empty if there is none."""
    refused = None
    for name in tree.files:
        try:
            if name.lower().endswith((".yaml", ".yml")) and (found := _yaml_names(tree, name)):
                return found, name
        except DataError as error:  # another one may hold the names
            refused = refused or error
    for name in tree.files:
        if PurePosixPath(name).name.lower() in NAME_FILES:
            lines = [line.strip() for line in text_of(tree, name).splitlines()]
            return {number: line for number, line in enumerate(lines) if line}, name
    if refused:
        raise refused
    return {}, ""


def _yaml_names(tree: Tree, name: str) -> dict[int, str]:
    raw = tree.read(name)
    refusal = DataError(f"{name} is refused: it is larger than 1 MB, or uses anchors, which class names do not need.")
    if len(raw) > MAX_YAML_BYTES:
        raise refusal
    try:
        # an alias can multiply what a small file holds
        if b"&" in raw and any(isinstance(token, yaml.AnchorToken | yaml.AliasToken) for token in yaml.scan(raw)):
            raise refusal
        content: Any = yaml.safe_load(raw)
    except DataError:
        raise
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{name} is no YAML that can be read. It needs a list called names.") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        return {number: str(text) for number, text in enumerate(names)}
    if isinstance(names, dict):
        return {int(number): str(text) for number, text in names.items() if str(number).isdecimal()}
    return {}
