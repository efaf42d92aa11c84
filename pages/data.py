"""Can a data set be trusted? Audits and data sets: counts, copies, leaks, outliers, shortcuts, and a map of it all."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages import shared
from zoo.audits import reports
from zoo.audits.reports import PAGE, REPORT, Audit, Report, ReportError
from zoo.data import DataSet
from zoo.data.configured import VARIABLE, list_datasets
from zoo.figures import audit as report_figures
from zoo.imaging.decode import ImageError

PER_PAGE = 10  # groups
EACH = 11  # pictures of a group that are shown
SHEET = 60  # pictures of a sheet
SAMPLE = 11  # pictures of a class
SELECTED = 24  # selected points whose pictures are shown
THUMBNAIL = 88  # pixels
KINDS = {
    "contradictory": "One cell, different labels",
    "crossing": "On two sides of the split",
    "pixel": "Identical pixels",
    "near": "Near copies",
    "cells": "Source cells",
}
STYLE = """<style>
.sheet{display:flex;flex-wrap:wrap;gap:8px}.sheet figure{margin:0;width:88px;font-size:11px;line-height:1.3;
overflow-wrap:anywhere}.sheet img{width:88px;border-radius:4px;display:block}
</style>"""


@dataclass(frozen=True)
class Shown:
    """What is looked at: an audit, a data set, or both where they belong together."""

    name: str
    audit: Audit | None
    data: DataSet | None


@st.cache_resource(ttl=30, show_spinner="Reading data sets …")
def offers() -> tuple[list[Shown], list[str]]:
    """Everything there is to look at, and sentences for what cannot be read."""
    sentences, data, shown = [], {}, []
    for place, found in list_datasets():
        if isinstance(found, str):
            sentences.append(found)
        else:
            data[place.name if found.layout != "npz" else found.name] = found
    for folder, audit in reports.list_reports():
        if isinstance(audit, str):
            sentences.append(audit)
        else:
            own = data.get(audit.report.name)
            shown.append(Shown(f"{audit.report.name} (audit, {folder.name})", audit, own))
    audited = {item.audit.report.name for item in shown}
    shown += [Shown(f"{name} (not audited)", None, found) for name, found in data.items() if name not in audited]
    return shown, sentences


@st.cache_data(max_entries=4, show_spinner="Reading the audit …")
def pictures_of(_audit: Audit, folder: str, changed: float) -> pd.DataFrame:
    """The audit's table of pictures; `folder` and `changed` are the cache's key."""
    return _audit.pictures


@st.cache_data(max_entries=4096, show_spinner=False)
def from_data(_data: DataSet, name: str, row: int) -> str:
    """A data set's picture as a data URL; empty if it cannot be decoded."""
    try:
        image = _data.items[row].source.image()
    except ImageError:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture_source(shown: Shown, table: pd.DataFrame) -> Callable[[str], str]:
    """From a file's name to its data URL: from the audit's thumbnails, else from the data set, else empty."""
    if "thumbnail" in table:
        thumbs = dict(zip(table["file"], table["thumbnail"], strict=True))
        return lambda file: (
            "data:image/jpeg;base64," + base64.b64encode(thumbs[file]).decode() if thumbs.get(file) else ""
        )
    if shown.data is not None:
        data = shown.data
        places = {item.file: row for row, item in enumerate(data.items)}
        return lambda file: from_data(data, shown.name, places[file]) if file in places else ""
    return lambda file: ""


def sheet(files: Sequence[str], url: Callable[[str], str], captions: Sequence[str]) -> None:
    """Pictures with captions, in one element: a hundred widgets would make the page slow."""
    figures = []
    for file, caption in zip(files, captions, strict=True):
        source = url(file)
        image = f'<img alt="" src="{source}">' if source else ""
        figures.append(f'<figure title="{escape(file)}">{image}{escape(caption)}</figure>')
    st.html(f'{STYLE}<div class="sheet">{"".join(figures)}</div>')


def chart(figure: go.Figure, key: str) -> None:
    """A figure that does not zoom by accident; its camera button saves it as PNG."""
    st.plotly_chart(figure, key=key, config=shared.CHART)


