"""Tables (CSV, TSV, Excel, Parquet) that name pictures and their labels, and tables that only group pictures."""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from zoo.data.archives import check_zip
from zoo.data.kinds import key_of, kind_of
from zoo.data.layouts.boxes import Box, cut_item
from zoo.data.layouts.columns import CENTRE, EDGES, YES, Columns, PictureNames, find_columns
from zoo.data.layouts.parquet import holds_pictures
from zoo.data.layouts.registry import AmbiguousError, Reading, is_chosen, layout
from zoo.data.options import ReadOptions
from zoo.data.table import DataError, FileSource, Item, Source, named, side_above, split_name
from zoo.data.tree import FolderTree, Stored, Tree, is_picture, text_of
from zoo.lazy import lazy_module
from zoo.limits import TABLE_ROWS

if TYPE_CHECKING:
    import openpyxl
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    from openpyxl.utils import exceptions as openpyxl_errors
else:
    openpyxl = lazy_module("openpyxl")
    openpyxl_errors = lazy_module("openpyxl.utils.exceptions")
    pd = lazy_module("pandas")
    pa = lazy_module("pyarrow")
    pq = lazy_module("pyarrow.parquet")

TEXTS, SHEETS = (".csv", ".tsv", ".tab"), (".xlsx", ".xlsm")
SUFFIXES = (*TEXTS, *SHEETS, ".parquet")
DELIMITERS = ",;\t|"
MAX_TABLES = 50  # of a folder; where there are more, they are no tables of pictures
NOT_THERE = "the picture that it names is not there, or several have its name"
TWICE = "it names a picture a second time; the first row counts"
EXCEL_MARK = re.compile(r"sep=(.)\n", re.IGNORECASE)  # Excel's own first line
HEAD_LINES = 20  # by which delimiter and header are told
UNSAFE_XML = (b"<!DOCTYPE", b"<!ENTITY")


@dataclass(frozen=True)
class Found:
    """A table that names pictures."""

    name: str
    table: pd.DataFrame
    columns: Columns


@layout("table", "a table (.csv, .tsv, .xlsx, .parquet) that names each picture's file and label", "named")
def read_table(tree: Tree, options: ReadOptions) -> Reading | None:
    """Pictures with the labels of a table, or of one table for each side of a split; None if there is none."""
    named_directly = tree.entry is not None and PurePosixPath(tree.entry).suffix.lower() in SUFFIXES
    if tree.entry is not None and not named_directly:
        return None
    if (
        named_directly
        and tree.entry
        and tree.entry.lower().endswith(".parquet")
        and holds_pictures(tree.stored(tree.entry))
    ):
        return None
    label = options.layout.partition(":")[2] if is_chosen(options, "table") else ""
    pictures = PictureNames(tree)
    found, refused = [], []
    for name in _tables(tree):
        try:
            table = load_table(tree, name)
        except DataError as error:
            if named_directly:
                raise
            refused.append(str(error))
            continue
        columns = find_columns(table, pictures.beside(name), options.group, label)
        if columns is None and named_directly:
            columns = find_columns(table, _Outside(tree), options.group, label)
        if columns is not None and (columns.label or columns.kinds):
            found.append(Found(name, table, columns))
        else:
            refused.append(_why_not(name, table, columns))
    if not found:
        if named_directly or is_chosen(options, "table"):
            raise DataError(refused[0] if refused else f"There is no table in {tree.name}.")
        return None
    return _reading(tree, _chosen(tree, found), pictures)


def group_by_table(reading: Reading, tree: Tree, options: ReadOptions) -> Reading:
    """The reading, with groups from a table beside the pictures that names pictures and, for example, patients."""
    pictures = PictureNames(tree)
    for name in _tables(tree) if not tree.entry else ():
        try:
            table = load_table(tree, name)
            beside = pictures.beside(name)
            columns = find_columns(table, beside, options.group)
        except DataError:
            continue  # it is no table of pictures; the reading says what was passed over
        if columns is None or columns.group is None:
            continue
        rows = zip(table[columns.file], table[columns.group], strict=True)
        groups = {found: _text(group) for file, group in rows if (found := beside.find(str(file)))}
        items = [
            replace(item, group=groups.get(pictures.find(item.file.partition("#")[0]) or "", item.group))
            for item in reading.items
        ]
        problems = {key: why for key, why in reading.problems.items() if key != name}
        told = f"{reading.reason}; the column {columns.group} of {name} names groups"
        return replace(reading, items=tuple(items), problems=problems, reason=told)
    return reading


def explain_tables(reading: Reading, tree: Tree, options: ReadOptions) -> Reading:
    """The reading, with the reason why each table beside unlabelled pictures gives them no label."""
    pictures = PictureNames(tree)
    reasons: dict[str, str] = {}
    for name in _tables(tree) if not tree.entry else ():
        if name in reading.problems:
            try:
                table = load_table(tree, name)
                reasons[name] = _why_not(name, table, find_columns(table, pictures.beside(name), options.group))
            except DataError as error:
                reasons[name] = str(error)
    return replace(reading, problems={**reading.problems, **reasons})


