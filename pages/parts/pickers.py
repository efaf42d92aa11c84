"""Widgets that several pages share: the model, and the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from pages.parts import session
from pages.parts.entries import usable_entries, with_weights
from pages.parts.wording import description, plain, short_description
from zoo.api import default_runtime, running_runtime
from zoo.entry import Entry
from zoo.files import printable
from zoo.imaging.decode import LISTED, SUFFIXES
from zoo.limits import PICTURE_MB, PICTURE_MEGAPIXELS, SESSION_MB, SESSION_PICTURES
from zoo.serving.batch import pages_of
from zoo.serving.devices import device_name
from zoo.sources.catalogue import distinct_titles

UPLOADED, TURN = "uploaded", "uploader turn"  # session keys
CAMERA_ID_LETTERS = 6
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
    with st.popover("About the models", icon=":material/help:"):
        st.markdown("\n".join(f"- **{plain(titles[other.id])}**: {description(other)}" for other in usable))
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


def picture_input(page: str) -> None:
    """Upload, camera and a button to clear; pictures stay when the page is left.

    Args:
        page: Name of the page, which keeps the widgets of two pages apart.
    """
    turn = st.session_state.setdefault(TURN, 0)
    key = f"uploader {page} {turn}"
    if key not in st.session_state:
        # a new uploader owns no picture: earlier ones must not vanish with its next change
        st.session_state[UPLOADED] = {}
    st.file_uploader(
        "Pictures of single cells or smear fields",
        type=PICTURE_TYPES,
        accept_multiple_files=True,
        key=key,
        on_change=_take_uploads,
        args=(key,),
        help=f"{LISTED}; at most {PICTURE_MB.value} MB and {PICTURE_MEGAPIXELS.value} megapixels each. Each page of a "
        "TIFF is a picture; of a stack, the sharpest slice is taken.",
    )
    if rejected := st.session_state.pop(session.REJECTED, 0):
        st.warning(
            f"{rejected} pictures were left out: a session keeps {SESSION_PICTURES.value:,} pictures and "
            f"{SESSION_MB.value:,} MB. Clear some, or classify folders with `python -m zoo classify`."
        )
    if crowded := st.session_state.pop(session.CROWDED, 0):
        st.warning(
            f"{crowded} pictures were left out. {session.full()} Try again later, or classify folders with "
            "`python -m zoo classify`."
        )
    left, right = st.columns([3, 1], vertical_alignment="center")
    with left:
        _camera(page, turn)
    with right:
        if session.pictures() and st.button("Clear all", icon=":material/delete:", width="stretch"):
            session.clear_pictures()
            _release(st.session_state.pop(UPLOADED, {}))
            st.session_state[TURN] = turn + 1
            st.rerun()


def stop_without_pictures() -> None:
    """Stop the page with a hint if the session has no pictures."""
    if not session.pictures():
        point_to_examples()
        st.stop()


def point_to_examples() -> None:
    """Hint for a session without pictures."""
    st.info("Drop pictures above, or open the examples.", icon=":material/upload:")
    st.page_link("pages/examples.py", label="Open the examples", icon=":material/photo_library:")


def _camera(page: str, turn: int) -> None:
    if not st.toggle("Use the camera", help="For example of a phone held to the eyepiece."):
        return
    shot = st.camera_input("Camera", key=f"camera {page} {turn}", label_visibility="collapsed")
    if shot:
        data = shot.getvalue()
        session.add_picture(f"camera-{hashlib.sha256(data).hexdigest()[:CAMERA_ID_LETTERS]}.jpg", data)


def _add_pages(name: str, data: bytes) -> list[str]:
    """Keep each picture of a file; returns their ids."""
    return [session.add_picture(page, data) for page in pages_of(name, data)]


def _release(file_ids: Iterable[str]) -> None:
    """Free uploads of a field that is drawn no more; Streamlit would keep them until the visitor leaves."""
    context = get_script_run_ctx()
    remove = getattr(context.uploaded_file_mgr, "remove_file", None) if context else None
    if context and remove:
        for file_id in file_ids:
            remove(session_id=context.session_id, file_id=file_id)


def _take_uploads(key: str) -> None:
    """Add new files of the uploader, and remove those that were taken out of it."""
    before = st.session_state.get(UPLOADED, {})
    now = {}
    for file in st.session_state[key]:
        now[file.file_id] = before.get(file.file_id) or _add_pages(printable(file.name), file.getvalue())
    for removed in {one for ids in before.values() for one in ids} - {one for ids in now.values() for one in ids}:
        session.remove_picture(removed)
    st.session_state[UPLOADED] = now
