"""Folders whose names tell the class, the side of a split, or the patient; and pictures without any of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from zoo.data.layouts.levels import (
    CLASS,
    GROUP,
    IGNORED,
    SPLIT,
    Levels,
    find_levels,
    folders_of,
    forced_levels,
    is_mask,
    is_pattern,
)
from zoo.data.layouts.registry import Reading, is_chosen, layout
from zoo.data.options import ReadOptions
from zoo.data.table import Item, split_name
from zoo.data.tree import Tree, is_picture

NO_PICTURE = "no picture of a kind that is read"
OTHER_TABLES = (".xls", ".ods", ".numbers")
OTHER_TABLE = "a table of a kind that is not read; save it as .xlsx or .csv"
MASK = "a mask or annotation, beside pictures"


@layout(
    "folders",
    "class folders: CLASS/, split/CLASS, CLASS/split, with patient or slide folders above or below",
    "named",
)
def read_folders(tree: Tree, options: ReadOptions) -> Reading | None:
    """Pictures labelled by a level of folders; None if no level names classes."""
    if tree.entry or not tree.pictures:
        return None
    levels = _levels(tree, options)
    if CLASS not in levels.roles and not (is_pattern(options.layout) or is_chosen(options, "folders")):
        return None
    return _reading(tree, levels)


@layout("pictures", "pictures without labels", "plain")
def read_pictures(tree: Tree, options: ReadOptions) -> Reading | None:
    """Pictures without labels, in whatever folders."""
    if tree.entry or not tree.pictures:
        return None
    if is_chosen(options, "pictures"):
        return _reading(tree, Levels("", (), "--layout says so"))
    return _reading(tree, _levels(tree, options))


def _levels(tree: Tree, options: ReadOptions) -> Levels:
    pictures, _ = _without_masks(tree)
    return (
        forced_levels(pictures, options.layout) if is_pattern(options.layout) else find_levels(pictures, options.group)
    )


def _without_masks(tree: Tree) -> tuple[list[str], list[str]]:
    """Pictures, and those of them that are masks of others; all are pictures where there would be none left."""
    pictures = [name for name in tree.pictures if not is_mask(name)]
    if not pictures:
        return list(tree.pictures), []
    return pictures, [name for name in tree.pictures if is_mask(name)]


def _reading(tree: Tree, levels: Levels) -> Reading:
    pictures, masks = _without_masks(tree)
    problems = {
        name: OTHER_TABLE if name.lower().endswith(OTHER_TABLES) else NO_PICTURE
        for name in tree.files
        if not is_picture(name)
    } | dict.fromkeys(masks, MASK)
    items = []
    for name in pictures:
        inner = name.removeprefix(f"{levels.root}/") if levels.root else name
        item = _item(tree, levels, name, inner)
        if isinstance(item, str):
            problems[name] = item
        else:
            items.append(item)
    if CLASS in levels.roles:
        words = "class folders" if levels.roles == (CLASS,) else f"{levels.pattern} folders"
    else:
        words = "pictures without labels"
    return Reading(tree.name, words, levels.reason, tuple(items), problems)


def _item(tree: Tree, levels: Levels, name: str, inner: str) -> Item | str:
    """The picture, or why it is passed over."""
    folders = folders_of(inner)
    found = dict.fromkeys((CLASS, SPLIT, GROUP), None) | {}
    for role, folder in zip(levels.roles, folders, strict=False):
        if role != IGNORED and found[role] is None:
            found[role] = folder
    label, side, group = found[CLASS], found[SPLIT], found[GROUP]
    if label is None and CLASS in levels.roles and len(folders) > 0 and side is None:
        return "it lies above the folders of classes"
    origin = side or PurePosixPath(levels.root).name or tree.name
    split = (split_name(side) or side.lower()) if side else None
    return replace(Item(inner, tree.source(name), label, None, split, origin), group=group)
