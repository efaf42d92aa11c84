"""Roles of folder levels: which level of folders names the class, which the side of a split, which the patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from zoo.data.kinds import kind_of
from zoo.data.layouts.registry import AmbiguousError
from zoo.data.table import DataError, named, natural, split_name

CLASS, SPLIT, GROUP, IGNORED = "class", "split", "group", "-"
ROLES = (CLASS, SPLIT, GROUP, IGNORED)
KNOWN_SHARE = 0.5  # of a level's names that must be known kinds for it to be the level of classes
FILLERS = frozenset(
    (
        *("images", "image", "imgs", "img", "pictures", "picture", "pics", "photos", "photo", "cells", "cell", "data"),
        *("dataset", "crops", "cropped", "patches", "tiles", "jpg", "jpeg", "png", "bmp", "tif", "tiff", "raw", "all"),
        *("original", "originals", "jpegimages", "input", "inputs", "rgb"),
    )
)
MASKS = frozenset(("mask", "masks", "annotation", "annotations", "segmentation", "segmentations", "groundtruth", "gt"))
GROUP_WORDS = (
    *("patient", "patients", "pat", "pt", "paciente", "paziente", "person", "individual", "subject", "subj", "donor"),
    *("case", "fall", "caso", "cas", "slide", "slides", "lame", "smear", "frottis", "ausstrich", "specimen", "sample"),
    *("probe", "wsi", "scan", "series", "animal", "mouse", "rat", "dog", "source"),
)
GROUP_NAME = re.compile(
    rf"^(?:(?:{'|'.join(GROUP_WORDS)})[\s_\-#.]*[a-z]?\d[\w\-]*|[a-z]{{1,4}}[-_ ]?\d{{2,}}|p\d+|\d{{4,}}[\w\-]*)$",
    re.IGNORECASE,
)
NUMBER = re.compile(r"^\d{1,3}$")


@dataclass(frozen=True)
class Levels:
    """Roles of the levels of folders below `root`, from the outermost on, and what they were told by."""

    root: str
    roles: tuple[str, ...]
    reason: str

    @property
    def pattern(self) -> str:
        """The roles as `--layout` takes them."""
        return "/".join(self.roles)


def folders_of(name: str) -> tuple[str, ...]:
    """The folders that a picture lies in, from the outermost on."""
    return tuple(name.split("/")[:-1])


def is_mask(name: str) -> bool:
    """Whether a picture lies in a folder of segmentation masks."""
    return _holds_masks(name.rpartition("/")[0])


@lru_cache(maxsize=4096)
def _holds_masks(folder: str) -> bool:
    return any(re.sub(r"[\W_]+", "", part).casefold() in MASKS for part in folder.split("/"))


def is_pattern(text: str) -> bool:
    """Whether `--layout` gives roles of folder levels."""
    return bool(text) and all(part in ROLES for part in text.split("/"))


def forced_levels(pictures: Sequence[str], pattern: str) -> Levels:
    """The levels as `--layout` gives them. Raises DataError if no picture lies so deep."""
    roles = tuple(pattern.split("/"))
    root: tuple[str, ...] = ()
    paths = [folders_of(name) for name in pictures]
    while paths and len({path[:1] for path in paths}) == 1 and all(len(path) > len(roles) for path in paths):
        root, paths = (*root, paths[0][0]), [path[1:] for path in paths]
    if not any(len(path) >= len(roles) for path in paths):
        deepest = max(map(len, paths), default=0)
        raise DataError(
            f"--layout {pattern} names {len(roles)} levels of folders; there are {deepest}. Give a role to each level, "
            f"out of {', '.join(ROLES)}."
        )
    return Levels("/".join(root), roles, "--layout says so")


def find_levels(pictures: Sequence[str], group: str = "") -> Levels:
    """The roles of the levels, told by the folders' names.

    Args:
        pictures: Relative names of pictures.
        group: First word of the names of folders that are groups; empty: they are found.

    Raises:
        AmbiguousError: The names can be taken in several ways.
    """
    root, paths = _unwrapped([folders_of(name) for name in pictures])
    depth = max(map(len, paths), default=0)
    names = [sorted({path[level] for path in paths if len(path) > level}, key=natural) for level in range(depth)]
    roles = [_own_role(found, group) for found in names]
    if roles and roles[0] == "" and _has_split_beside(paths, names[0]):
        raise _beside(names[0])
    roles = _with_class(roles, names, _lie_in_open_folders(paths, roles))
    while roles and roles[-1] == IGNORED:
        roles.pop()
        names.pop()
    told = [_told(role, found) for role, found in zip(roles, names, strict=True) if role != IGNORED]
    unused = [_unused(roles, level, found) for level, found in enumerate(names) if _is_unused(roles[level], found)]
    return Levels("/".join(root), tuple(roles), "; ".join([" and ".join(told) or "no folder names a class", *unused]))


def _is_unused(role: str, names: Sequence[str]) -> bool:
    """Whether several folders of a level may say something, and nothing is made of it."""
    return role == IGNORED and len(names) > 1 and not all(name.casefold() in FILLERS for name in names)


def _unused(roles: Sequence[str], level: int, names: Sequence[str]) -> str:
    pattern = "/".join(GROUP if number == level else role for number, role in enumerate(roles))
    return f"nothing is made of the folders {named(names, 3)}: if they are patients or slides, give --layout {pattern}"


def _unwrapped(paths: list[tuple[str, ...]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The folders that only wrap the data set, as archives have them, and the paths below them."""
    root: tuple[str, ...] = ()
    while paths and all(len(path) > 1 for path in paths) and len({path[0] for path in paths}) == 1:
        first = paths[0][0]
        if split_name(first) or kind_of(first) or GROUP_NAME.match(first):
            break
        root, paths = (*root, first), [path[1:] for path in paths]
    return root, paths


