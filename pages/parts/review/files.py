"""Files of a review: reports, the saved review, and reviewed cells as a data set."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from pages.parts import entries, session
from pages.parts.review import state
from pages.parts.review.found import Examined
from pages.parts.tables import csv
from pages.parts.wording import counted, plain
from zoo.entry import Entry
from zoo.files import printable
from zoo.lazy import lazy_module
from zoo.review import report as reports
from zoo.review.cells import Reviewed
from zoo.review.coco import coco
from zoo.review.differential import Differential
from zoo.review.session_file import (
    Review,
    ReviewFileError,
    SavedPicture,
    read_review,
    saved_cells,
    saved_decisions,
    write_review,
)
from zoo.review.training_cells import class_folders, labelled
from zoo.scores.sample.samples import BLOOD, Sample

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

MAX_NAME_LETTERS = 80
OPENED = "opened review"  # key of the uploader
NOT_IN_NAME = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class _Shown:
    """The page's content. Files are made when somebody clicks, outside of the session: all they need is here."""

    review: state.State
    detector: Entry | None  # None: no picture was searched for cells
    entry: Entry
    sample: Sample
    examined: Sequence[Examined]
    reviewed: Sequence[Sequence[Reviewed]]

    @property
    def cells(self) -> list[Reviewed]:
        """The cells of all pictures."""
        return [cell for cells in self.reviewed for cell in cells]

    @property
    def stem(self) -> str:
        """The slide's name as part of a file name."""
        return NOT_IN_NAME.sub("-", self.review.slide).strip("-.") or "review"


def show(
    entry: Entry,
    sample: Sample,
    examined: Sequence[Examined],
    reviewed: Sequence[Sequence[Reviewed]],
    found: Differential,
) -> None:
    """Offer the results as CSV, reports, the saved review, and the cells for Adapt."""
    st.subheader("Report")
    _names()
    detector = entries.detector_entry() if any(one.found is not None for one in examined) else None
    shown = _Shown(state.state(), detector, entry, sample, examined, reviewed)
    with st.container(horizontal=True):
        made = partial(_report, shown, found)
        _download("Report as PDF", lambda: reports.pdf(made()), f"{shown.stem}.pdf", "application/pdf")
        _download("Report as HTML", lambda: reports.html(made()).encode(), f"{shown.stem}.html", "text/html")
        names = {seen.picture.content: seen.picture.name for seen in examined}
        one = len(examined) == 1 and examined[0].found is None
        # quick to make, so not made at a click: Streamlit loses such a file where the page runs anew meanwhile
        table = csv(results(entry, examined, reviewed))
        if not one:
            sizes = {seen.picture.content: seen.size for seen in examined}
            _download(
                "Boxes as COCO", partial(coco, shown.cells, names, sizes), f"{shown.stem}.json", "application/json"
            )
        _download("Result as CSV" if one else "Results as CSV", table, f"{entry.id}.csv", "text/csv")
    with st.expander("Save or open a review; train with its cells", icon=":material/save:"):
        _save(shown)
        open_review()
        _teach(examined, shown.cells)


def results(entry: Entry, examined: Sequence[Examined], reviewed: Sequence[Sequence[Reviewed]]) -> pd.DataFrame:
    """A row for each cell, with the sample and the network's own probabilities before it."""
    files = {one.picture.content: one.picture.name for one in examined}
    parts = []
    for one, cells in zip(examined, reviewed, strict=True):
        table = reports.cells_table(cells, files | {one.picture.content: one.picture.name})
        more = []
        for cell in cells:
            answer = one.predictions.get(cell.cell.number)
            network = {f"network: {label}": answer and answer.network[label] for label in entry.labels}
            elsewhere = answer and answer.unseen_confidence
            familiarity = answer and answer.familiarity
            sample = answer.sample if answer else ""
            more.append({"elsewhere": elsewhere, "familiarity": familiarity, "sample": sample, **network})
        parts.append(pd.concat([table, pd.DataFrame(more)], axis="columns"))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def open_review() -> None:
    """Open a saved review: its decisions hold for pictures with the same content."""
    st.file_uploader(
        "Open a review",
        type=["zip"],
        key=OPENED,
        on_change=_take,
        help="A file from “Save review”. Its decisions hold for the same pictures, whatever they are called now.",
    )
    if problem := st.session_state.get(f"{OPENED} error"):
        st.error(plain(problem))


def _take() -> None:
    """Read the opened review."""
    file: UploadedFile | None = st.session_state[OPENED]
    st.session_state.pop(f"{OPENED} error", None)
    if file is not None and (problem := take_review(file.getvalue())):
        st.session_state[f"{OPENED} error"] = problem