def agree(folders: Reading, table: Reading, tree: Tree) -> bool:
    """Whether folders and a table give the pictures that both know the same labels, in whatever words."""
    pictures = PictureNames(tree)
    told = {item.file: item.label for item in table.items}
    pairs = [(item.label, told.get(pictures.find(item.file) or "")) for item in folders.items]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    return bool(both) and all(a == b or (kind_of(a) or key_of(a)) == (kind_of(b) or key_of(b)) for a, b in both)


def load_table(tree: Tree, name: str) -> pd.DataFrame:
    """A table with all values as text. Raises DataError if it cannot be read."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in SHEETS:
        return _sheet(tree.read(name), name)
    if suffix == ".parquet":
        try:
            return pq.read_table(io.BytesIO(tree.read(name))).to_pandas().map(lambda value: _text(value) or "")
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{name} is no Parquet table, or a damaged one.") from error
    return _delimited(text_of(tree, name), name)


def _delimited(text: str, name: str) -> pd.DataFrame:
    """A text table with the delimiter that cuts its first lines into most columns, equally."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    declared = EXCEL_MARK.match(lines)
    lines = lines[declared.end() :] if declared else lines
    if not lines.strip():
        raise DataError(f"{name} is empty.")
    if "\0" in lines:
        raise DataError(f"{name} is no table that can be read. Save it as CSV in UTF-8.")
    try:
        best = declared[1] if declared else max(DELIMITERS, key=lambda mark: _regularity(lines, mark))
        rows = list(csv.reader(io.StringIO(lines), delimiter=best))
    except csv.Error as error:
        raise DataError(f"{name} is no table that can be read ({error}). Save it as CSV in UTF-8.") from error
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    return _frame(rows, name)


def _regularity(text: str, mark: str) -> tuple[float, int]:
    """The share of the first lines that have the most frequent number of columns, and that number."""
    head = "\n".join(text.split("\n", HEAD_LINES)[:HEAD_LINES])
    widths = Counter(len(row) for row in csv.reader(io.StringIO(head), delimiter=mark) if row)
    width, count = max(widths.items(), key=lambda pair: pair[1], default=(0, 0))
    return (count / widths.total() if width > 1 else 0.0), width


def _frame(rows: list[list[str]], name: str) -> pd.DataFrame:
    """The table below its header, which is the first row as wide as most; titles above it are left out."""
    widths = [max((n for n, cell in enumerate(row, 1) if cell.strip()), default=0) for row in rows[:HEAD_LINES]]
    usual = Counter(widths).most_common(1)[0][0] if widths else 0
    start = next((number for number, width in enumerate(widths) if width >= usual), 0)
    header, rows = (rows[start], rows[start + 1 :]) if rows else ([], [])
    if any(is_picture(cell.strip()) for cell in header):  # there is no header
        header, rows = [""] * len(header), [header, *rows]
    if len(rows) > TABLE_ROWS.value:
        raise DataError(f"{name} has more than {TABLE_ROWS.value:,} rows.")
    names: list[str] = []
    for number, given in enumerate(header, 1):
        clean = given.strip() or f"column {number}"
        names.append(clean if clean not in names else f"{clean} ({number})")
    width = len(names)
    return pd.DataFrame([(row + [""] * width)[:width] for row in rows], columns=names, dtype=str)


def _sheet(content: bytes, name: str) -> pd.DataFrame:
    """The longest sheet of an Excel workbook that has two columns or more. Raises DataError."""
    try:
        _refuse_hostile(content, name)
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        try:
            longest: list[list[str]] = []
            for sheet in book.worksheets:
                rows = [
                    [_text(value) or "" for value in row] for row in _limited(sheet.iter_rows(values_only=True), name)
                ]
                rows = [row for row in rows if any(row)]
                if len(rows) > len(longest) and max(map(len, rows)) > 1:
                    longest = rows
            if longest:
                return _frame(longest, name)
        finally:
            book.close()
    except DataError:
        raise
    except (
        zipfile.BadZipFile,
        openpyxl_errors.InvalidFileException,
        KeyError,
        ValueError,
        TypeError,
        OSError,
        SyntaxError,
    ) as error:
        raise DataError(f"{name} is no Excel workbook, or a damaged one. Save it again as .xlsx or .csv.") from error
    raise DataError(f"{name} has no sheet with a table of two columns or more.")


def _limited(rows: Iterator[tuple[Any, ...]], name: str) -> Iterator[tuple[Any, ...]]:
    for number, row in enumerate(rows):
        if number > TABLE_ROWS.value:
            raise DataError(f"{name} has more than {TABLE_ROWS.value:,} rows.")
        yield row


