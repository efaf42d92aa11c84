"""Views of an audit on the data page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from pages.parts import plots, tables
from pages.parts.audit.audits import Offer, features_table, picture_urls
from pages.parts.pictures.gallery import image_sheet
from pages.parts.wording import plain
from zoo.audits import reports
from zoo.audits.reports import PAGE, REPORT, Audit, Report, ReportError
from zoo.data import DataSet
from zoo.figures import audit as figures
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
else:
    pd = lazy_module("pandas")
    go = lazy_module("plotly.graph_objects")

GROUPS_PER_PAGE = 10
MAX_GROUP_PICTURES = 11
MAX_SUSPECTS = 60  # pictures of outliers, of foreign colours, of likely label errors
MAX_SAMPLES = 11  # pictures of a class
MAX_SELECTED = 24  # pictures of selected points
SEED = "data seed"  # session key: seed of the samples
KINDS_OF_COPIES = {
    "contradictory": "One cell, different labels",
    "crossing": "In two parts of the split",
    "pixel": "Identical pixels",
    "near": "Near copies",
    "cells": "Source cells",
}

Url = Callable[[str], str]


def show_overview(audit: Audit, table: pd.DataFrame) -> None:
    """Findings in sentences and figures."""
    report = audit.report
    found = reports.headlines(report)
    for text in (text for is_alarm, text in found if is_alarm):
        st.markdown(f":material/warning: {plain(text)}")
    with st.expander("Also checked", icon=":material/check:", expanded=not any(alarm for alarm, _ in found)):
        for text in (text for is_alarm, text in found if not is_alarm):
            st.markdown(plain(text))
    left, right = st.columns(2)
    with left:
        st.subheader("Classes")
        plots.chart(figures.class_counts(report), "classes")
    with right:
        st.subheader("Leaks", help="Share of test pictures that show a cell which training pictures also show.")
        plots.chart(figures.leak_map(report), "leak")
    cells = report.source_cells
    st.subheader("Source cells")
    how = "matched with the original frames" if report.originals else "found by comparing the pictures"
    st.caption(f"{cells.assigned:,} of {report.images:,} pictures show {cells.groups:,} source cells, {how}.")
    plots.chart(figures.copies_per_cell(report), "copies")
    if cells.related:
        with st.expander(f"{len(cells.related)} fields photographed more than once"):
            st.dataframe(pd.DataFrame({"photographs": [", ".join(names) for names in cells.related]}), hide_index=True)
    _show_faults(report)
    _show_files(audit, table)


def _show_faults(report: Report) -> None:
    faults = [
        ("unreadable", report.unreadable_reasons),
        ("reported by the reader", report.problems),
        ("without a label", dict.fromkeys(report.unlabelled, "")),
        ("of one colour", dict.fromkeys(report.blank, "")),
        ("of another size", dict.fromkeys(report.wrong_size, "")),
        ("not stored as RGB", dict.fromkeys(report.wrong_mode, "")),
    ]
    rows = [{"what": what, "file": file, "why": why} for what, files in faults for file, why in files.items()]
    if rows:
        with st.expander(f"{len(rows):,} files with faults"):
            st.dataframe(pd.DataFrame(rows), hide_index=True)


def _show_files(audit: Audit, table: pd.DataFrame) -> None:
    """Offer the report and its table as files."""
    folder = audit.folder
    columns = st.columns(3)
    columns[0].download_button("Report (JSON)", (folder / REPORT).read_bytes(), f"{folder.name}.json", width="stretch")
    pictures = tables.csv(_without_thumbnails(table))
    columns[1].download_button("Pictures (CSV)", pictures, f"{folder.name}.csv", width="stretch")
    if (folder / PAGE).exists():
        page = (folder / PAGE).read_bytes()
        columns[2].download_button("Page (HTML)", page, f"{folder.name}.html", "text/html", width="stretch")


def show_samples(table: pd.DataFrame, url: Url, shown: Collection[str] = ()) -> None:
    """Some pictures of each class, others on a click; of those that are `shown` where only these can be seen."""
    if st.button("Other samples", icon=":material/shuffle:"):
        st.session_state[SEED] = st.session_state.get(SEED, 0) + 1
    seed = st.session_state.get(SEED, 0)
    for label, part in table.groupby("label", sort=True):
        st.markdown(f"**{plain(label)}** · {len(part):,}")
        seen = part[part["file"].isin(shown)] if shown else part
        files = seen.sample(min(MAX_SAMPLES, len(seen)), random_state=seed)["file"].tolist()
        image_sheet(files, url, files)


def show_copies(report: Report, table: pd.DataFrame, url: Url) -> None:
    """Groups of copies as rows of pictures."""
    groups = report.duplicates.model_dump()
    by_cell = table.dropna(subset="cell").groupby("cell")["file"].agg(list)
    groups["cells"] = sorted((files for files in by_cell if len(files) > 1), key=len, reverse=True)
    kind = st.selectbox(
        "Copies", list(KINDS_OF_COPIES), format_func=lambda k: f"{KINDS_OF_COPIES[k]}: {len(groups[k]):,} groups"
    )
    found = groups[kind]
    if not found:
        st.success("None.")
        return
    pages = (len(found) - 1) // GROUPS_PER_PAGE + 1
    page = int(st.number_input(f"Page of {pages:,}", 1, pages, 1)) - 1 if pages > 1 else 0
    facts = table.set_index("file")[["label", "split", "cell"]].fillna("")
    for group in found[page * GROUPS_PER_PAGE : (page + 1) * GROUPS_PER_PAGE]:
        rows = facts.loc[group]
        labels = ", ".join(f"{label or 'no label'}: {n:,}" for label, n in Counter(rows["label"]).most_common())
        splits = ", ".join(f"{split}: {n:,}" for split, n in Counter(rows["split"]).most_common() if split)
        st.markdown(f"{len(group):,} pictures · {plain(labels)}" + (f" · {plain(splits)}" if splits else ""))
        files = _varied(group, rows)
        shown = facts.loc[files]
        captions = [
            f"{label} {split} {_file_name(file)}"
            for file, label, split in zip(files, shown["label"], shown["split"], strict=True)
        ]
        image_sheet(files, url, captions)
    listed = pd.DataFrame([{"group": n, "file": f} for n, group in enumerate(found, 1) for f in group])
    tables.csv_button("These groups (CSV)", listed, f"{kind}.csv")


def _varied(group: list[str], rows: pd.DataFrame) -> list[str]:
    """Some files of a group, one of each label and split first, so that contradictions are visible."""
    order = rows.reset_index().groupby(["label", "split"], sort=False).cumcount().to_numpy()
    return [group[i] for i in np.argsort(order, kind="stable")[:MAX_GROUP_PICTURES]]


def show_suspects(report: Report, table: pd.DataFrame, url: Url) -> None:
    """Outliers, marked pictures and likely label errors."""
    labels = dict(zip(table["file"], table["label"].fillna(""), strict=True))
    scores = dict(zip(table["file"], table["score"], strict=True))
    accuracy = report.label_accuracy
    agreement = f" Cross-validated models agree with {100 * accuracy:.0f} % of all labels." if accuracy else ""
    sections: list[tuple[str, Sequence[str], str, Callable[[str], str]]] = [
        (
            "Outliers",
            report.outliers,
            "Unlike every other picture in embedding, stain, colour or sharpness.",
            lambda file: f"{labels[file]} {scores[file]:.0f}",
        ),
        ("Foreign colours", report.marked, "Drawn on, pasted into, or of another stain.", lambda file: labels[file]),
        (
            "Likely label errors",
            report.label_errors,
            f"Label → class that other cells suggest.{agreement}",
            lambda file: f"{labels[file]} → {report.likelier.get(file, '')}",
        ),
    ]
    for title, files, note, caption in sections:
        st.subheader(f"{title}: {len(files):,}")
        st.caption(note)
        if not files:
            st.success("None.")
            continue
        shown = files[:MAX_SUSPECTS]
        image_sheet(shown, url, [f"{caption(file)} · {_file_name(file)}" for file in shown])
        listed = pd.DataFrame({"file": files, "label": [labels[file] for file in files]})
        listed["likelier"] = [report.likelier.get(file, "") for file in files]
        tables.csv_button(f"All {len(files):,} (CSV)", listed, f"{title.lower()}.csv", key=title)


def show_shortcuts(report: Report) -> None:
    """Properties other than the cell that predict the label."""
    if not report.shortcuts:
        st.info("There are fewer than two labels, so there is nothing to predict.")
        return
    st.caption("How well a small decision tree predicts the label from properties other than the cell.")
    plots.chart(figures.shortcuts(report), "shortcuts")
    names = [figures.PROPERTY_NAMES.get(name, name) for name in report.alarms]
    if names:
        st.warning(
            f"Alarm: {', '.join(names)}. A model may learn this instead of the cell: score it on another laboratory. "
            "Colour can also be real, because cells stain differently."
        )
    else:
        st.success("No alarm: none of these properties predicts the label much better than chance.")


def show_map(audit: Audit, table: pd.DataFrame, url: Url) -> None:
    """Scatter plot of embeddings or of a model's features, with the pictures of selected points."""
    try:
        table, source = _positions(audit, table)
    except (ReportError, OSError) as error:
        st.error(plain(error))
        return
    left, middle, right = st.columns(3)
    by = left.selectbox("Colour by", ["label", "split", "flag"])
    solid = middle.toggle("3-D", help="Turn it with the mouse. Pictures can be selected in 2-D.")
    sides = [side for side in ("train", "test") if (table["split"] == side).any()]
    apart = len(sides) == 2 and right.toggle("Training and test side by side")
    st.caption(source if apart or solid else f"{source} Draw a box or lasso to see the pictures behind it.")
    points = _without_thumbnails(table)
    if apart:
        for column, side in zip(st.columns(2), sides, strict=True):
            column.markdown(f"**{side}**")
            figure = figures.scatter(points[points["split"] == side].reset_index(drop=True), by, solid)
            column.plotly_chart(figure, key=f"map {side} {by} {solid}", config=plots.MAP_CONFIG)
    elif solid:
        st.plotly_chart(figures.scatter(points, by, solid), key=f"map 3 {by}", config=plots.MAP_CONFIG)
    else:
        _show_selection(table, plots.selection(figures.scatter(points, by), f"map {by}"), url)


