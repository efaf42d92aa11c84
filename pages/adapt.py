"""Adapt page: a few cells of a laboratory make a new model, scored by cross-validation on these cells."""

from __future__ import annotations

import io
import re
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st
from PIL import Image

from pages.parts import entries as zoo_entries
from pages.parts import layout, pickers, samples, session, tables
from pages.parts.pictures import gallery
from pages.parts.pictures.folder_upload import pick_folder
from pages.parts.review import kept, teach
from pages.parts.wording import class_description, counted, plain, points
from zoo.adaptation import MAX_PICTURES, MIN_CELLS, MIN_UNLABELLED, Adapted, adapt, can_adapt
from zoo.entry import Entry, EntryError, read_predictions
from zoo.lazy import lazy_module
from zoo.scores.bootstrap import Interval
from zoo.scores.sample.samples import Sample, SampleError

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

UNLABELLED = "without a label"
COLUMNS = 3
RESULT = "adapted"  # session key: the last adapted model and its folder
DEFAULT_NAME, MAX_NAME_LETTERS = "my-lab", 40
NOT_IN_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass
class Given:
    """Pictures with their labels (None: without), file names, and patients or slides (None: unknown)."""

    images: list[Image.Image]
    labels: list[str | None]
    names: list[str]
    groups: list[str | None]


@st.cache_resource
def adaptation_lock() -> threading.Lock:
    """Lock that lets one session at a time adapt: it uses all processor cores."""
    return threading.Lock()


def pick_entry() -> Entry:
    """Choose the model to adapt."""
    # a model made here is no start for another: the cells it is scored on would be known to it
    own = {entry.id for entry in session.own_entries()}
    adaptable = [entry for entry in zoo_entries.usable_entries() if can_adapt(entry) and entry.id not in own]
    if not adaptable:
        st.info("No model here can be adapted: it needs a network with a linear last layer.")
        st.stop()
    titles = {entry.id: entry.title for entry in adaptable}
    entry = pickers.select_entry("Model", adaptable, titles, help_text="Single networks: no ensembles, no forests.")
    return zoo_entries.with_weights(entry)


def upload(entry: Entry) -> Given:
    """A folder, and one uploader for each class; unreadable files are named beside it."""
    folder = pick_folder(entry)
    given = Given([], [], [], [])
    if folder:
        given = Given(list(folder.images), list(folder.labels), list(folder.names), list(folder.groups))
    add_reviewed(entry, given)
    with st.expander("Or give pictures class by class", icon=":material/upload:"):
        add_classes(entry, given)
    return given


def add_classes(entry: Entry, given: Given) -> None:
    """Add the pictures of one uploader for each class, and of one for pictures without a label."""
    for row in gallery.chunks([*entry.labels, UNLABELLED], COLUMNS):
        for column, label in zip(st.columns(COLUMNS), row, strict=False):
            title = class_description(entry, label) if label in entry.labels else label
            files = column.file_uploader(
                title[0].upper() + title[1:],
                type=pickers.PICTURE_TYPES,
                accept_multiple_files=True,
                key=f"adapt {label}",
            )
            for file in files[:MAX_PICTURES]:
                image = gallery.decoded(file.file_id, file.getvalue(), file.name)
                if isinstance(image, str):
                    column.warning(f"{plain(file.name)} was left out: {image}")
                    continue
                given.images.append(image)
                given.labels.append(None if label == UNLABELLED else label)
                given.names.append(f"{label}/{len(given.names)}-{file.name}")
                given.groups.append(None)


def add_reviewed(entry: Entry, given: Given) -> None:
    """Add the cells that were reviewed on Classify, unless the person does not want them."""
    taught, left_out = teach.reviewed_cells(entry)
    if not taught and not left_out:
        return
    wanted = st.toggle(
        f"Use {counted(len(taught), 'cells')} that you reviewed on Classify", value=True, key="use reviewed"
    )
    if left_out:
        st.caption(f"Left out: {counted(left_out, 'reviewed cells')} of a class that the model does not have.")
    for one in taught if wanted else ():
        given.images.append(one.image)
        given.labels.append(one.label)
        given.names.append(one.name)
        given.groups.append(one.group)


def missing(labels: list[str | None]) -> str | None:
    """Sentence saying what is still needed before adapting; None if nothing is."""
    counts = pd.Series([label for label in labels if label is not None], dtype=object).value_counts()
    few = counts[counts < MIN_CELLS]
    if len(few):
        return f"{MIN_CELLS - int(few.iloc[0])} more of {few.index[0]} ({MIN_CELLS} per class)."
    if len(counts) == 1:
        return f"cells of another class than {counts.index[0]}."
    if not len(counts) and len(labels) < MIN_UNLABELLED:
        return f"{MIN_CELLS} cells each of two classes or more, or {MIN_UNLABELLED} pictures without labels."
    return None


