"""Layouts of data sets, one file a family; adding one is adding a registered function."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from zoo.data.archives import is_archive, open_archive, with_archives
from zoo.data.layouts.folders import read_folders
from zoo.data.layouts.grouping import group_by_pattern
from zoo.data.layouts.levels import ROLES, is_pattern
from zoo.data.layouts.registry import STRENGTHS, AmbiguousError, Layout, Reading, Strength, is_chosen, registered
from zoo.data.layouts.tables import agree, explain_tables, group_by_table
from zoo.data.options import AS_FOUND, ReadOptions
from zoo.data.table import DataError, DataSet, named
from zoo.data.tree import FolderTree, MemoryTree, Stored, Tree
from zoo.imaging.decode.formats import EXPORT, SLIDE_SUFFIXES

FILES = (".npz", ".parquet", ".csv", ".tsv", ".tab", ".xlsx", ".xlsm", ".json")

__all__ = ["AmbiguousError", "Layout", "layouts", "read_dataset", "read_files"]


@cache
def layouts() -> tuple[Layout, ...]:
    """All layouts, those that a file marks first."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return registered()


def read_dataset(place: str | Path, options: ReadOptions = AS_FOUND) -> DataSet:
    """Read the data set at `place`, a folder, file or archive, whatever its layout; pictures are decoded later.

    Args:
        place: Folder, table, `.npz`, ZIP or TAR.
        options: What the person says about it. Labels stay as they are in the data set (see `zoo.data.kinds`).

    Raises:
        AmbiguousError: It can be read in several ways.
        DataError: There is none, its layout is unknown, it is damaged, or it holds no picture at all.
    """
    path = Path(place).expanduser()
    try:
        path = path.resolve(strict=True)
        return _read(with_archives(_tree(path)), options)
    except FileNotFoundError as error:
        raise DataError(f"There is nothing at {error.filename or path}. Name the data set's folder or file.") from error
    except (OSError, RuntimeError) as error:
        # RuntimeError: what pathlib says of a loop of links before Python 3.13
        reason = getattr(error, "strerror", None) or "it is a loop of links"
        raise DataError(f"{getattr(error, 'filename', None) or path} cannot be read: {reason}.") from error


def read_files(name: str, files: Mapping[str, bytes], options: ReadOptions = AS_FOUND) -> DataSet:
    """Read uploaded files (relative name → content) as a data set called `name`; nothing is written to disk.

    Raises DataError as `read_dataset` does.
    """
    return _read(with_archives(MemoryTree(name, files)), options)


def _tree(path: Path) -> Tree:
    if path.is_dir():
        return FolderTree(path)
    if is_archive(path):
        return open_archive(Stored(path))
    if path.suffix.lower() in FILES:
        return FolderTree(path, path.name)
    known = "; ".join(one.text for one in layouts())
    raise DataError(f"{path} is no data set we know. We read: {known}; each also as .zip or .tar.")


def _read(tree: Tree, options: ReadOptions) -> DataSet:
    reading = _found(tree, options)
    if options.group_pattern:
        reading = group_by_pattern(reading, options)
    elif reading.layout not in ("npz", "Parquet", "manifest"):
        reading = group_by_table(reading, tree, options)
    if not any(item.label is not None for item in reading.items):
        reading = explain_tables(reading, tree, options)
    if not reading.items:
        raise _empty(tree, reading)
    if options.group and not any(item.group is not None for item in reading.items):
        raise DataError(
            f"--group {options.group} names no column of a table, and no folders called so, in {tree.place}. Name one, "
            "or use --group-pattern."
        )
    problems = {**tree.passed, **reading.problems}
    return DataSet(reading.name, tree.place, reading.layout, reading.items, problems, reading.reason)


def _found(tree: Tree, options: ReadOptions) -> Reading:
    if options.layout and not is_pattern(options.layout):
        return _chosen(tree, options)
    if options.layout:
        found = read_folders(tree, options)
        if found is None:
            raise DataError(
                f"--layout {options.layout} names levels of folders; {tree.place} has no picture in folders."
            )
        return found
    for strength in STRENGTHS:
        readings, doubts = _readings(tree, options, strength)
        if not readings and doubts:
            raise doubts[0]
        if readings:
            return _one_of(readings, tree)
    raise DataError(
        f"The data set {tree.place} is empty: there is no picture in it.{_hint(tree)}{_passed(tree.passed)}"
    )


def _hint(tree: Tree) -> str:
    """A sentence on files that may hold what is missing."""
    if any(name.lower().endswith(SLIDE_SUFFIXES) for name in tree.files):
        return f" It holds whole slides or a microscope's own files. {EXPORT}"
    archives = [name for name in tree.files if is_archive(Path(name))]
    if archives:
        return f" It holds {named(archives, 3)}: name the archive itself, or unpack it here."
    tables = [name for name in tree.files if name.lower().endswith((".csv", ".tsv", ".xlsx"))]
    return f" It holds tables ({named(tables, 3)}), but not the pictures that they name." if tables else ""


def _readings(tree: Tree, options: ReadOptions, strength: Strength) -> tuple[dict[str, Reading], list[AmbiguousError]]:
    """The readings by layouts of a strength, by name, and the doubts of those that cannot tell."""
    readings: dict[str, Reading] = {}
    doubts: list[AmbiguousError] = []
    for one in layouts():
        if one.strength != strength:
            continue
        try:
            reading = one.read(tree, options)
        except AmbiguousError as error:
            doubts.append(error)
        else:
            if reading is not None:
                readings[one.name] = reading
    return readings, doubts


def _chosen(tree: Tree, options: ReadOptions) -> Reading:
    """The reading by the layout that `--layout` names. Raises DataError if there is none, or it does not fit."""
    one = next((one for one in layouts() if is_chosen(options, one.name)), None)
    if one is None:
        names = ", ".join(one.name for one in layouts())
        raise DataError(
            f"There is no layout {options.layout}. There are: {names}; or give the roles of folder levels, such as "
            f"split/class, out of {', '.join(ROLES)}."
        )
    found = one.read(tree, options)
    if found is None:
        raise DataError(f"{tree.place} cannot be read as {one.name}: {one.text}.")
    return found


def _one_of(readings: dict[str, Reading], tree: Tree) -> Reading:
    if len(readings) == 1:
        return next(iter(readings.values()))
    if set(readings) == {"folders", "table"} and agree(readings["folders"], readings["table"], tree):
        return readings["folders"]
    told = "; ".join(f"--layout {name} ({reading.reason})" for name, reading in readings.items())
    raise AmbiguousError(f"{tree.place} can be read in {len(readings)} ways that differ. Choose: {told}.")


def _empty(tree: Tree, reading: Reading) -> DataError:
    return DataError(
        f"The data set {tree.place} is empty: there is no picture in it.{_passed({**tree.passed, **reading.problems})}"
    )


def _passed(problems: Mapping[str, str]) -> str:
    return f" {named([f'{name}: {why}' for name, why in problems.items()], 2)}." if problems else ""
