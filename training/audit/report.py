"""The audit as a whole: all checks in turn, then a folder with the report, written whole or not at all."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from training.audit import page
from training.audit.copies import Copies, find_copies
from training.audit.embedding import with_embedding
from training.audit.label_errors import LabelErrors, find_label_errors
from training.audit.measure import Measured, measure
from training.audit.originals import Cells, cells_of_copies, cells_of_originals
from training.audit.outliers import Outliers, components, find_outliers
from training.audit.shortcuts import alarms, find_shortcuts
from zoo.audits.reports import (
    PAGE,
    PICTURES,
    REPORT,
    Audit,
    Duplicates,
    Report,
    SourceCells,
    read_report,
    write_pictures,
)
from zoo.data import DataError, DataSet
from zoo.data.table import named, side
from zoo.entry import Entry
from zoo.files import atomic_folder, write_json, write_text

BLANK = 2.0  # standard deviation of all channels below which a picture shows nothing
USUAL = 0.5  # share of pictures with one size from which other sizes are called wrong
RANDOM_TEST = 0.2  # test share of the random split whose leak is told
STAMPED = ("scikit-learn", "cleanlab", "opencv-python-headless", "torch", "numpy")


@dataclass(frozen=True)
class Findings:
    """Everything the audit found out, by row of the data set."""

    data: DataSet
    measured: Measured
    copies: Copies
    cells: Cells
    outliers: Outliers
    label_errors: LabelErrors
    shortcuts: dict[str, float]


def look_for_copies(data: DataSet, cache: Path, originals: Path | None) -> tuple[Measured, Copies, Cells]:
    """Measure `data` and find its source cells, against `originals` if they are there; all that a split needs.

    Raises DataError if no picture can be read, or no original.
    """
    measured = measure(data, cache)
    if not measured.readable.any():
        reasons = [f"{i.file}: {why}" for i, why in zip(data.items, measured.problems, strict=True) if why]
        raise DataError(f"None of the {len(data):,} pictures can be read. {named(reasons, 2)}")
    copies = find_copies(measured)
    cells = cells_of_originals(measured, copies, originals) if originals else cells_of_copies(measured, copies)
    return measured, copies, cells


def run(data: DataSet, embedder: Entry, cache: Path, originals: Path | None) -> Findings:
    """The whole audit; the zoo's model `embedder` tells what is alike. Raises DataError as `look_for_copies` does."""
    measured, copies, cells = look_for_copies(data, cache, originals)
    measured = with_embedding(measured, data.items, embedder)
    labels = [item.label for item in data.items]
    subject = np.unique(np.array(cells.subject), return_inverse=True)[1]
    outliers = find_outliers(measured, subject)
    blank = np.flatnonzero(is_blank(measured)).tolist()
    errors = find_label_errors(measured, labels, subject, leave=(*outliers.rows, *blank))
    return Findings(data, measured, copies, cells, outliers, errors, find_shortcuts(measured, labels, subject))


def is_blank(measured: Measured) -> np.ndarray:
    """Readable pictures of one colour, bool (n,)."""
    return measured.readable & (np.asarray(measured["spread"]).max(1) < BLANK)


def write(out: Path, found: Findings, embedder: Entry, thumbnails: bool = True) -> Audit:
    """Write the report folder `out`, whole or not at all; without thumbnails it holds no picture."""
    report = assemble(found, embedder)
    pictures = picture_table(found)
    if thumbnails:
        rows = range(len(pictures))
        pictures["thumbnail"] = [thumbnail(found.measured, row) for row in rows]
    with atomic_folder(out) as folder:
        write_json(folder / REPORT, report.model_dump(mode="json"))
        write_pictures(folder / PICTURES, pictures)
        write_text(folder / PAGE, page.render(report, pictures))
    return read_report(out)


