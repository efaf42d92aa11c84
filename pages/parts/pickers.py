"""The choice of a model, which holds on every page."""

from __future__ import annotations

import streamlit as st

from pages.parts import session
from pages.parts.entries import usable_entries, with_weights
from pages.parts.wording import description, short_description
from zoo.api import default_runtime, running_runtime
from zoo.entry import Entry
from zoo.imaging.decode import SUFFIXES
from zoo.serving.devices import device_name
from zoo.sources.catalogue import distinct_titles

PICTURE_TYPES = [suffix[1:] for suffix in SUFFIXES]


def pick_model() -> Entry:
    """Choose a model; the choice holds on every page of the session."""
    usable = usable_entries()
    titles = distinct_titles(usable)
    entry = select_entry("Model", usable, titles, help_text="All models that can run here. **Models** has their cards.")
    session.choose_model(entry.id)
    entry = with_weights(entry)
    # without pictures there is nothing to run: the first page of a new server does not wait for torch
    runtime = default_runtime() if session.pictures() else running_runtime()
    place = f" Runs on **{device_name(runtime.device_name)}**." if runtime else ""
    st.caption(f"{short_description(entry)}{place}", help=description(entry))
    return entry


def select_entry(label: str, entries: list[Entry], titles: dict[str, str], help_text: str | None = None) -> Entry:
    """A select box of entries that begins with the session's model."""
    ids = [entry.id for entry in entries]
    current = session.current_model()
    chosen = st.selectbox(
        label,
        ids,
        index=ids.index(current) if current in ids else 0,
        format_func=lambda identity: titles[identity],
        help=help_text,
    )
    return entries[ids.index(chosen)]


def pick_second(first: Entry) -> Entry | None:
    """Choose another model to show beside the first."""
    usable = usable_entries()
    others = {entry.id: entry for entry in usable if entry.id != first.id}
    titles = distinct_titles(usable)
    chosen = st.selectbox(
        "Second model, side by side",
        [None, *others],
        format_func=lambda identity: titles[identity] if identity else "none",
        disabled=not others,
    )
    return with_weights(others[chosen]) if chosen else None