def overview(shown: Shown, report: Report, table: pd.DataFrame) -> None:
    """What was found, in sentences and figures."""
    for alarming, text in reports.headlines(report):
        st.markdown(f":material/{'warning' if alarming else 'check'}: {'**' + text + '**' if alarming else text}")
    left, right = st.columns(2)
    with left:
        st.subheader("Classes")
        chart(report_figures.class_counts(report), "classes")
    with right:
        st.subheader("Leak map")
        st.caption("Share of test pictures that show a cell which training pictures show too.")
        chart(report_figures.leak_map(report), "leak")
    cells = report.source_cells
    st.subheader("Source cells")
    how = "matched with the original frames" if report.originals else "found among the pictures themselves"
    st.caption(f"{cells.assigned:,} of {report.images:,} pictures belong to {cells.groups:,} source cells, {how}.")
    chart(report_figures.copies_per_cell(report), "copies")
    if cells.related:
        with st.expander(f"{len(cells.related)} fields photographed more than once"):
            st.dataframe(pd.DataFrame({"photographs": [", ".join(names) for names in cells.related]}), hide_index=True)
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
        with st.expander(f"{len(rows):,} files with something to say about them"):
            st.dataframe(pd.DataFrame(rows), hide_index=True)
    downloads(shown, table)


def downloads(shown: Shown, table: pd.DataFrame) -> None:
    """The report and its table, as files."""
    folder = shown.audit.folder
    columns = st.columns(3)
    columns[0].download_button("Report (JSON)", (folder / REPORT).read_bytes(), f"{folder.name}.json", width="stretch")
    named = table.drop(columns="thumbnail", errors="ignore")
    columns[1].download_button("Pictures (CSV)", shared.csv(named), f"{folder.name}.csv", width="stretch")
    if (folder / PAGE).exists():
        page = (folder / PAGE).read_bytes()
        columns[2].download_button("Page (HTML)", page, f"{folder.name}.html", "text/html", width="stretch")


def samples(table: pd.DataFrame, url: Callable[[str], str]) -> None:
    """A few pictures of each class, others on a click."""
    if st.button("Others", icon=":material/shuffle:"):
        st.session_state["data seed"] = st.session_state.get("data seed", 0) + 1
    seed = st.session_state.get("data seed", 0)
    for label, part in table.groupby("label", sort=True):
        st.markdown(f"**{shared.plain(label)}** · {len(part):,}")
        some = part.sample(min(SAMPLE, len(part)), random_state=seed)
        sheet(some["file"].tolist(), url, some["file"].tolist())


def copies(report: Report, table: pd.DataFrame, url: Callable[[str], str]) -> None:
    """Groups of copies as rows of pictures."""
    groups = report.duplicates.model_dump()
    by_cell = table.dropna(subset="cell").groupby("cell")["file"].agg(list)
    groups["cells"] = sorted((files for files in by_cell if len(files) > 1), key=len, reverse=True)
    kind = st.selectbox("Copies", list(KINDS), format_func=lambda k: f"{KINDS[k]}: {len(groups[k]):,} groups")
    found = groups[kind]
    if not found:
        st.success("None were found.")
        return
    pages = (len(found) - 1) // PER_PAGE + 1
    page = st.number_input(f"Page of {pages:,}", 1, pages, 1) - 1 if pages > 1 else 0
    facts = table.set_index("file")[["label", "split", "cell"]].fillna("")
    for group in found[page * PER_PAGE : (page + 1) * PER_PAGE]:
        rows = facts.loc[group]
        counts = ", ".join(f"{label or 'no label'}: {n:,}" for label, n in rows["label"].value_counts().items())
        sides = ", ".join(f"{split}: {n:,}" for split, n in rows["split"].value_counts().items() if split)
        st.markdown(
            f"{len(group):,} pictures · {shared.plain(counts)}" + (f" · {shared.plain(sides)}" if sides else "")
        )
        some = _spread(group, rows)
        sheet(some, url, [f"{facts.at[f, 'label']} {facts.at[f, 'split']} {f.split('/')[-1]}" for f in some])
    listed = pd.DataFrame([{"group": n, "file": f} for n, group in enumerate(found, 1) for f in group])
    st.download_button("These groups (CSV)", shared.csv(listed), f"{kind}.csv", icon=":material/download:")


