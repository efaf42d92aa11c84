"""Audit reports: the folder that `training audit` writes and the data page reads.

`report.json` holds the findings, `pictures.parquet` one row a picture, `index.html` the same for reading anywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.files import atomic_path
from zoo.lazy import lazy_module
from zoo.limits import REPORT_MB
from zoo.tables import read_csv

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pd = lazy_module("pandas")
    pa = lazy_module("pyarrow")
    pq = lazy_module("pyarrow.parquet")

REPORT, PICTURES, PAGE = "report.json", "pictures.parquet", "index.html"
VARIABLE = "HEMAZOO_REPORTS"
BUILTIN_VARIABLE = "HEMAZOO_BUILTIN_REPORTS"  # 0 hides the built-in audits
DEFAULT = "reports"
BUILTIN = Path(__file__).parent / "builtin"
COLUMNS = ("file", "label", "split", "cell", "subject", "flag", "likelier", "score", "x", "y", "z")
TRUSTED = 0.9  # share of labels that out-of-fold models must agree with for their doubts to count


FEATURES = "features-"  # beginning of the files that `training features` writes beside a report


class ReportError(ValueError):
    """An audit report that cannot be read; the message says why and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Duplicates(_Part):
    """Groups of files: with equal pixels, showing the same thing, with different labels, on two sides of the split."""

    pixel: list[list[str]]
    near: list[list[str]]
    contradictory: list[list[str]]
    crossing: list[list[str]] = []


class SourceCells(_Part):
    """Counts of pictures assigned to source cells, and of cells that carry two labels or cross the split.

    `of` names each file's cell. `subjects` counts what is on the pictures: two photographs of one field are two cells
    and one subject. `related` lists cells of one subject, and the two counts after it those with two labels or sides.
    """

    assigned: int
    groups: int
    conflicts: int
    crossing: int
    of: dict[str, str]
    by_split: dict[str, int] = {}
    conflicting: list[str] = []
    across: list[str] = []
    subjects: int = 0
    related: list[list[str]] = []
    related_conflicts: list[list[str]] = []
    related_across: list[list[str]] = []


class Report(_Part):
    """An audit's findings. Files are named as in the data set; shares are 0..1."""

    schema_version: int = Field(ge=1, le=1)
    name: str
    layout: str
    data_hash: str
    images: int
    classes: dict[str, int]
    splits: dict[str, dict[str, int]]
    unlabelled: list[str]
    unreadable: list[str]
    unreadable_reasons: dict[str, str]
    blank: list[str]
    wrong_size: list[str]
    wrong_mode: list[str]
    sizes: dict[str, int]
    formats: dict[str, int]
    problems: dict[str, str]
    duplicates: Duplicates
    source_cells: SourceCells
    originals: bool
    leak: dict[str, float]
    random_leak: dict[str, float]
    outliers: list[str]
    marked: list[str]
    label_errors: list[str]
    likelier: dict[str, str]
    label_accuracy: float | None
    shortcuts: dict[str, float]
    alarms: list[str]
    embedder: str
    versions: dict[str, str] = {}
    notes: list[str] = []
    layout_reason: str = ""
    groups: int | None = None
    crossing_groups: list[str] = []


@dataclass(frozen=True)
class Audit:
    """A report and where it is; `pictures` has a row a picture (COLUMNS, and `thumbnail`, JPEG, where it was kept)."""

    folder: Path
    report: Report

    @property
    def features(self) -> dict[str, Path]:
        """Tables of features that were written beside the report, by the model's name."""
        found = [path for end in ("parquet", "csv") for path in self.folder.glob(f"{FEATURES}*.{end}")]
        return {path.stem.removeprefix(FEATURES): path for path in sorted(found)}

    @property
    def pictures(self) -> pd.DataFrame:
        """The table of pictures. Raises ReportError if it is damaged."""
        path = self.folder / PICTURES
        try:
            if path.stat().st_size > REPORT_MB.bytes:
                raise ReportError(f"{path} is larger than {REPORT_MB.value} MB.")
            table = pq.read_table(path).to_pandas()
        except (OSError, pa.ArrowException, ValueError) as error:
            raise ReportError(f"{path} is missing or damaged. Run the audit again.") from error
        missing = [name for name in COLUMNS if name not in table]
        if missing or len(table) != self.report.images:
            raise ReportError(f"{path} does not belong to its report. Run the audit again.")
        return table


