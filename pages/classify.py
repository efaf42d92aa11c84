"""Classify page: a class for each picture, and the differential count of many."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig

from pages.parts import gallery, layout, pickers, plots, samples, session, tables, wording
from pages.parts.session import Picture
from zoo.api import default_runtime
from zoo.entry import Entry, EntryError
from zoo.figures import prediction as figures
from zoo.lazy import lazy_module
from zoo.scores.predictions import differential_count
from zoo.scores.samples import Sample
from zoo.serving.batch import FileResult, classify_files
from zoo.serving.requests import BusyError
from zoo.serving.results import Prediction, with_sample

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

RESULTS = "results"  # session key: results by model, then by picture id
REDRAW_SECONDS = 0.4  # between two updates of the table while pictures are classified
MIN_COLUMN_PIXELS, PADDING_PIXELS, LETTER_PIXELS = 80, 36, 7  # of a table column
ROW_PIXELS, MAX_TABLE_PIXELS, LIVE_TABLE_PIXELS = 44, 420, 280

Answers = list[tuple[Picture, Prediction]]


def classify(entry: Entry, sample: Sample, pictures: list[Picture]) -> dict[str, FileResult]:
    """Classify the pictures that have no result yet, with a progress bar and a table that grows.

    Results are kept for all samples: `answers_of` applies another one without running the network.

    Returns:
        Results of this session by picture id.
    """
    results = st.session_state.setdefault(RESULTS, {}).setdefault((entry.folder, entry.weights), {})
    new = [picture for picture in pictures if picture.id not in results]
    if not new:
        return results
    place = st.container()
    bar, live = place.progress(0.0, f"Classifying {len(new)} pictures …"), place.empty()
    others = default_runtime().waiting()
    if others:
        bar.progress(0.0, f"Classifying {len(new)} pictures; {others} of other visitors are waiting too …")
    started = drawn = time.monotonic()
    stream = classify_files(default_runtime(), entry, ((p.name, p.data) for p in new), client=session.client())
    for done, (picture, result) in enumerate(zip(new, stream, strict=True), 1):
        results[picture.id] = result
        if time.monotonic() - drawn > REDRAW_SECONDS:
            left = (time.monotonic() - started) / done * (len(new) - done)
            bar.progress(done / len(new), f"{done} of {len(new)} pictures classified, about {left:.0f} s left")
            answers = answers_of(entry, sample, new[:done], results)
            live.dataframe(result_table(entry, answers), hide_index=True, height=LIVE_TABLE_PIXELS)
            drawn = time.monotonic()
    bar.empty()
    live.empty()
    return results


def answers_of(entry: Entry, sample: Sample, pictures: list[Picture], results: dict[str, FileResult]) -> Answers:
    """The pictures that were classified, with their predictions as pictures of a sample."""
    found = ((picture, results[picture.id].prediction) for picture in pictures)
    return [(picture, with_sample(entry, prediction, sample)) for picture, prediction in found if prediction]


def result_table(entry: Entry, answers: Answers) -> pd.DataFrame:
    """One row a picture: file, label, confidence (also in an unseen laboratory), familiarity, a column a class."""
    rows = []
    for picture, prediction in answers:
        row: dict[str, object] = {
            "file": picture.name,
            "label": None if prediction.warning else prediction.label,
            "confidence": None if prediction.warning else prediction.confidence,
            "elsewhere": None if prediction.warning else prediction.unseen_confidence,
            "familiarity": prediction.familiarity,
        }
        rows.append(row | prediction.probabilities)
    columns = ["file", "label", "confidence"]
    if entry.other_laboratories:
        columns.append("elsewhere")
    if any(prediction.familiarity for _, prediction in answers):
        columns.append("familiarity")
    return pd.DataFrame(rows, columns=[*columns, *entry.labels])


def full_table(entry: Entry, answers: Answers) -> pd.DataFrame:
    """The table to download: also with the sample, and the network's own probabilities before it."""
    more = [
        {"sample": one.sample, **{f"network: {label}": one.network[label] for label in entry.labels}}
        for _, one in answers
    ]
    return pd.concat([result_table(entry, answers), pd.DataFrame(more)], axis="columns")


def show_failures(pictures: list[Picture], results: dict[str, FileResult]) -> None:
    """List the files that could not be classified, with the reasons."""
    failed = [(picture.name, results[picture.id].error) for picture in pictures if results[picture.id].error]
    if failed:
        word = "file" if len(failed) == 1 else "files"
        st.warning(f"{len(failed)} {word} could not be classified:", icon=":material/error:")
        st.dataframe(pd.DataFrame(failed, columns=["file", "reason"]), hide_index=True)


def show_one(entry: Entry, picture: Picture, prediction: Prediction) -> None:
    """Show one picture large, with a bar for each class."""
    found = gallery.read(picture.id, picture.data, picture.name)
    if isinstance(found, str):
        return
    image = found.image
    wording.warn_if_unfamiliar(entry, prediction)
    if not prediction.warning:
        description = wording.class_description(entry, prediction.label)
        st.markdown(f"#### {wording.plain(description)} · {100 * prediction.confidence:.1f} %")
        if text := samples.difference(entry, prediction):
            st.markdown(wording.plain(text))
        wording.show_unseen_confidence(entry, prediction)
    left, right = st.columns([2, 3])
    answered = f"answered in {1000 * prediction.seconds:.0f} ms"
    if prediction.backend:
        answered += f" by {prediction.backend}"
    left.image(
        image,
        caption=f"{picture.name}, {image.width}×{image.height}, {answered}",
        width="stretch",
    )
    if found.notes:
        notes = "; ".join(found.notes)
        left.caption(wording.plain(f"{notes[0].upper()}{notes[1:]}."))
    with right:
        names = wording.class_names(entry)
        plots.chart(figures.probability_bars(prediction.probabilities, prediction.label, names))
    if picture.credit:
        st.caption(wording.plain(picture.credit))