def _spread(group: list[str], rows: pd.DataFrame) -> list[str]:
    """Some files of a group, of every label and split first: what is contradictory has to be seen."""
    order = rows.reset_index().groupby(["label", "split"], sort=False).cumcount().to_numpy()
    return [group[i] for i in np.argsort(order, kind="stable")[:EACH]]


def suspects(report: Report, table: pd.DataFrame, url: Callable[[str], str]) -> None:
    """Outliers, marked pictures and likely label errors."""
    labels = dict(zip(table["file"], table["label"].fillna(""), strict=True))
    scores = dict(zip(table["file"], table["score"], strict=True))
    accuracy = report.label_accuracy
    trust = f" Models that never saw a cell agree with {100 * accuracy:.0f} % of labels." if accuracy else ""
    for title, files, note, caption in (
        (
            "Outliers",
            report.outliers,
            "Unlike every other picture in embedding, stain, colour or sharpness.",
            lambda f: f"{labels[f]} {scores[f]:.0f}",
        ),
        ("Foreign colours", report.marked, "Drawn upon, pasted into, or of another stain.", lambda f: labels[f]),
        (
            "Likely label errors",
            report.label_errors,
            "Given label → what other cells suggest." + trust,
            lambda f: f"{labels[f]} → {report.likelier.get(f, '')}",
        ),
    ):
        st.subheader(f"{title}: {len(files):,}")
        st.caption(note)
        if not files:
            st.success("None were found.")
            continue
        sheet(files[:SHEET], url, [f"{caption(f)} · {f.split('/')[-1]}" for f in files[:SHEET]])
        listed = pd.DataFrame({"file": files, "label": [labels[f] for f in files]})
        listed["likelier"] = [report.likelier.get(f, "") for f in files]
        st.download_button(
            f"All {len(files):,} (CSV)",
            shared.csv(listed),
            f"{title.lower()}.csv",
            icon=":material/download:",
            key=title,
        )


def shortcuts(report: Report) -> None:
    """What a model could cheat by."""
    if not report.shortcuts:
        st.info("There are fewer than two labels, so there is nothing to predict.")
        return
    st.caption("What a small decision tree tells of the label from properties that say nothing of the cell.")
    chart(report_figures.shortcuts(report), "shortcuts")
    names = [report_figures.NAMES.get(name, name) for name in report.alarms]
    if names:
        st.warning(
            f"Alarm: {', '.join(names)}. A model may learn this instead of the cell. Colour can also be real: "
            "cells are stained differently. Score the model on another laboratory before you believe it."
        )
    else:
        st.success("No alarm: none of these properties tells the label much better than chance.")


@st.cache_data(max_entries=8, show_spinner="Reading features …")
def features_of(path: str, changed: float) -> pd.DataFrame:
    """A table of features; `changed` is part of the cache's key."""
    return reports.read_features(Path(path))


