"""Audits and data sets that the data page offers, and their pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from pages.parts.pictures.gallery import SHEET_PIXELS, jpeg_data_url, jpeg_url
from zoo.audits import reports
from zoo.audits.reports import REPORT, Audit
from zoo.benchmarks import published
from zoo.benchmarks.thumbnails import thumbnail, thumbnail_names
from zoo.data import DataSet
from zoo.data.offered import list_offered
from zoo.imaging.decode import PictureError
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

REFRESH_SECONDS = 30


@dataclass(frozen=True)
class Offer:
    """An audit, a data set, or both where they belong together."""

    name: str
    audit: Audit | None
    data: DataSet | None


@st.cache_resource(ttl=REFRESH_SECONDS, show_spinner="Reading data sets …")
def list_offers() -> tuple[list[Offer], list[str]]:
    """All audits and data sets, and messages about those that cannot be read."""
    problems: list[str] = []
    data: dict[str, DataSet] = {}
    offers: list[Offer] = []
    audited = set()
    for place, found in list_offered():
        if isinstance(found, str):
            problems.append(found)
        else:
            data[place.name if found.layout != "npz" else found.name] = found
    for folder, audit in reports.list_reports():
        if isinstance(audit, str):
            problems.append(audit)
        else:
            name = audit.report.name
            audited.add(name)
            title = name if folder.name == name else f"{name} ({folder.name})"
            offers.append(Offer(title, audit, data.get(name)))
    offers += [Offer(f"{name} (not audited)", None, found) for name, found in data.items() if name not in audited]
    # first what has pictures to look at
    return sorted(offers, key=lambda one: not _has_pictures(one)), problems


def _has_pictures(offer: Offer) -> bool:
    """Whether pictures stand beside the findings: the data set's, the audit's, or those of the program."""
    if offer.data is not None or offer.audit is None or offer.audit.folder.parent != reports.BUILTIN:
        return True
    return bool(_thumbnails(offer.audit))


def _thumbnails(audit: Audit) -> dict[str, str]:
    """Benchmark by file of the pictures of an audited data set that come with the program."""
    own = [name for name, one in published().items() if one.data == audit.report.name]
    return {file: name for name in own for file in thumbnail_names(name)}


def audit_table(audit: Audit) -> pd.DataFrame:
    """The audit's table of pictures, read once. Raises ReportError or OSError if it is missing or damaged."""
    return _audit_table(audit, str(audit.folder), (audit.folder / REPORT).stat().st_mtime)


@st.cache_data(max_entries=4, show_spinner="Reading the audit …")
def _audit_table(_audit: Audit, folder: str, changed: float) -> pd.DataFrame:
    """The table; `folder` and `changed` are the cache's key."""
    return _audit.pictures


def features_table(path: Path) -> pd.DataFrame:
    """A table of features, read once. Raises ReportError or OSError if it is missing or damaged."""
    return _features_table(str(path), path.stat().st_mtime)


@st.cache_data(max_entries=8, show_spinner="Reading features …")
def _features_table(path: str, changed: float) -> pd.DataFrame:
    """The table; `changed` is part of the cache's key."""
    return reports.read_features(Path(path))


def bundled_pictures(offer: Offer, table: pd.DataFrame) -> dict[str, str]:
    """Benchmark by file of an audit's pictures that come with the program; only where there are no others."""
    if "thumbnail" in table or offer.data is not None or offer.audit is None:
        return {}
    return _thumbnails(offer.audit)


def picture_urls(offer: Offer, table: pd.DataFrame) -> Callable[[str], str]:
    """Function from a file's name to its data URL, empty where there is none.

    It is the audit's thumbnail, else the data set's picture, else the one that comes with the program.
    """
    if "thumbnail" in table:
        thumbnails = dict(zip(table["file"], table["thumbnail"], strict=True))
        return lambda file: jpeg_data_url(thumbnails[file]) if thumbnails.get(file) else ""
    if offer.data is not None:
        data = offer.data
        rows = {item.file: row for row, item in enumerate(data.items)}
        return lambda file: _data_url(data, offer.name, rows[file]) if file in rows else ""
    bundled = bundled_pictures(offer, table)
    return lambda file: _bundled_url(bundled[file], file) if file in bundled else ""


@st.cache_data(max_entries=4096, show_spinner=False)
def _bundled_url(benchmark: str, file: str) -> str:
    image = thumbnail(benchmark, file)
    return jpeg_url(image, SHEET_PIXELS) if image is not None else ""


@st.cache_data(max_entries=4096, show_spinner=False)
def _data_url(_data: DataSet, name: str, row: int) -> str:
    """A data set's picture as a data URL; empty if it cannot be decoded."""
    try:
        return jpeg_url(_data.items[row].source.image(), SHEET_PIXELS)
    except PictureError:
        return ""