def share_column(title: str, help_text: str | None = None) -> ColumnConfig:
    """A column of bars from 0 to 1, wide enough for its title."""
    width = max(MIN_COLUMN_PIXELS, PADDING_PIXELS + LETTER_PIXELS * len(title))
    return st.column_config.ProgressColumn(
        title, format="percent", min_value=0, max_value=1, width=width, help=help_text
    )


def show_table(entry: Entry, answers: Answers) -> tuple[Picture, Prediction]:
    """Show all results; returns the selected picture with its prediction, else the first."""
    results = result_table(entry, answers)
    shown = results.copy()
    shown.insert(0, "picture", [gallery.thumbnail(picture.id, picture.data, picture.name) for picture, _ in answers])
    event = st.dataframe(
        shown,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"table {entry.id}",
        row_height=ROW_PIXELS,
        height=min(ROW_PIXELS * len(shown) + 40, MAX_TABLE_PIXELS),
        column_config={
            "picture": st.column_config.ImageColumn(width="small"),
            "confidence": share_column("confidence"),
            "elsewhere": share_column(
                "new laboratory", "Expected confidence if the slide comes from a new laboratory."
            ),
            "familiarity": st.column_config.TextColumn(help=wording.FAMILIARITY_HELP),
            **{label: share_column(name) for label, name in wording.class_names(entry).items()},
        },
    )
    predictions = [prediction for _, prediction in answers]
    st.caption(samples.about(predictions[0].sample, entry, predictions))
    tables.csv_button("Results as CSV", full_table(entry, answers), f"{entry.id}.csv")
    rows = event["selection"]["rows"]
    return answers[rows[0] if rows and rows[0] < len(answers) else 0]


def show_count(entry: Entry, predictions: list[Prediction]) -> None:
    """Show the differential count of all pictures with a recognisable cell: chart, table and download."""
    unknown = sum(prediction.familiarity == "unknown" for prediction in predictions)
    include_unknown = True
    if unknown:
        st.error(
            f"{unknown} of {len(predictions)} pictures show no recognisable blood cell and are not counted.",
            icon=":material/block:",
        )
        include_unknown = st.toggle("Count them anyway", key="count unknown")
    labels = [p.label for p in predictions if include_unknown or p.familiarity != "unknown"]
    if not labels:
        return
    st.subheader("Differential count")
    count = differential_count(labels, entry.labels)
    written_out = count.assign(label=count["label"].map(wording.class_names(entry)))
    chart, numbers = st.columns([3, 2])
    with chart:
        plots.chart(figures.differential_count(written_out))
    limits = zip(count["low"], count["high"], strict=True)
    shown = written_out.assign(
        share=[f"{100 * share:.1f} %" for share in count["share"]],
        interval=[f"{100 * low:.1f} to {100 * high:.1f} %" for low, high in limits],
    )[["label", "count", "share", "interval"]]
    numbers.dataframe(shown, hide_index=True, column_config={"interval": "95 % interval"})
    st.caption(
        f"{len(labels)} cells. Count at least 100 for a differential. {samples.about(predictions[0].sample, entry)}",
        help="Intervals (Wilson) show variation by chance; errors of the model come on top.",
    )
    with numbers:
        tables.csv_button("Count as CSV", count.assign(sample=predictions[0].sample), "differential-count.csv")


def show_many(entry: Entry, answers: Answers) -> None:
    """Show several results: table, the selected picture, warnings and the differential count."""
    st.subheader(
        f"{len(answers)} pictures", help="Click a column's name to sort, a row's left edge to see its picture."
    )
    show_one(entry, *show_table(entry, answers))
    predictions = [prediction for _, prediction in answers]
    shifted = sum(prediction.familiarity == "shifted" for prediction in predictions)
    if shifted:
        st.warning(
            f"{shifted} of {len(predictions)} pictures are unlike the training cells. {wording.check_answers(entry)}",
            icon=":material/help:",
        )
    show_count(entry, predictions)


layout.page("Classify blood cells")
model, upload = st.columns([2, 3], gap="medium")
with model:
    entry = pickers.pick_model()
    sample = samples.pick_sample(entry)
with upload:
    pickers.picture_input("classify")
pickers.stop_without_pictures()
pictures = session.pictures()
try:
    results = classify(entry, sample, pictures)
except (EntryError, BusyError) as error:
    st.error(wording.plain(error))
    st.stop()
show_failures(pictures, results)
answers = answers_of(entry, sample, pictures, results)
if len(answers) == 1:
    show_one(entry, *answers[0])
    st.caption(samples.about(sample.name, entry))
    tables.csv_button("Result as CSV", full_table(entry, answers), f"{entry.id}.csv")
elif answers:
    show_many(entry, answers)
if answers:
    st.page_link("pages/explain.py", label="See why", icon=":material/center_focus_strong:")
