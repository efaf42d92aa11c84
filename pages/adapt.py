"""Your own laboratory: a few of its cells make a new model, and what it gained is told by cells it never saw."""

from __future__ import annotations

import io
import re
import tempfile
import threading
import zipfile
from pathlib import Path

import pandas as pd
import streamlit as st
from PIL import Image

from pages import shared
from zoo.adaptation import LEAST, MOST, Adapted, adapt, can_adapt
from zoo.entry import Entry, EntryError, read_predictions
from zoo.imaging.decode import SUFFIXES
from zoo.scores.bootstrap import Interval

LOOSE = "without a label"
COLUMNS = 3
MADE = "adapted"  # key: what this session made last


@st.cache_resource
def one_at_a_time() -> threading.Lock:
    """Of all sessions one adapts: it takes every core there is."""
    return threading.Lock()


def pick() -> Entry:
    """The model that is to learn."""
    # what was made here is no start for more: its cells would be judged by what knows them
    made = {entry.id for entry in st.session_state.get(shared.OWN, [])}
    found = [entry for entry in shared.usable_entries() if can_adapt(entry) and entry.id not in made]
    if not found:
        st.info("No model here can be adapted: it takes a network with a linear last layer.")
        st.stop()
    ids = [entry.id for entry in found]
    current = st.session_state.get(shared.MODEL)
    titles = {entry.id: entry.title for entry in found}
    place = ids.index(current) if current in ids else 0
    picked = st.selectbox("Model", ids, place, format_func=titles.get, help="Networks only: ensembles and forests not.")
    return shared.fetched(found[ids.index(picked)])


def take(entry: Entry) -> tuple[list[Image.Image], list[str | None], list[str]]:
    """Pictures, labels and names as they were uploaded, a place for each class; unreadable ones are named."""
    images, labels, names = [], [], []
    kinds = [suffix[1:] for suffix in SUFFIXES]
    for row in shared.chunks([*entry.labels, LOOSE], COLUMNS):
        for column, label in zip(st.columns(COLUMNS), row, strict=False):
            title = entry.describe(label) if label in entry.labels else label
            key = f"adapt {label}"
            files = column.file_uploader(title.capitalize(), type=kinds, accept_multiple_files=True, key=key)
            for file in files[:MOST]:
                image = shared.decoded(file.file_id, file.getvalue())
                if isinstance(image, str):
                    column.warning(f"{shared.plain(file.name)} was left out: {image}")
                    continue
                images.append(image)
                labels.append(None if label == LOOSE else label)
                names.append(f"{label}/{len(names)}-{file.name}")
    return images, labels, names


def missing(labels: list[str | None]) -> str | None:
    """What has still to be given before it can begin."""
    counts = pd.Series([label for label in labels if label is not None], dtype=object).value_counts()
    few = counts[counts < LEAST]
    if len(few):
        return f"{LEAST - few.iloc[0]} more of {few.index[0]}: it takes {LEAST} of a class."
    if len(counts) == 1:
        return f"Cells of another class: with {counts.index[0]} alone there is nothing to tell apart."
    if not len(counts) and len(labels) < 2 * LEAST:
        return f"{LEAST} cells of two classes at least, or {2 * LEAST} pictures without labels."
    return None


def work(entry: Entry, name: str, given: tuple[list[Image.Image], list[str | None], list[str]]) -> None:
    """Adapt, with a progress bar; what comes of it stays for the session."""
    bar = st.progress(0.0, "Waiting for another visitor's model …")
    images, labels, names = given

    def say(share: float, what: str) -> None:
        bar.progress(min(share, 1.0), f"{what.capitalize()} …")

    place = tempfile.TemporaryDirectory(prefix="hemazoo-")
    try:
        with one_at_a_time():
            made = adapt(entry, images, labels, Path(place.name) / f"{entry.id}-{name}", name, names, say)
    except EntryError as error:
        st.error(shared.plain(error))
        return
    finally:
        bar.empty()
    # the folder lives as long as the session does
    st.session_state[MADE] = (made, place)
    st.session_state[shared.OWN] = [made.entry]
    st.rerun()


def show(made: Adapted) -> None:
    """What it gained, and how to keep it."""
    st.subheader(shared.plain(made.entry.title))
    if made.before and made.after and made.gain:
        before, after, gain = st.columns(3)
        before.metric("Before", f"{100 * made.before.value:.1f} %", help=span(made.before))
        after.metric("After", f"{100 * made.after.value:.1f} %", help=span(made.after))
        gain.metric("Gained", f"{100 * made.gain.value:+.1f} points", help=span(made.gain))
        sure = (
            "That is more than chance."
            if made.gain.low > 0
            else "**That may be chance**: its interval holds zero. More cells would tell."
        )
        st.markdown(
            f"Balanced accuracy on {made.labelled} of your cells, each judged by a model that was made without it; the "
            f"gain lies between {100 * made.gain.low:.1f} and {100 * made.gain.high:.1f} points (95 %). {sure}"
        )
        name = next(iter(made.entry.evaluation.benchmarks))
        table = read_predictions(made.entry, name)
        st.download_button("Answers as CSV", shared.csv(table), f"{name}.csv", icon=":material/download:")
    else:
        st.markdown(
            f"{100 * made.agree:.0f} % of its answers are those of the model before. **Whether it gained, nobody knows "
            f"without labels**: give {LEAST} cells of each class to be told."
        )
    st.caption(f"Changed: {shared.plain(made.choice)}.")
    keep, use = st.columns(2)
    keep.download_button(
        "Model as ZIP",
        zipped(made.entry),
        f"{made.entry.id}.zip",
        "application/zip",
        icon=":material/download:",
        width="stretch",
        help="Unpack it into a folder and name that in HEMAZOO_ZOO, or publish it.",
    )
    if use.button("Classify with it", icon=":material/biotech:", type="primary", width="stretch"):
        st.session_state[shared.MODEL] = made.entry.id
        st.switch_page("pages/classify.py")


def span(found: Interval) -> str:
    """An interval in words."""
    return f"95 %: {100 * found.low:.1f} to {100 * found.high:.1f}"


def zipped(entry: Entry) -> bytes:
    """The entry's folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(p for p in entry.folder.rglob("*") if p.is_file()):
            file.write(path, f"{entry.id}/{path.relative_to(entry.folder)}")
    return buffer.getvalue()


shared.page("Adapt to your laboratory")
st.markdown(
    f"Stains and cameras differ, and models err where they never were. Give {LEAST} cells of each class or more, "
    "or pictures without labels, and a model learns how cells look in your laboratory. It takes a minute or two; "
    "your pictures stay in the memory of this session."
)
result = st.container(border=MADE in st.session_state)
left, right = st.columns([2, 1])
with left:
    entry = pick()
with right:
    given_name = st.text_input("Name of your laboratory", "my-lab", max_chars=40)
name = re.sub(r"[^A-Za-z0-9._-]+", "-", given_name).strip("-._") or "my-lab"
given = take(entry)
if MADE in st.session_state:
    with result:
        show(st.session_state[MADE][0])
lacking = missing(given[1])
if lacking:
    st.info(f"Still to come: {shared.plain(lacking)}", icon=":material/upload:")
if st.button("Adapt", type="primary", icon=":material/tune:", disabled=lacking is not None):
    work(entry, name, given)
