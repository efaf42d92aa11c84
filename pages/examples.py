"""Pictures to try: twelve smear frames, fetched on a click, or those the operator named."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages import shared
from zoo.sources.examples import VARIABLE, Example, ExamplesError, fetch, list_examples

COLUMNS = 4
FRAME_BYTES = 21_000  # of a smear frame of the manifest, about


def show(column: st.delta_generator.DeltaGenerator, example: Example, number: int) -> None:
    """One example with a button that puts it among the session's pictures."""
    if example.path is None:
        return
    data = example.path.read_bytes()
    with column.container(border=True):
        image = shared.decoded(example.name, data)
        if isinstance(image, str):
            st.warning(f"{example.name}: {image}")
            return
        st.image(image, width="stretch")
        told = f", labelled {example.label}" if example.label else ""
        st.caption(shared.plain(Path(example.name).name + told))
        if st.button("Use", key=f"use {number}", icon=":material/add:", width="stretch"):
            shared.add_picture(Path(example.name).name, data, example.credit)
            st.toast(f"{shared.plain(Path(example.name).name)} is now among your pictures.")


def fetch_all(examples: list[Example]) -> list[Example]:
    """Fetch what is missing, with a progress bar; stops at the first failure with its sentence."""
    missing = [example for example in examples if example.path is None]
    progress = st.progress(0.0, "Fetching …")
    found = {}
    for number, example in enumerate(missing, 1):
        try:
            found[example.name] = fetch(example)
        except ExamplesError as error:
            st.error(shared.plain(error))
            break
        progress.progress(number / len(missing), f"{number} of {len(missing)} fetched")
    progress.empty()
    return [found.get(example.name, example) for example in examples]


shared.page("Examples")
try:
    examples = list_examples()
except ExamplesError as error:
    st.error(shared.plain(error))
    st.stop()
missing = [example for example in examples if example.path is None]
if missing:
    if missing[0].origin is None:
        st.markdown(
            f"{len(examples)} smear frames of 640×480 pixels, three for each of four kinds of white cell. "
            "No built-in model was trained on their cells."
        )
    st.caption(
        f"{shared.plain(examples[0].credit)}. They are fetched once, checked, and kept on this computer. To offer "
        f"pictures of your own instead, name their folder, or their repository on the Hub, in {VARIABLE}."
    )
    size = sum(example.bytes or FRAME_BYTES for example in missing) / 1000
    if st.button(f"Fetch {len(missing)} pictures (about {size:,.0f} KB)", type="primary", icon=":material/download:"):
        examples = fetch_all(examples)
here = [example for example in examples if example.path is not None]
if here:
    st.caption(f"Credit: {shared.plain(here[0].credit)}.")
    if st.button(f"Classify all {len(here)}", type="primary", icon=":material/biotech:"):
        for example in here:
            shared.add_picture(Path(example.name).name, example.path.read_bytes(), example.credit)
        st.switch_page("pages/classify.py")
    if shared.pictures():
        st.page_link(
            "pages/classify.py", label=f"Go on with {len(shared.pictures())} pictures", icon=":material/biotech:"
        )
    for number, row in enumerate(shared.chunks(here, COLUMNS)):
        for place, (column, example) in enumerate(zip(st.columns(COLUMNS), row, strict=False)):
            show(column, example, COLUMNS * number + place)