def assemble(found: Findings, embedder: Entry) -> Report:
    """The findings as the report that is written."""
    data, measured = found.data, found.measured
    files = [item.file for item in data.items]
    readable = measured.readable
    sizes = Counter(_size(measured, row) for row in np.flatnonzero(readable).tolist())
    usual, count = sizes.most_common(1)[0]
    odd = usual if count >= USUAL * readable.sum() else None
    classes = Counter(item.label for item in data.items if item.label is not None)
    splits: dict[str, Counter] = defaultdict(Counter)
    for item in data.items:
        if item.split:
            splits[item.split][item.label or "no label"] += 1
    ordered = {label: classes[label] for label in data.labels}
    single = "There are fewer than two labels: shortcuts and label errors were not asked for."
    return Report(
        schema_version=1,
        name=data.name,
        layout=data.layout,
        data_hash=data.hash,
        images=len(data),
        classes=ordered,
        splits={name: dict(counts) for name, counts in sorted(splits.items(), key=lambda s: -s[1].total())},
        unlabelled=[item.file for item in data.items if item.label is None],
        unreadable=[file for file, ok in zip(files, readable, strict=True) if not ok],
        unreadable_reasons={file: why for file, why in zip(files, measured.problems, strict=True) if why},
        blank=_names(files, np.flatnonzero(is_blank(measured))),
        wrong_size=[files[row] for row in np.flatnonzero(readable) if odd and _size(measured, int(row)) != odd],
        wrong_mode=[files[row] for row in np.flatnonzero(readable) if str(measured["mode"][row]) != "RGB"],
        sizes=dict(sizes.most_common(20)),
        formats=dict(Counter(str(kind) for kind in np.asarray(measured["format"])[readable])),
        problems=dict(data.problems),
        duplicates=_duplicates(found),
        source_cells=_source_cells(found),
        originals=bool(found.cells.frames),
        leak=leak(found),
        random_leak=random_leak(found),
        outliers=_names(files, found.outliers.rows),
        marked=_names(files, found.outliers.marked),
        label_errors=_names(files, found.label_errors.rows),
        likelier={
            files[row]: label for row, label in zip(found.label_errors.rows, found.label_errors.likelier, strict=True)
        },
        label_accuracy=found.label_errors.accuracy,
        shortcuts=found.shortcuts,
        alarms=alarms(found.shortcuts, len(ordered)),
        embedder=embedder.id,
        versions={name: version(name) for name in STAMPED},
        notes=[*([] if len(ordered) > 1 else [single]), *data.notes],
        layout_reason=data.reason,
        groups=data.groups,
        crossing_groups=crossing_groups(data),
    )


def crossing_groups(data: DataSet) -> list[str]:
    """Patients or slides with pictures on two sides of the data set's own split."""
    sides: dict[str, set[str]] = defaultdict(set)
    for item in data.items:
        where = side(item.split)
        if item.group is not None and where is not None:
            sides[item.group].add(where)
    return sorted(group for group, where in sides.items() if len(where) > 1)


def leak(found: Findings) -> dict[str, float]:
    """Label → share of test pictures whose subject is in training, in the data set's own split; empty without one."""
    sides = [side(item.split) for item in found.data.items]
    trained = {subject for subject, where in zip(found.cells.subject, sides, strict=True) if where == "train"}
    if not trained or "test" not in sides:
        return {}
    hits: dict[str, list[bool]] = defaultdict(list)
    for item, subject, where in zip(found.data.items, found.cells.subject, sides, strict=True):
        if where == "test" and item.label is not None:
            hits[item.label].append(subject in trained)
    return {label: float(np.mean(values)) for label, values in sorted(hits.items())}


def random_leak(found: Findings) -> dict[str, float]:
    """Label → share of test pictures that a random split would leave a copy of in training, in expectation."""
    copies = Counter(found.cells.subject)
    chances: dict[str, list[float]] = defaultdict(list)
    for item, subject in zip(found.data.items, found.cells.subject, strict=True):
        if item.label is not None:
            # all of its copies are tested with it, or it leaks
            chances[item.label].append(1 - RANDOM_TEST ** (copies[subject] - 1))
    return {label: float(np.mean(values)) for label, values in sorted(chances.items())}


def _duplicates(found: Findings) -> Duplicates:
    files = [item.file for item in found.data.items]
    near = found.copies.near
    by_subject = _groups(found.cells.subject)
    sides = [side(item.split) for item in found.data.items]
    return Duplicates(
        pixel=[_names(files, group) for group in found.copies.identical],
        near=[_names(files, group) for group in near],
        contradictory=[_names(files, group) for group in by_subject if len(_labels(found, group)) > 1],
        crossing=[_names(files, g) for g in by_subject if _crosses([sides[row] for row in g])],
    )


