"""Which cell is it? Upload pictures, get a class for each, and the differential count."""

from __future__ import annotations

import time

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from PIL import Image
from streamlit.elements.lib.column_types import ColumnConfig

from pages import shared
from zoo.api import default_runtime
from zoo.entry import Entry, EntryError
from zoo.scores.predictions import differential_count
from zoo.serving.batch import FileResult, classify_files
from zoo.serving.runtime import BusyError

RESULTS = "results"  # key of the session's results: model → picture id → FileResult
REDRAW_SECONDS = 0.4
LEAST_WIDTH, MARGIN, LETTER = 80, 36, 7  # of a column, its padding with the sign for sorting, and a letter, in pixels


def classify(entry: Entry, pictures: list[shared.Picture]) -> dict[str, FileResult]:
    """Results of all pictures, computing those that are new, with a progress bar and results as they come."""
    version = entry.folder, entry.weights
    known = st.session_state.setdefault(RESULTS, {}).setdefault(version, {})
    new = [picture for picture in pictures if picture.id not in known]
    if not new:
        return known
    place = st.container()
    progress, live = place.progress(0.0, f"Classifying {len(new)} pictures …"), place.empty()
    others = default_runtime().waiting()
    if others:
        progress.progress(0.0, f"Classifying {len(new)} pictures, in turn with {others} of others …")
    started = drawn = time.monotonic()
    found = classify_files(default_runtime(), entry, ((p.name, p.data) for p in new), client=shared.client())
    for done, (picture, result) in enumerate(zip(new, found, strict=True), 1):
        known[picture.id] = result
        if time.monotonic() - drawn > REDRAW_SECONDS:
            left = (time.monotonic() - started) / done * (len(new) - done)
            progress.progress(done / len(new), f"{done} of {len(new)} pictures classified, about {left:.0f} s left")
            live.dataframe(table(entry, new[:done], known), hide_index=True, height=280)
            drawn = time.monotonic()
    progress.empty()
    live.empty()
    return known


def table(entry: Entry, pictures: list[shared.Picture], results: dict[str, FileResult]) -> pd.DataFrame:
    """One row a classified picture: file, label, confidence at home and elsewhere, familiarity, a column a label."""
    rows = []
    for picture in pictures:
        prediction = results[picture.id].prediction
        if prediction:
            first = {"file": picture.name, "label": prediction.label, "confidence": prediction.confidence}
            first |= {} if prediction.unseen_confidence is None else {"elsewhere": prediction.unseen_confidence}
            gate = {} if prediction.familiarity is None else {"familiarity": prediction.familiarity}
            rows.append(first | gate | prediction.probabilities)
    gated = ["familiarity"] if any("familiarity" in row for row in rows) else []
    out_there = ["elsewhere"] if entry.other_laboratories else []
    return pd.DataFrame(rows, columns=["file", "label", "confidence", *out_there, *gated, *entry.labels])


def count_chart(count: pd.DataFrame) -> go.Figure:
    """Shares of the differential count with their intervals as error bars."""
    figure = go.Figure(
        go.Bar(
            x=count["share"],
            y=count["label"],
            orientation="h",
            marker_color=shared.ACCENT,
            customdata=count[["count", "low", "high"]],
            error_x={
                "type": "data",
                "array": count["high"] - count["share"],
                "arrayminus": count["share"] - count["low"],
                "color": "#888",
            },
            hovertemplate="%{y}: %{customdata[0]} cells, %{x:.1%}<br>"
            "%{customdata[1]:.1%} to %{customdata[2]:.1%}<extra></extra>",
        )
    )
    figure.update_layout(
        height=60 + 34 * len(count),
        margin={"l": 0, "r": 0, "t": 4, "b": 4},
        xaxis={"range": [0, 1], "tickformat": ".0%", "fixedrange": True},
        yaxis={"autorange": "reversed", "fixedrange": True, "automargin": True},
    )
    return figure


def show_count(labels: list[str], entry: Entry) -> None:
    """The differential count: chart, table and download."""
    st.subheader("Differential count")
    count = differential_count(labels, entry.labels)
    chart, numbers = st.columns([3, 2])
    chart.plotly_chart(count_chart(count), config=shared.CHART)
    ends = zip(count["low"], count["high"], strict=True)
    shown = count.assign(
        share=[f"{100 * share:.1f} %" for share in count["share"]],
        interval=[f"{100 * low:.1f} to {100 * high:.1f} %" for low, high in ends],
    )[["label", "count", "share", "interval"]]
    numbers.dataframe(shown, hide_index=True, column_config={"interval": "95 % interval"})
    st.caption(
        f"{len(labels)} cells. Intervals (Wilson) tell how much the count can vary by chance; errors of the model come "
        "on top. A laboratory's differential counts at least 100 cells."
    )
    numbers.download_button(
        "Count as CSV", shared.csv(count), "differential-count.csv", "text/csv", icon=":material/download:"
    )