def _refuse_hostile(content: bytes, name: str) -> None:
    """Refuse a workbook that is a bomb, or whose XML declares entities. Raises DataError."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check_zip(archive, Stored(Path(name), content))
        for info in archive.infolist():
            with archive.open(info) as member:
                if any(mark in member.read(4096) for mark in UNSAFE_XML):
                    raise DataError(f"{name} is refused: its XML declares entities, which tables do not need.")


class _Outside(PictureNames):
    """Files that a table names by paths from its folder, or in full; for a table that the person named."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self._root = tree.root if isinstance(tree, FolderTree) else None

    def find(self, value: str) -> str | None:
        """The path, if there is a file; None in archives and uploads."""
        path = Path(value.strip().replace("\\", "/"))
        if self._root is None or not value.strip() or len(value) > 4000 or "\0" in value or not path.is_absolute():
            return super().find(value)
        return path.as_posix() if path.is_file() else super().find(value)


def _tables(tree: Tree) -> list[str]:
    names = [name for name in tree.offered if PurePosixPath(name).suffix.lower() in SUFFIXES]
    names = [name for name in names if not name.lower().endswith(".parquet") or tree.entry]
    return names if len(names) <= MAX_TABLES else []


def _why_not(name: str, table: pd.DataFrame, columns: Columns | None) -> str:
    there = named(list(map(str, table.columns)), 12) or "none"
    if columns is None:
        return f"{name} has the columns {there}; none of them names pictures beside the table."
    return (
        f"{name} has the columns {there}; {columns.file} names pictures, and none was recognised as their label. "
        "Choose: --layout table:COLUMN."
    )


def _chosen(tree: Tree, found: list[Found]) -> list[Found]:
    """The one table, or one for each side of a split. Raises AmbiguousError if there are several."""
    sides = [split_name(PurePosixPath(one.name).stem) or _side_in(one.name) for one in found]
    if len(found) == 1 or (all(sides) and len(set(sides)) == len(sides)):
        return found
    names = [one.name for one in found]
    raise AmbiguousError(
        f"{tree.name} has several tables with labels: {named(names)}. Name the one to read instead of the folder, for "
        f"example {tree.place / names[0]}."
    )


def _side_in(name: str) -> str | None:
    """Side of a split that a word of a table's name stands for, or the folder that it lies in."""
    path = PurePosixPath(name)
    words = path.stem.replace("-", "_").split("_")
    return next((side for word in words if (side := split_name(word))), None) or side_above(name)


def _reading(tree: Tree, tables: list[Found], pictures: PictureNames) -> Reading:
    items: list[Item] = []
    problems: dict[str, str] = {}
    seen: set[str] = set()
    for one in tables:
        side = _side_in(one.name) if len(tables) > 1 else None
        beside = pictures.beside(one.name)
        for number, row in enumerate(one.table.to_dict("records"), 1):
            place = f"row {number}" if len(tables) == 1 else f"{one.name}, row {number}"
            item = _item(tree, one, {str(key): value for key, value in row.items()}, beside, side)
            if isinstance(item, Item) and item.file in seen:
                item = TWICE
            if isinstance(item, str):
                problems[place] = item
                continue
            seen.add(item.file)
            items.append(item)
    names = [one.name for one in tables]
    if not tree.entry:
        named_pictures = {item.file.partition("#")[0] for item in items}
        problems |= {name: "the table does not name it" for name in tree.pictures if name not in named_pictures}
    return Reading(tree.name, "manifest", f"in {named(names)}, {tables[0].columns.told()}", tuple(items), problems)


def _item(tree: Tree, one: Found, row: dict[str, Any], pictures: PictureNames, side: str | None) -> Item | str:
    """The picture of a row, or why the row is passed over."""
    columns = one.columns
    name = _text(row[columns.file])
    if name is None:
        return "it names no file"
    found = pictures.find(name)
    source: Source
    if found is not None:
        source = tree.source(found)
    elif tree.entry and (outside := _Outside(tree).find(name)):
        found, source = outside, FileSource(Path(outside))
    else:
        return NOT_THERE
    label = next((kind for kind in columns.kinds if row[kind].strip().lower() in YES), None)
    label = _text(row[columns.label]) if columns.label else label
    given = _text(row[columns.split]) if columns.split else side or side_above(found)
    item = Item(
        found,
        source,
        label,
        _text(row[columns.cell]) if columns.cell else None,
        (split_name(given) or given) if given else None,
        (_text(row[columns.origin]) if columns.origin else None) or PurePosixPath(one.name).stem,
        _text(row[columns.group]) if columns.group else None,
    )
    if not columns.box:
        return item
    try:
        numbers = [float(row[name].strip().replace(",", ".")) for name in columns.box]
    except ValueError:
        return "its box is no four numbers"
    return cut_item(item, _edges(numbers, columns.box_kind), relative=max(map(abs, numbers)) <= 1)


def _edges(numbers: Sequence[float], kind: str) -> Box:
    """Left, top, right and bottom of a box."""
    left, top, right, bottom = numbers
    if kind == EDGES:
        return left, top, right, bottom
    width, height = right, bottom
    if kind == CENTRE:
        left, top = left - width / 2, top - height / 2
    return left, top, left + width, top + height


def _text(value: Any) -> str | None:
    """The value as text; empty, missing and not-a-number mean None."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text or None
