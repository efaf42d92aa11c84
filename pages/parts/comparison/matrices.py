"""Confusion matrices of several models, the images behind their cells, and the difference of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from PIL import Image

from pages.parts import layout, plots
from pages.parts.comparison import scored
from pages.parts.comparison.scored import ScoredModel
from pages.parts.pictures import gallery
from pages.parts.tables import downloads
from pages.parts.wording import counted, plain, points
from zoo.api import default_runtime
from zoo.attribution import METHODS, ExplanationError
from zoo.attribution.overlay import overlay
from zoo.benchmarks import find_source
from zoo.benchmarks.comparison import confused_images
from zoo.benchmarks.thumbnails import thumbnail
from zoo.data import Source
from zoo.data.offered import offered_folders
from zoo.entry import EntryError
from zoo.figures import confusion as figures
from zoo.imaging.decode import PictureError
from zoo.lazy import lazy_module
from zoo.review.kinds import kind_named
from zoo.scores.predictions import table_confusion
from zoo.serving.requests import BusyError

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

MAX_PICTURES = 24  # shown of the images behind a cell
PICTURES_PER_ROW = 6


def show_matrices(models: Sequence[ScoredModel], labels: list[str]) -> None:
    """Show all matrices on one colour scale; a chosen cell shows the images behind it."""
    st.subheader("Confusion matrices", help="Choose a cell to see the images behind it.")
    normalisation = st.segmented_control(
        "Normalisation",
        figures.NORMALISATIONS,
        default=figures.BY_TRUE,
        required=True,
        key="matrix",
        bind="query-params",
        label_visibility="collapsed",
    )
    counts = {model.title: table_confusion(model.table, labels) for model in models}
    is_count = normalisation == figures.COUNTS
    scale_end = float(max((c.max() for c in counts.values()), default=1)) if is_count else 1.0
    names, short = class_names(models), short_names(labels)
    if short:
        st.caption(", ".join(f"{short[label]}: {plain(names.get(label, label))}" for label in labels) + ".")
    for part in gallery.chunks(models, 2):
        chosen: tuple[ScoredModel, str, str] | None = None
        for column, model in zip(st.columns(2, gap="large"), part, strict=False):
            with column:
                st.markdown(f"**{plain(model.title)}** · {'images' if is_count else '% ' + normalisation}")
                figure = figures.confusion(counts[model.title], labels, normalisation, scale_end, names, short)
                for true, predicted in plots.selectable(figure, f"confusion {model.entry.id}")[:1]:
                    chosen = (model, true, predicted)
                table = pd.DataFrame(counts[model.title], index=labels, columns=labels)
                downloads(table.rename_axis("true").reset_index(), f"confusion-{model.entry.id}")
        if chosen:  # below its own matrix, where the click was
            _show_confused(*chosen, labels)
    if len(models) > 1:
        _show_difference(models, counts, labels, normalisation)


def class_names(models: Sequence[ScoredModel]) -> dict[str, str]:
    """Classes of all models written out, by label."""
    return {label: name for model in reversed(models) for label, name in model.entry.class_names.items()}


def short_names(labels: Sequence[str]) -> dict[str, str] | None:
    """Classes in few letters for the narrow figures of a telephone, by label; None elsewhere."""
    return {label: kind_named(label).short for label in labels} if layout.on_telephone() else None


def _show_confused(model: ScoredModel, true: str, predicted: str, labels: list[str]) -> None:
    """Show the images behind a cell of a matrix."""
    rows = confused_images(model.table, labels, true, predicted)
    names = model.entry.class_names
    wrong = f"{plain(names.get(true, true))} classified as {plain(names.get(predicted, predicted))}"
    st.markdown(f"**{counted(len(rows), 'images')}** of {wrong} by {plain(model.title)}")
    show_pictures(rows.head(MAX_PICTURES), model, f"behind {true} {predicted}")
    if len(rows) > MAX_PICTURES:
        st.caption(f"The {MAX_PICTURES} most confident are shown; the table has all.")
    downloads(rows, f"{model.entry.id}-{true}-called-{predicted}")


def show_pictures(rows: pd.DataFrame, model: ScoredModel, key: str) -> None:
    """Show pictures of a prediction table with their answers; a table if the data set is not available."""
    entry = model.entry
    sources = {file: find_source(model.name, file, entry.data_set, offered_folders()) for file in rows["file"]}
    shown: dict[str, Source | Image.Image | None] = {
        file: source or thumbnail(model.name, str(file)) for file, source in sources.items()
    }
    if not any(shown.values()):
        st.dataframe(rows, hide_index=True)
        if len(rows):
            st.caption("To see the pictures, name the data sets' folders in HEMAZOO_DATASETS.")
        return
    for part in gallery.chunks(list(rows.to_dict("records")), PICTURES_PER_ROW):
        for column, row in zip(st.columns(PICTURES_PER_ROW), part, strict=False):
            with column:
                _show_picture(model, {str(name): value for name, value in row.items()}, shown[row["file"]], key)


def _show_picture(model: ScoredModel, row: Mapping[str, object], source: Source | Image.Image | None, key: str) -> None:
    """Show one picture with its answer, and offer its explanation where it is more than a thumbnail."""
    file, names = str(row["file"]), model.entry.class_names
    label = names.get(str(row["label"]), str(row["label"]))
    if source is not None:
        try:
            image = source if isinstance(source, Image.Image) else source.image()
            st.image(image, width="stretch", alt=f"{Path(file).name}: {label}")
        except PictureError as error:
            st.caption(str(error))
    probabilities = {label: float(str(row[label])) for label in model.benchmark.labels}
    predicted = max(probabilities, key=lambda label: probabilities[label])
    answer = f"{label}, classified as {names.get(predicted, predicted)} ({100 * probabilities[predicted]:.0f} %)"
    st.caption(plain(answer), help=plain(Path(file).name))
    if (
        source
        and not isinstance(source, Image.Image)
        and model.entry.usable
        and st.button("Why?", key=f"{key} {file}", width="stretch")
    ):
        _explain(model, file, source)


@st.dialog("Why?", width="large")
def _explain(model: ScoredModel, file: str, source: Source) -> None:
    """Show a picture beside its explanation map."""
    try:
        image = source.image()
        explanation = default_runtime().explain(model.entry, image)
    except (PictureError, EntryError, ExplanationError, BusyError) as error:
        st.error(plain(error))
        return
    left, right = st.columns(2)
    prediction = explanation.prediction
    about = model.entry.class_names[prediction.label]
    left.image(image, width="stretch", caption=file, alt=f"Picture {file}")
    right.image(
        overlay(image, explanation.values),
        width="stretch",
        caption=f"{METHODS[explanation.method].title} for {about} ({100 * prediction.confidence:.1f} %): "
        "bright is evidence for it",
        alt=f"Map of the evidence for {about} on {file}",
    )


def _show_difference(
    models: Sequence[ScoredModel], counts: Mapping[str, np.ndarray], labels: list[str], normalisation: str
) -> None:
    """Show the difference of two models' matrices, and whether it is significant."""
    st.subheader("Difference of two")
    left, right = st.columns(2)
    with left:
        first = pick_scored("First", models, 0, "first")
    with right:
        second = pick_scored("minus second", models, 1, "second")
    difference = scored.difference(first, second, labels)
    if difference is None:
        st.info("The two models were scored on different pictures, so there is no difference to show.")
        return
    gap, test = difference
    verdict = "significant" if gap.excludes_zero else "not significant"
    st.markdown(
        f"Accuracy of **{plain(first.title)}** minus **{plain(second.title)}**: {points(gap.value)} points "
        f"({points(gap.low)} to {points(gap.high)}), {verdict}.",
        help=f"Paired 95 % interval over source cells. Cells that only the first classifies correctly: "
        f"{test.first_only}, only the second: {test.second_only} (exact McNemar test, p = {test.p:.2g}).",
    )
    left, _ = st.columns(2, gap="large")
    with left:
        names, short = class_names(models), short_names(labels)
        figure = figures.difference(counts[first.title], counts[second.title], labels, normalisation, names, short)
        plots.downloadable(figure, "difference")


def pick_scored(label: str, models: Sequence[ScoredModel], index: int, key: str) -> ScoredModel:
    """Choose one of the models that are compared."""
    by_id = {model.entry.id: model for model in models}
    return by_id[st.selectbox(label, list(by_id), index, format_func=lambda i: by_id[i].title, key=key)]