def _show_selection(table: pd.DataFrame, rows: list[int], url: Url) -> None:
    if not rows:
        st.info("Nothing is selected.")
        return
    selected = table.iloc[[row for row in rows if row < len(table)]]
    st.markdown(f"**{len(selected):,} selected**")
    shown = selected.head(MAX_SELECTED)
    captions = [f"{label} · {_file_name(file)}" for label, file in zip(shown["label"], shown["file"], strict=True)]
    image_sheet(shown["file"].tolist(), url, captions)
    tables.csv_button("Selection (CSV)", _without_thumbnails(selected), "selection.csv")


def _positions(audit: Audit, table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The pictures with positions from the audit's embedding or from a model's features, and a sentence about these."""
    embedding = f"the audit's embedding ({audit.report.embedder})"
    features = audit.features
    name = ""
    if features:
        options = ["", *features]
        name = st.selectbox("Position by", options, format_func=lambda n: f"features of {n}" if n else embedding)
    if not name:
        return table, f"First principal components of {embedding}."
    found = features_table(features[name])
    tables.csv_button("Features (CSV)", found, f"{features[name].stem}.csv")
    return reports.at_features(table, found), f"The first three features of {name}."


def show_unaudited(offer: Offer, data: DataSet) -> None:
    """Class counts and samples of a data set without an audit, and the command that makes one."""
    st.info(
        f"{len(data):,} pictures, {len(data.labels)} classes, read as {data.layout}. An audit finds copies, leaks, "
        "outliers and label errors:"
    )
    st.code(f"python -m training audit {data.place.name} --out reports/{data.name}", language=None, wrap_lines=True)
    counts = data.table.fillna({"split": "all", "label": "no label"}).groupby(["label", "split"]).size().reset_index()
    counts.columns = pd.Index(["label", "split", "pictures"])
    figure = go.Figure(
        [go.Bar(name=split, x=part["label"], y=part["pictures"]) for split, part in counts.groupby("split")]
    )
    figure.update_layout(barmode="stack", height=340, margin=figures.MARGIN, yaxis_title="pictures")
    plots.chart(figure, "classes")
    show_samples(data.table, picture_urls(offer, data.table))


def _file_name(file: str) -> str:
    return file.rsplit("/", maxsplit=1)[-1]


def _without_thumbnails(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="thumbnail", errors="ignore")