def read_report(folder: Path) -> Audit:
    """The audit in `folder`. Raises ReportError if there is none, it is damaged, or of another version."""
    path = folder / REPORT
    try:
        if path.stat().st_size > REPORT_MB.bytes:
            raise ReportError(f"{path} is larger than {REPORT_MB.value} MB.")
        return Audit(folder, Report.model_validate(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise ReportError(f"There is no audit report in {folder}: {error.strerror}.") from error
    except (ValidationError, ValueError) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(f"{path} is no audit report, or of another version. Run the audit again.") from error


def list_reports(environment: Mapping[str, str] | None = None) -> list[tuple[Path, Audit | str]]:
    """List the report folders on offer.

    Args:
        environment: Environment variables; by default those of the process. HEMAZOO_REPORTS names folders, or folders
            of folders (default: `reports`). HEMAZOO_BUILTIN_REPORTS=0 hides the built-in audits, which come last.

    Returns:
        Each folder with its audit, or with a message that says why it cannot be read.
    """
    variables = environment if environment is not None else os.environ
    named = variables.get(VARIABLE, DEFAULT)
    places = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    builtin = [] if variables.get(BUILTIN_VARIABLE) == "0" else [BUILTIN]
    found: list[tuple[Path, Audit | str]] = []
    for place in [*places, *builtin]:
        inside = sorted(place.iterdir()) if place.is_dir() and not (place / REPORT).exists() else [place]
        found += [(folder, _try(folder)) for folder in inside if (folder / REPORT).exists()]
    return found


def write_pictures(path: Path, table: pd.DataFrame) -> None:
    """Write the table of pictures atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary, compression="zstd")


def _try(folder: Path) -> Audit | str:
    try:
        return read_report(folder)
    except ReportError as error:
        return str(error)


def headlines(report: Report) -> list[tuple[bool, str]]:
    """The findings in sentences, each with whether it is an alarm, and what to do about it."""
    cells, copies = report.source_cells, report.duplicates
    lines = [
        *_about_layout(report),
        (True, f"{_counted(len(report.unreadable), 'pictures')} cannot be read: remove or renew them.")
        if report.unreadable
        else (False, "Every picture can be read."),
        (True, f"{sum(map(len, copies.pixel)):,} pictures have the same pixels as another: keep one of each.")
        if copies.pixel
        else (False, "No two pictures share their pixels."),
    ]
    if report.splits:
        records = "; ".join(f"{name} {sum(counts.values()):,}" for name, counts in report.splits.items())
        lines.append((False, f"Records: {records}."))
    if report.unlabelled:
        lines.append((True, f"{len(report.unlabelled):,} pictures have no label."))
    if copies.near:
        readable = report.images - len(report.unreadable)
        text = (
            f"{sum(map(len, copies.near)):,} pictures are copies of another: {readable:,} pictures show "
            f"{cells.subjects:,} different cells or fields. Keep copies on one side of a split (scheme “grouped”)."
        )
        lines.append((cells.subjects < 0.99 * readable, text))
    if cells.related:
        text = f"{_counted(len(cells.related), 'fields')} photographed more than once: all their copies count as one."
        lines.append((True, text))
    if copies.contradictory:
        text = f"{_counted(len(copies.contradictory), 'cells')} with more than one label: look at them, or drop them."
        lines.append((True, text))
    if report.leak:
        text = (
            f"{_counted(len(copies.crossing), 'cells or fields', 'cell or field')} on two sides of the data set's own "
            f"split; of the worst class's test pictures, {100 * max(report.leak.values()):.1f} % have a training copy."
        )
        lines.append((bool(copies.crossing), text))
    for name in report.alarms:
        text = (
            f"A model could cheat: {name.replace('_', ' ')} alone tells the label with a balanced accuracy of "
            f"{100 * report.shortcuts[name]:.0f} % (chance: {100 / len(report.classes):.0f} %)."
        )
        lines.append((True, text))
    lines.append((False, f"{len(report.outliers):,} outliers, {len(report.marked):,} pictures with foreign colours."))
    doubt = ""
    if report.label_accuracy is not None and report.label_accuracy < TRUSTED:
        doubt = f" Models agree with only {100 * report.label_accuracy:.0f} % of labels, so many of these are right."
    if report.label_errors:
        text = f"{_counted(len(report.label_errors), 'labels')} likely wrong: look at their pictures.{doubt}"
        lines.append((True, text))
    else:
        lines.append((False, "No label is likely wrong."))
    lines += [(False, note) for note in report.notes]
    return lines


def _counted(number: int, things: str, one: str = "") -> str:
    return f"1 {one or things.removesuffix('s')}" if number == 1 else f"{number:,} {things}"


def _about_layout(report: Report) -> list[tuple[bool, str]]:
    """The layout and how it was recognised, and whether patients are known; audits of before do not tell."""
    if report.groups is None:
        return []
    lines = [(False, f"Layout: {report.layout}; {report.layout_reason}.")]
    if not report.groups:
        text = (
            "Nothing identifies patients: no column, folder or pattern names the patient or slide of a picture. One "
            "patient's cells may lie on both sides of a split. Name patients with --group or --group-pattern."
        )
        lines.append((True, text))
    if report.crossing_groups:
        shown = ", ".join(report.crossing_groups[:3])
        text = (
            f"{len(report.crossing_groups):,} patients or slides are on two sides of the data set's own split: {shown}."
        )
        lines.append((True, text))
    return lines


def read_features(path: Path) -> pd.DataFrame:
    """A table of features: file, label and f1, f2, … (at least two). Raises ReportError if it is something else."""
    try:
        if path.stat().st_size > REPORT_MB.bytes:
            raise ReportError(f"{path.name} is larger than {REPORT_MB.value} MB.")
        table = read_csv(path) if path.suffix == ".csv" else pq.read_table(path).to_pandas()
    except (OSError, pa.ArrowException, ValueError) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(f"{path.name} cannot be read. Write it again with python -m training features.") from error
    numbers = [name for name in table.columns if name not in ("file", "label")]
    whole = "file" in table and len(numbers) >= 2 and all(pd.api.types.is_numeric_dtype(table[n]) for n in numbers)
    if not whole:
        raise ReportError(f"{path.name} is no table of features: it needs file, f1 and f2.")
    return table


def at_features(pictures: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    """The pictures that have features, placed at the first three of them (0 where there are but two)."""
    names = [name for name in features.columns if name not in ("file", "label")][:3]
    places = features[["file", *names]].rename(columns=dict(zip(names, "xyz", strict=False)))
    if "z" not in places:
        places["z"] = 0.0
    joined = pictures.drop(columns=["x", "y", "z"]).merge(places, on="file", how="inner")
    return joined.dropna(subset=["x", "y", "z"]).reset_index(drop=True)