def run(entry: Entry, sample: Sample, name: str, given: Given) -> None:
    """Adapt with a progress bar, and keep the result for the session."""
    bar = st.progress(0.0, "Waiting for another visitor's model …")

    def progress(share: float, what: str) -> None:
        bar.progress(min(share, 1.0), f"{what.capitalize()} …")

    folder = tempfile.TemporaryDirectory(prefix="hemazoo-")
    try:
        with adaptation_lock():
            out = Path(folder.name) / f"{entry.id}-{name}"
            # the usual sample stays the one that the model's config or its classes say
            own = None if sample == entry.default_sample else sample
            adapted = adapt(
                entry, given.images, given.labels, out, name, given.names, progress, sample=own, groups=given.groups
            )
    except (EntryError, SampleError) as error:
        st.error(plain(error))
        return
    finally:
        bar.empty()
    # keeping the object keeps the folder for as long as the session lives
    st.session_state[RESULT] = (adapted, folder)
    st.session_state[session.OWN] = [adapted.entry]
    st.rerun()


def show_gain(adapted: Adapted, before: Interval, after: Interval, gain: Interval) -> None:
    """Show the accuracy before and after, and whether the gain is significant."""
    columns = st.columns(3)
    columns[0].metric("Before", f"{100 * before.value:.1f} %", help=interval_text(before))
    columns[1].metric("After", f"{100 * after.value:.1f} %", help=interval_text(after))
    columns[2].metric("Gain", f"{points(gain.value)} points", help=interval_text(gain))
    verdict = "The gain is significant." if gain.low > 0 else "**The gain may be chance**: add more cells to find out."
    st.markdown(
        f"{verdict} Balanced accuracy on {adapted.labelled} of your cells, cross-validated.",
        help=f"Each cell was classified by a model that was made without it; {adapted.folds_told}. "
        f"The gain is between {100 * gain.low:.1f} and {100 * gain.high:.1f} points (95 %).",
    )
    name, benchmark = next(iter(adapted.entry.evaluation.benchmarks.items()))
    st.caption(samples.about(benchmark.sample, adapted.entry))
    tables.csv_button("Answers as CSV", read_predictions(adapted.entry, name), f"{name}.csv")


def show_result(adapted: Adapted) -> None:
    """Show what the adaptation gained, and how to keep the model."""
    st.subheader(plain(adapted.entry.title))
    if adapted.before and adapted.after and adapted.gain:
        show_gain(adapted, adapted.before, adapted.after, adapted.gain)
    else:
        st.markdown(
            f"{100 * adapted.agreement:.0f} % of its answers are unchanged. "
            f"**The gain cannot be measured without labels**: add {MIN_CELLS} cells of each class."
        )
    st.caption(f"Changed: {plain(adapted.choice)}.")
    keep, use = st.columns(2)
    keep.download_button(
        "Model as ZIP",
        zipped(adapted.entry),
        f"{adapted.entry.id}.zip",
        "application/zip",
        icon=":material/download:",
        width="stretch",
        help="Unpack it into a folder and name that in HEMAZOO_ZOO, or publish it.",
    )
    if use.button("Classify with it", icon=":material/biotech:", type="primary", width="stretch"):
        session.choose_model(adapted.entry.id)
        st.switch_page("pages/classify.py")


def interval_text(interval: Interval) -> str:
    """A 95 % interval in words."""
    return f"95 %: {100 * interval.low:.1f} to {100 * interval.high:.1f}"


def zipped(entry: Entry) -> bytes:
    """The entry's folder as a ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(p for p in entry.folder.rglob("*") if p.is_file()):
            file.write(path, f"{entry.id}/{path.relative_to(entry.folder)}")
    return buffer.getvalue()


layout.page("Adapt to your laboratory")
kept.restore()
kept.show_address()
st.markdown(
    f"Give at least {MIN_CELLS} cells of each class, or {MIN_UNLABELLED} pictures without labels: a folder, cells that "
    "you reviewed on Classify, or pictures class by class. The model learns how cells look in your laboratory.",
    help="Stains and cameras differ, so models make more errors in a new laboratory. It takes a minute or two. Your "
    "pictures stay in the memory of this session.",
)
result = st.container(border=RESULT in st.session_state)
left, right = st.columns([2, 1])
with left:
    entry = pick_entry()
    sample = samples.pick_sample(entry)
with right:
    given_name = st.text_input("Name of your laboratory", DEFAULT_NAME, max_chars=MAX_NAME_LETTERS)
name = NOT_IN_NAME.sub("-", given_name).strip("-._") or DEFAULT_NAME
given = upload(entry)
if RESULT in st.session_state:
    with result:
        show_result(st.session_state[RESULT][0])
needed = missing(given.labels)
if needed:
    st.info(f"Still needed: {plain(needed)}", icon=":material/upload:")
if st.button("Adapt", type="primary", icon=":material/tune:", disabled=needed is not None):
    run(entry, sample, name, given)
