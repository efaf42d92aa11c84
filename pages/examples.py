"""Examples page: smear frames to download and try, or pictures that the operator offers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.parts import layout, session
from pages.parts.pictures import gallery
from pages.parts.review import examples as first_pictures
from pages.parts.wording import counted, plain
from zoo.sources.examples import VARIABLE, Example, ExamplesError, fetch, list_examples

COLUMNS = 4
FRAME_BYTES = 21_000  # typical size of a frame in the manifest


def show(column: DeltaGenerator, example: Example, path: Path, key: str) -> None:
    """Show one example with a button that adds it to the session's pictures."""
    data, name = path.read_bytes(), Path(example.name).name
    with column.container(border=True):
        image = gallery.decoded(hashlib.sha256(data).hexdigest(), data, name)
        if isinstance(image, str):
            st.warning(f"{plain(example.name)}: {image}")
            return
        st.image(image, width="stretch", alt=f"{name}: {example.label or 'a smear'}")
        st.caption(plain(name + (f", {example.label}" if example.label else "")))
        if st.button("Use", key=key, icon=":material/add:", width="stretch"):
            session.add_picture(name, data, example.credit)
            st.toast(f"{plain(name)} was added to your pictures.")


def fetch_all(examples: list[Example]) -> list[Example]:
    """Download the missing examples with a progress bar; the first failure is shown and ends it."""
    missing = [example for example in examples if example.path is None]
    bar = st.progress(0.0, "Downloading …")
    fetched = {}
    for done, example in enumerate(missing, 1):
        try:
            fetched[example.name] = fetch(example)
        except ExamplesError as error:
            st.error(plain(error))
            break
        bar.progress(done / len(missing), f"{done} of {len(missing)} downloaded")
    bar.empty()
    return [fetched.get(example.name, example) for example in examples]


def offer_download(examples: list[Example]) -> list[Example]:
    """A button that downloads the missing examples; returns all examples."""
    missing = [example for example in examples if example.path is None]
    if not missing:
        return examples
    if missing[0].origin is None:
        st.markdown(
            f"{len(examples)} smear frames, three for each of four kinds of white cell; no built-in model was trained "
            "on them.",
            help=f"640×480 pixels, from a test split. They are downloaded once and checked. To offer your own pictures "
            f"instead, name their folder or their repository on the Hub in {VARIABLE}.",
        )
    size = sum(example.bytes or FRAME_BYTES for example in missing) / 1000
    label = f"Download {counted(len(missing), 'pictures')} (about {size:,.0f} KB)"
    return fetch_all(examples) if st.button(label, type="primary", icon=":material/download:") else examples


layout.page("Examples")
if not os.environ.get(VARIABLE):
    if first_pictures.offer("Classify one of these pictures, or all of them.", more=False):
        st.switch_page("pages/classify.py")
    st.subheader("More to download")
try:
    examples = offer_download(list_examples())
except ExamplesError as error:
    st.error(plain(error))
    st.stop()
if examples:
    st.caption(f"Credit: {plain(examples[0].credit)}.")
local = [(example, example.path) for example in examples if example.path is not None]
if local:
    if st.button(f"Classify all {len(local)}", type="primary", icon=":material/biotech:"):
        for example, path in local:
            session.add_picture(Path(example.name).name, path.read_bytes(), example.credit)
        st.switch_page("pages/classify.py")
    if session.pictures():
        label = f"Classify your {counted(len(session.pictures()), 'pictures')}"
        st.page_link("pages/classify.py", label=label, icon=":material/biotech:")
    for row, part in enumerate(gallery.chunks(local, COLUMNS)):
        for place, (column, (example, path)) in enumerate(zip(st.columns(COLUMNS), part, strict=False)):
            show(column, example, path, f"use {COLUMNS * row + place}")
