"""Classify page: cells found, named and reviewed; a class for each picture where there is no detector."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import streamlit as st

from pages.parts import layout, pickers, plots, progress, samples, session, wording
from pages.parts.pictures import gallery, uploads
from pages.parts.review import examples as first_pictures
from pages.parts.review import found, kept, page
from pages.parts.review.found import Examined
from pages.parts.session import Picture
from zoo.api import default_runtime
from zoo.detection.objects import WHITE
from zoo.entry import Entry, EntryError
from zoo.figures import prediction as figures
from zoo.lazy import lazy_module
from zoo.review.kinds import kind_named
from zoo.scores.sample.samples import Sample
from zoo.serving.batch import FileResult, classify_files
from zoo.serving.requests import BusyError
from zoo.serving.results import Prediction, with_sample

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

RESULTS = "results"  # session key: results by model, then by picture id
REDRAW_SECONDS = 0.4  # between two updates of the table while pictures are classified
LIVE_TABLE_PIXELS = 280

Answers = list[tuple[Picture, Prediction]]


def classify(entry: Entry, sample: Sample, pictures: list[Picture]) -> dict[str, FileResult]:
    """Classify the pictures that have no result yet, with a progress bar and a table that grows; it can be stopped.

    Results are kept for all samples: `answers_of` applies another one without running the network.

    Returns:
        Results of this session by picture id.
    """
    results = st.session_state.setdefault(RESULTS, {}).setdefault((entry.folder, entry.weights), {})
    new = [picture for picture in pictures if picture.id not in results]
    if not new:
        return results
    others = default_runtime().waiting()
    text = f"{others} pictures of other visitors are waiting too" if others else "loading the model"
    unfinished, drawn = [picture.id for picture in new], time.monotonic()
    with progress.long_work("stop pictures", session.stop, unfinished) as work:
        live = st.empty()
        work.show(0.0, f"Classifying {wording.counted(len(new), 'pictures')}: {text} …", at_once=len(new) > 1)
        stream = classify_files(default_runtime(), entry, ((p.name, p.data) for p in new), client=session.client())
        with closing(stream):
            for done, (picture, result) in enumerate(zip(new, stream, strict=True), 1):
                results[picture.id] = result
                unfinished.pop(0)
                if time.monotonic() - drawn > REDRAW_SECONDS:
                    work.show(done / len(new), f"{done:,} of {len(new):,} pictures classified")
                    answers = answers_of(entry, sample, new[:done], results)
                    live.dataframe(result_table(entry, answers), hide_index=True, height=LIVE_TABLE_PIXELS)
                    drawn = time.monotonic()
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
        if about := kind_named(prediction.label).description:
            st.caption(wording.plain(about))
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
        alt=f"{picture.name}: {prediction.label}",
    )
    if found.notes:
        notes = "; ".join(found.notes)
        left.caption(wording.plain(f"{notes[0].upper()}{notes[1:]}."))
    with right:
        names = entry.class_names
        plots.chart(figures.probability_bars(prediction.probabilities, prediction.label, names))
    if picture.credit:
        st.caption(wording.plain(picture.credit))


def examine(
    entry: Entry, sample: Sample, pictures: list[Picture], results: dict[str, FileResult], fields: list[Examined]
) -> list[Examined]:
    """All pictures that have an answer, fields and those that were classified as a whole, in the session's order."""
    by_id = {one.picture.id: one for one in fields}
    for picture, prediction in answers_of(entry, sample, [p for p in pictures if p.id not in by_id], results):
        one = found.whole(picture, prediction)
        if one is not None:
            by_id[picture.id] = one
    return [by_id[picture.id] for picture in pictures if picture.id in by_id]


def show_unrecognised(examined: list[Examined]) -> None:
    """Say how many pictures or cells show no recognisable cell, or are unlike the training cells."""
    predictions = [prediction for one in examined for prediction in one.predictions.values()]
    word = "cells" if any(one.found is not None for one in examined) else "pictures"
    unknown = sum(prediction.familiarity == "unknown" for prediction in predictions)
    if unknown:
        st.error(
            f"{unknown} of {len(predictions)} {word} show no recognisable blood cell and are not counted.",
            icon=":material/block:",
        )
        st.toggle("Count them anyway", key=found.COUNT_UNKNOWN)
    shifted = sum(prediction.familiarity == "shifted" for prediction in predictions)
    if shifted:
        st.warning(
            f"{shifted} of {len(predictions)} {word} are unlike the training cells. {wording.check_answers(entry)}",
            icon=":material/help:",
        )


def show_empty(fields: list[Examined]) -> None:
    """Name the fields in which no white cell was found, in one box however many they are."""
    told = [(one.picture.name, wording.counted(len(one.cells), "other cells")) for one in fields]
    if len(told) == 1:
        name, others = told[0]
        st.info(f"{wording.plain(name)}: no white cell was found, only {others}.")
    elif told:
        st.info(
            f"In {len(told):,} pictures no white cell was found, only other cells. If each shows one cell, such as a "
            "platelet, choose “One answer a picture” above."
        )
        with st.expander("Pictures without a white cell", icon=":material/list:"):
            st.dataframe(pd.DataFrame(told, columns=["file", "found"]), hide_index=True)


def show_many(entry: Entry, sample: Sample, examined: list[Examined]) -> None:
    """Show several cells: their number, fields without cells, warnings, and the review."""
    fields = [one for one in examined if one.found is not None]
    white = sum(cell.object == WHITE for one in fields for cell in one.cells)
    cells = wording.counted(white, "white cells")
    title = cells if len(examined) == 1 else wording.counted(len(examined), "pictures")
    if fields and len(examined) > 1:
        title += f", {len(fields)} of them fields with {cells}"
    st.subheader(title, help="Click a cell to see it large and to correct it.")
    show_empty([one for one in fields if not any(cell.object == WHITE for cell in one.cells)])
    show_unrecognised(examined)
    page.show(entry, sample, examined)


layout.page("Classify blood cells")
kept.restore()
# on a telephone the answers would stand below the fold
inputs = (
    st.expander("Pictures, model and sample", expanded=not session.pictures(), icon=":material/upload:")
    if layout.on_telephone()
    else st.container()
)
upload, model, blood = inputs.columns([2, 1, 1], gap="medium")
with upload:
    uploads.picture_input("classify")
    found.offer_whole_pictures()
with model:
    entry = pickers.pick_model()
with blood:
    sample = samples.pick_sample(entry)
if not session.pictures():
    first_pictures.offer()
    st.stop()
progress.tell_stopped()
pictures = session.wanted_pictures()
try:
    fields, whole_pictures = found.find_and_name(entry, sample, pictures)
    results = classify(entry, sample, whole_pictures)
except (EntryError, BusyError) as error:
    st.error(wording.plain(error))
    st.stop()
show_failures(whole_pictures, results)
examined = examine(entry, sample, pictures, results, fields)
if len(examined) == 1 and examined[0].found is None:
    show_one(entry, examined[0].picture, examined[0].predictions[1])
    st.page_link("pages/explain.py", label="See why", icon=":material/center_focus_strong:")
    page.show_single(entry, sample, examined[0])
elif examined:
    show_many(entry, sample, examined)
# after the answers, which would wait for the writing
kept.save(entry, sample)
kept.show_address()