def show_one(entry: Entry, picture: shared.Picture, result: FileResult) -> None:
    """One picture large, with a bar for each label."""
    image = shared.decoded(picture.id, picture.data)
    if result.prediction is None or not isinstance(image, Image.Image):
        return
    prediction = result.prediction
    shared.warn_of_strangers(entry, prediction)
    st.markdown(f"#### {shared.plain(entry.describe(prediction.label))} · {100 * prediction.confidence:.1f} %")
    shared.say_how_sure(entry, prediction)
    left, right = st.columns([2, 3])
    left.image(
        image,
        caption=f"{picture.name}, {image.width}×{image.height}, answered in {1000 * prediction.seconds:.0f} ms",
        width="stretch",
    )
    right.plotly_chart(shared.probability_bars(entry, prediction), config=shared.CHART)
    if picture.credit:
        st.caption(shared.plain(picture.credit))


def show_failures(pictures: list[shared.Picture], results: dict[str, FileResult]) -> None:
    """The files that could not be classified, each with its reason."""
    failed = [(picture.name, results[picture.id].error) for picture in pictures if results[picture.id].error]
    if failed:
        word = "file" if len(failed) == 1 else "files"
        st.warning(f"{len(failed)} {word} could not be classified:", icon=":material/error:")
        st.dataframe(pd.DataFrame(failed, columns=["file", "reason"]), hide_index=True)


def share_column(title: str, told: str | None = None) -> ColumnConfig:
    """A column of bars from 0 to 1, wide enough for its whole title."""
    width = max(LEAST_WIDTH, MARGIN + LETTER * len(title))
    return st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1, width=width, help=told)


def show_table(entry: Entry, pictures: list[shared.Picture], results: dict[str, FileResult]) -> shared.Picture:
    """The table of all results; returns the picture of the selected row, else of the first."""
    found = table(entry, pictures, results)
    shown = found.copy()
    shown.insert(0, "picture", [shared.thumbnail(p.id, p.data) for p in pictures])
    event = st.dataframe(
        shown,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"table {entry.id}",
        row_height=44,
        height=min(44 * len(shown) + 40, 420),
        column_config={
            "picture": st.column_config.ImageColumn(width="small"),
            "confidence": share_column("confidence"),
            "elsewhere": share_column(
                "elsewhere", "How sure the answer is if the picture is from a laboratory that the model never saw."
            ),
            "familiarity": st.column_config.TextColumn(
                help="Familiar: like the cells that this model was trained on. Shifted: a cell of another laboratory, "
                "stain or camera, or no cell. Unknown: like no cell of any laboratory."
            ),
            **{label: share_column(label) for label in entry.labels},
        },
    )
    st.download_button("Results as CSV", shared.csv(found), f"{entry.id}.csv", "text/csv", icon=":material/download:")
    rows = event["selection"]["rows"]
    return pictures[rows[0] if rows and rows[0] < len(pictures) else 0]


shared.page("Classify blood cells")
model, upload = st.columns([2, 3], gap="large")
with model:
    entry = shared.pick_model()
with upload:
    shared.picture_input("classify")
pictures = shared.pictures()
if not pictures:
    st.info(
        "Drop pictures above, take one with the camera, or fetch some examples.",
        icon=":material/upload:",
    )
    st.page_link("pages/examples.py", label="No picture at hand? Open the examples", icon=":material/photo_library:")
    st.stop()
try:
    results = classify(entry, pictures)
except (EntryError, BusyError) as error:
    st.error(shared.plain(error))
    st.stop()
show_failures(pictures, results)
good = [picture for picture in pictures if results[picture.id].prediction]
if len(good) == 1:
    show_one(entry, good[0], results[good[0].id])
    st.download_button(
        "Result as CSV",
        shared.csv(table(entry, good, results)),
        f"{entry.id}.csv",
        "text/csv",
        icon=":material/download:",
    )
elif good:
    st.subheader(f"{len(good)} pictures")
    st.caption("Click a column's name to sort, a row's left edge to see that picture.")
    chosen = show_table(entry, good, results)
    show_one(entry, chosen, results[chosen.id])
    answers = [results[picture.id].prediction for picture in good]
    shifted = sum(answer.familiarity == "shifted" for answer in answers)
    unknown = sum(answer.familiarity == "unknown" for answer in answers)
    if shifted:
        st.warning(
            f"{shifted} of {len(answers)} pictures are unlike the cells that this model was trained on: another "
            f"laboratory, stain or camera, or no cell. {shared.elsewhere(entry)}",
            icon=":material/help:",
        )
    everything = True
    if unknown:
        st.error(
            f"{unknown} of {len(answers)} pictures are like no cell that was seen in any laboratory: do not believe "
            "their classes. They are not counted.",
            icon=":material/block:",
        )
        everything = st.toggle("Count them all the same", key="count strangers")
    counted = [answer.label for answer in answers if everything or answer.familiarity != "unknown"]
    if counted:
        show_count(counted, entry)
if good:
    st.page_link("pages/explain.py", label="See why", icon=":material/center_focus_strong:")