def take_review(data: bytes) -> str:
    """Take over a saved review: decisions, names, and the pictures that are in it.

    Returns:
        What is wrong with the file; empty if nothing is.
    """
    try:
        review, pictures = read_review(data)
    except ReviewFileError as error:
        return str(error)
    names = {one.hash: one.name for one in review.pictures}
    content = {identity.partition("#")[0]: data for identity, data in pictures.items()}
    for identity, name in names.items():
        if identity.partition("#")[0] in content:
            session.add_picture(printable(name), content[identity.partition("#")[0]])
    here = {one.content for one in session.pictures()}
    journal, told = review.journal(), f"{counted(len(review.decisions), 'decisions')} opened."
    if missing := [name for identity, name in names.items() if identity not in here]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        told += f" Add these pictures to see all: {printable(missing[0])}{more}."
    merged = state.state().journal.decide(journal.decisions, told)
    state.change(journal=merged, told=told, slide=review.slide, reader=review.reader or state.state().reader)
    return ""


def _names() -> None:
    """Names of slide and reader, for the report and the decisions."""
    review = state.state()
    for column, name, label, hint in zip(
        st.columns(2),
        ("slide", "reader"),
        ("Slide", "Reader"),
        ("Name or number", "Your name or initials"),
        strict=True,
    ):
        key = f"review {name}"
        st.session_state[key] = getattr(review, name)

        def keep(name: str = name, key: str = key) -> None:
            state.change(**{name: st.session_state[key]})

        column.text_input(label, key=key, on_change=keep, max_chars=MAX_NAME_LETTERS, placeholder=hint)


def _download(label: str, data: bytes | Callable[[], bytes], name: str, mime: str) -> None:
    st.download_button(label, data, name, mime, icon=":material/download:", on_click="ignore")


def _report(shown: _Shown, found: Differential) -> reports.Report:
    """The report of what the page shows."""
    entry = shown.entry
    facts = [("Model", f"{entry.title} ({entry.id})"), ("Sample", shown.sample.name)]
    if revision := getattr(entry.origin, "sha", None):
        facts.insert(1, ("Revision", str(revision)))
    if shown.detector is not None:
        facts.insert(1, ("Detector", f"{shown.detector.title} ({shown.detector.id})"))
    corrected = [
        (cell, one.cut(cell.cell))
        for one, cells in zip(shown.examined, shown.reviewed, strict=True)
        for cell in cells
        if cell.corrected
    ]
    return reports.Report(
        shown.review.slide,
        shown.review.reader,
        facts,
        found,
        shown.cells,
        {one.picture.content: one.picture.name for one in shown.examined},
        corrected[: reports.MAX_PICTURES],
        shown.sample.name == BLOOD,
    )


def _save(shown: _Shown) -> None:
    with_pictures = st.toggle("With the pictures", key="save pictures", help="The file is then as large as they are.")

    def make() -> bytes:
        saved = Review(
            slide=shown.review.slide,
            reader=shown.review.reader,
            model=shown.entry.id,
            detector=shown.detector.id if shown.detector else "",
            sample=shown.sample.name,
            pictures=[_saved_picture(one) for one in shown.examined],
            cells=saved_cells([one.cell for one in shown.cells]),
            decisions=saved_decisions(shown.review.journal.decisions),
        )
        content = {one.picture.upload.sha256: (one.picture.name, one.picture.data) for one in shown.examined}
        return write_review(saved, content if with_pictures else None)

    _download("Save review", make, f"{shown.stem}.zip", "application/zip")


def _saved_picture(one: Examined) -> SavedPicture:
    scale = one.found.scale if one.found is not None else None
    return SavedPicture(
        hash=one.picture.content,
        name=one.picture.name,
        size=one.size,
        um_per_px=scale.um_per_px if scale is not None else None,
    )


def _teach(examined: Sequence[Examined], cells: Sequence[Reviewed]) -> None:
    """Offer the reviewed cells as class folders, and to Adapt."""
    known = labelled(cells)
    if not known:
        st.caption("Cells that you corrected or approved can train a model: none yet.")
        return
    by_content = {one.picture.content: one for one in examined}
    files = {one.picture.content: one.picture.name for one in examined}
    with st.container(horizontal=True):
        _download(
            f"{counted(len(known), 'reviewed cells')} as class folders",
            lambda: class_folders(known, lambda one: by_content[one.cell.picture].cut(one.cell), files),
            "reviewed-cells.zip",
            "application/zip",
        )
        st.page_link("pages/adapt.py", label="Adapt a model with them", icon=":material/tune:")