def _source_cells(found: Findings) -> SourceCells:
    items, cells = found.data.items, found.cells
    of = {item.file: cell for item, cell in zip(items, cells.cell, strict=True) if cell is not None}
    members: dict[str, tuple[int, ...]] = {}
    for group in _groups(cells.cell):
        cell = cells.cell[group[0]]
        if cell is not None:
            members[cell] = group
    for row, cell in enumerate(cells.cell):
        if cell is not None and cell not in members:
            members[cell] = (row,)
    conflicting = sorted(cell for cell, rows in members.items() if len(_labels(found, rows)) > 1)
    across = sorted(c for c, rows in members.items() if _crosses([side(items[row].split) for row in rows]))
    by_split = Counter(where for rows in members.values() for where in {items[row].split for row in rows} if where)
    related, related_conflicts, related_across = [], [], []
    for group in _groups(cells.subject):
        # only originals can tell a second photograph from copies whose colours were changed
        names = sorted(cells.frames.intersection(filter(None, (cells.cell[row] for row in group))))
        if len(names) < 2:
            continue
        related.append(names)
        if len(_labels(found, group)) > 1:
            related_conflicts.append(names)
        if _crosses([side(items[row].split) for row in group]):
            related_across.append(names)
    return SourceCells(
        assigned=len(of),
        groups=len(members),
        conflicts=len(conflicting),
        crossing=len(across),
        of=of,
        by_split=dict(by_split),
        conflicting=conflicting,
        across=across,
        subjects=len(set(cells.subject)),
        related=related,
        related_conflicts=related_conflicts,
        related_across=related_across,
    )


def picture_table(found: Findings) -> pd.DataFrame:
    """One row a picture: what it is, what was found of it, and where its embedding lies."""
    measured, data = found.measured, found.data
    table = data.table[["file", "label", "split"]].copy()
    table["cell"] = list(found.cells.cell)
    table["subject"] = np.unique(np.array(found.cells.subject), return_inverse=True)[1].astype(np.int32)
    flags = np.full(len(data), "", object)
    for name, rows in (
        ("marked", found.outliers.marked),
        ("label error", found.label_errors.rows),
        ("outlier", found.outliers.rows),
        ("unreadable", np.flatnonzero(~measured.readable)),
    ):
        flags[np.array(rows, np.int64)] = name
    table["flag"] = flags
    likelier = np.full(len(data), None, object)
    likelier[np.array(found.label_errors.rows, np.int64)] = list(found.label_errors.likelier)
    table["likelier"] = likelier
    table["score"] = found.outliers.score
    places = components(np.asarray(measured["embedding"], np.float32), 3, 0)
    for axis, column in enumerate("xyz"):
        values = places[:, axis] if axis < places.shape[1] else np.zeros(len(data))
        table[column] = values.astype(np.float32)
    return table


def thumbnail(measured: Measured, row: int) -> bytes:
    """A picture's thumbnail as JPEG, in its own proportions; empty where it could not be read."""
    width, height = int(measured["width"][row]), int(measured["height"][row])
    if not width or not height:
        return b""
    small = Image.fromarray(np.asarray(measured["thumbnail"][row]))
    longest = max(width, height)
    small = small.resize((max(1, small.width * width // longest), max(1, small.height * height // longest)))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _groups(keys: Sequence) -> list[tuple[int, ...]]:
    found = defaultdict(list)
    for row, key in enumerate(keys):
        found[key].append(row)
    return sorted((tuple(rows) for rows in found.values() if len(rows) > 1), key=lambda rows: (-len(rows), rows))


def _labels(found: Findings, rows: Sequence[int]) -> set[str]:
    return {label for row in rows if (label := found.data.items[row].label) is not None}


def _crosses(sides: Sequence[str | None]) -> bool:
    return len(set(sides) - {None}) > 1


def _names(files: Sequence[str], rows: Sequence[int] | np.ndarray) -> list[str]:
    return [files[row] for row in rows]


def _size(measured: Measured, row: int) -> str:
    return f"{measured['width'][row]}×{measured['height'][row]}"