def _own_role(names: Sequence[str], group: str) -> str:
    """The role that a level's names tell by themselves, or "" where they may be classes or groups."""
    if group and sum(name.casefold().startswith(group.casefold()) for name in names) > len(names) / 2:
        return GROUP
    if all(split_name(name) for name in names):
        return SPLIT
    return IGNORED if all(name.casefold() in FILLERS for name in names) else ""


def _has_split_beside(paths: Sequence[tuple[str, ...]], names: Sequence[str]) -> bool:
    """Whether folders called train or test hold folders, and lie beside others that hold pictures."""
    deep = {path[0] for path in paths if len(path) > 1}
    sides = {name for name in names if split_name(name)}
    return (
        bool(sides & deep)
        and not (set(names) - sides) & deep
        and any(kind_of(p[1]) for p in paths if p[0] in sides & deep)
    )


def _beside(names: Sequence[str]) -> AmbiguousError:
    sides = [name for name in names if split_name(name)]
    others = [name for name in names if not split_name(name)]
    return AmbiguousError(
        f"The folders {named(sides)} hold folders of classes, and {named(others)} beside them holds pictures. Choose: "
        f"--layout split/class passes over {named(others)}; --layout class takes all of them as classes."
    )


def _lie_in_open_folders(paths: Sequence[tuple[str, ...]], roles: Sequence[str]) -> int | None:
    """The first level without a role of its own whose folders hold pictures directly, where others lie deeper."""
    free = next((level for level, role in enumerate(roles) if role == ""), None)
    if free is None or len(roles) == free + 1:
        return None
    return free if any(len(path) == free + 1 for path in paths) else None


def _with_class(roles: list[str], names: list[list[str]], open_level: int | None) -> list[str]:
    """The roles, with one level of classes. Raises AmbiguousError if it is not clear which."""
    free = [level for level, role in enumerate(roles) if role == ""]
    chosen = _class_level(free, names, open_level)
    for level in free:
        if level == chosen:
            roles[level] = CLASS
        else:
            found = names[level]
            grouped = sum(bool(GROUP_NAME.match(name) or NUMBER.match(name)) for name in found) > len(found) / 2
            roles[level] = GROUP if grouped else IGNORED
    if chosen is not None or not free:
        return roles
    raise _unclear(roles, names, free)


def _class_level(free: list[int], names: list[list[str]], open_level: int | None) -> int | None:
    known = [level for level in free if _known_share(names[level]) >= KNOWN_SHARE]
    if len(known) == 1:
        return known[0]
    if open_level is not None:
        return open_level
    likely = known or [level for level in free if not _is_grouped(names[level])]
    several = [level for level in likely if len(names[level]) > 1] or likely
    if len(free) == 1 and _is_numbered(names[free[0]]):
        return free[0]  # classes often have numbers for names
    return several[0] if len(several) == 1 else None


def _known_share(names: Sequence[str]) -> float:
    return sum(kind_of(name) is not None for name in names) / len(names)


def _is_grouped(names: Sequence[str]) -> bool:
    return sum(bool(GROUP_NAME.match(name) or NUMBER.match(name)) for name in names) > len(names) / 2


def _is_numbered(names: Sequence[str]) -> bool:
    return all(NUMBER.match(name) for name in names)


def _unclear(roles: list[str], names: list[list[str]], free: list[int]) -> AmbiguousError:
    def pattern(chosen: int | None) -> str:
        given = [role or (CLASS if level == chosen else GROUP) for level, role in enumerate(_blank(roles, free))]
        return "/".join(given)

    readings = [f"--layout {pattern(level)} takes {named(names[level], 3)} as classes" for level in free]
    if len(free) == 1:
        readings.append(f"--layout {pattern(None)} takes them as patients or slides of pictures without a label")
        return AmbiguousError(
            f"The folders {named(names[free[0]], 3)} look like patients or slides, not like classes. Choose: "
            f"{'; '.join(readings)}. A table that names each picture's label may lie beside them."
        )
    return AmbiguousError(
        f"{len(free)} levels of folders could be the classes. Choose: {'; '.join(readings)}. (- ignores a level.)"
    )


def _blank(roles: list[str], free: list[int]) -> list[str]:
    return ["" if level in free else role for level, role in enumerate(roles)]


def _told(role: str, names: Sequence[str]) -> str:
    what = {CLASS: "classes", SPLIT: "sides of a split", GROUP: "patients or slides"}[role]
    return f"the folders {named(names, 3)} are {what}"