def placed(audit: Audit, table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The pictures where the visitor wants them: at the audit's own embedding or a model's features; and what it is."""
    own = f"what {audit.report.embedder} sees"
    tables = audit.features
    if not tables:
        return table, f"First principal components of {own}."
    name = st.selectbox("Position by", ["", *tables], format_func=lambda n: f"features of {n}" if n else own)
    if not name:
        return table, f"First principal components of {own}."
    found = features_of(str(tables[name]), tables[name].stat().st_mtime)
    st.download_button("Features (CSV)", shared.csv(found), f"{tables[name].stem}.csv", icon=":material/download:")
    return reports.at_features(table, found), f"The first three features that {name} judges by."


def embedding_map(audit: Audit, table: pd.DataFrame, url: Callable[[str], str]) -> None:
    """Scatter of embeddings or of a model's features, with the pictures of what is selected."""
    try:
        table, what = placed(audit, table)
    except (ReportError, OSError) as error:
        st.error(shared.plain(error))
        return
    left, middle, right = st.columns(3)
    by = left.selectbox("Colour by", ["label", "split", "flag"])
    solid = middle.toggle("3-D", help="Turn it with the mouse. Pictures can be selected in 2-D.")
    sides = [side for side in ("train", "test") if (table["split"] == side).any()]
    apart = len(sides) == 2 and right.toggle("Training and test side by side")
    st.caption(what if apart or solid else f"{what} Draw a box or lasso to see the pictures behind it.")
    bare = table.drop(columns="thumbnail", errors="ignore")
    if apart:
        for column, side in zip(st.columns(2), sides, strict=True):
            column.markdown(f"**{side}**")
            figure = report_figures.scatter(bare[bare["split"] == side].reset_index(drop=True), by, solid)
            column.plotly_chart(figure, key=f"map {side} {by} {solid}", config={"displaylogo": False})
        return
    figure = report_figures.scatter(bare, by, solid)
    if solid:
        st.plotly_chart(figure, key=f"map 3 {by}", config={"displaylogo": False})
        return
    figure.update_layout(dragmode="select", uirevision="map")
    event = st.plotly_chart(
        figure,
        key=f"map {by}",
        config={"displaylogo": False},
        on_select="rerun",
        selection_mode=("points", "box", "lasso"),
    )
    rows = [int(np.ravel(point["customdata"])[0]) for point in event.selection.points]
    if not rows:
        st.info("Nothing is selected.")
        return
    some = table.iloc[[row for row in rows if row < len(table)]]
    st.markdown(f"**{len(some):,} selected**")
    shown = some.head(SELECTED)
    sheet(shown["file"].tolist(), url, [f"{r.label} · {r.file.split('/')[-1]}" for r in shown.itertuples()])
    named = some.drop(columns="thumbnail", errors="ignore")
    st.download_button("Selection (CSV)", shared.csv(named), "selection.csv", icon=":material/download:")


def unaudited(shown: Shown, data: DataSet) -> None:
    """What can be said of a data set that nobody has audited yet."""
    st.info(
        f"{len(data):,} pictures, {len(data.labels)} classes, read as {data.layout}. Copies, leaks, outliers and label "
        "errors are found by an audit:"
    )
    st.code(f"python -m training audit {data.place.name} --out reports/{data.name}", language="bash")
    counts = data.table.fillna({"split": "all", "label": "no label"}).groupby(["label", "split"]).size().reset_index()
    counts.columns = ["label", "split", "pictures"]
    figure = go.Figure(
        [go.Bar(name=split, x=part["label"], y=part["pictures"]) for split, part in counts.groupby("split")]
    )
    figure.update_layout(barmode="stack", height=340, margin=report_figures.MARGIN, yaxis_title="pictures")
    chart(figure, "classes")
    samples(data.table, picture_source(shown, data.table))


shared.page("Data")
found, sentences = offers()
for sentence in sentences:
    st.warning(shared.plain(sentence))
if not found:
    st.info(
        "There is no audit and no data set here. Audit one with `python -m training audit DATA --out reports/NAME`, or "
        f"name folders in `{VARIABLE}`; then come back."
    )
    st.stop()
names = [item.name for item in found]
shown = found[names.index(st.selectbox("Data set", names))]
if shown.audit is None:
    unaudited(shown, shown.data)
    st.stop()
report = shown.audit.report
try:
    changed = (shown.audit.folder / REPORT).stat().st_mtime
    table = pictures_of(shown.audit, str(shown.audit.folder), changed)
except (ReportError, OSError) as error:
    st.error(shared.plain(error))
    st.stop()
url = picture_source(shown, table)
if "thumbnail" not in table and shown.data is None:
    st.caption(f"This audit came without pictures. To see them, name the data set's folder in {VARIABLE}.")
views = {
    "Overview": lambda: overview(shown, report, table),
    "Samples": lambda: samples(table, url),
    "Copies": lambda: copies(report, table, url),
    "Suspects": lambda: suspects(report, table, url),
    "Shortcuts": lambda: shortcuts(report),
    "Map": lambda: embedding_map(shown.audit, table, url),
}
view = st.segmented_control("View", list(views), default="Overview", label_visibility="collapsed") or "Overview"
views[view]()
