"""Pictures of the session: files, folders, archives, the camera and the clipboard, and a button that clears them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from pages.parts import layout, session
from pages.parts.pickers import PICTURE_TYPES
from pages.parts.review import files as review_files
from pages.parts.wording import counted
from zoo.data.archives import is_archive, open_archive
from zoo.data.table import DataError
from zoo.data.tree import Stored
from zoo.files import printable
from zoo.imaging.decode import LISTED, SUFFIXES, PictureError
from zoo.limits import PICTURE_MB, PICTURE_MEGAPIXELS, SESSION_MB, SESSION_PICTURES
from zoo.review.session_file import CONTENT
from zoo.serving.batch import pages_of

UPLOADED, TURN = "uploaded", "uploader turn"  # session keys
FILES, FOLDER, CAMERA = "Files", "Folder", "Camera"
ARCHIVES = ("zip", "tar", "tgz")
CAMERA_ID_LETTERS = 6
FULL = "no more room in this session"
HELP = (
    f"{LISTED}, or a ZIP or TAR of them; at most {PICTURE_MB.value} MB and {PICTURE_MEGAPIXELS.value} megapixels each. "
    "Ctrl+V pastes a picture. Each page of a TIFF is a picture; of a stack, the sharpest slice is taken. "
    "A saved review opens here too."
)

# a pasted picture goes the way of a dropped one
_paste = st.components.v2.component(
    "hemazoo_paste",
    js=Path(__file__).with_name("paste.js").read_text(encoding="utf-8"),
    html="<span></span>",
)


def picture_input(page: str) -> None:
    """Upload, camera and a button to clear; pictures stay when the page is left.

    Args:
        page: Name of the page, which keeps the widgets of two pages apart.
    """
    turn = st.session_state.setdefault(TURN, 0)
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    way = left.segmented_control(
        "Pictures of single cells or smear fields",
        (CAMERA, FILES, FOLDER) if layout.on_telephone() else (FILES, FOLDER, CAMERA),
        default=FILES,
        required=True,
        key=f"way {page}",
        help=HELP,
    )
    if way == CAMERA:
        _camera(page, turn)
    else:
        _uploader(f"uploader {page} {turn} {way}", folder=way == FOLDER)
    _tell_left_out()
    if session.pictures() or st.session_state.get(session.PASSED):
        right.button("Clear all", icon=":material/delete:", width="stretch", on_click=_clear)


def _uploader(key: str, folder: bool) -> None:
    if key not in st.session_state:
        # a new uploader owns no picture: earlier ones must not vanish with its next change
        st.session_state[UPLOADED] = {}
    st.file_uploader(
        "A folder of pictures" if folder else "Pictures, or an archive of them",
        type=PICTURE_TYPES if folder else [*PICTURE_TYPES, *ARCHIVES],
        accept_multiple_files="directory" if folder else True,
        key=key,
        on_change=_take_uploads,
        args=(key,),
        label_visibility="collapsed",
    )
    _paste(key="paste")


def _camera(page: str, turn: int) -> None:
    shot = st.camera_input("For example of a phone held to the eyepiece", key=f"camera {page} {turn}")
    if shot:
        data = shot.getvalue()
        session.add_picture(f"camera-{hashlib.sha256(data).hexdigest()[:CAMERA_ID_LETTERS]}.jpg", data)


def _tell_left_out() -> None:
    """Say what of the uploads was left out, and why."""
    if rejected := st.session_state.pop(session.REJECTED, 0):
        st.warning(
            f"Left out: {counted(rejected, 'pictures')}. A session keeps {SESSION_PICTURES.value:,} pictures and "
            f"{SESSION_MB.value:,} MB. Clear some, or classify folders with `python -m zoo classify`."
        )
    if crowded := st.session_state.pop(session.CROWDED, 0):
        st.warning(
            f"Left out: {counted(crowded, 'pictures')}. {session.full()} Try again later, or classify folders with "
            "`python -m zoo classify`."
        )
    passed: dict[str, str] = st.session_state.get(session.PASSED, {})
    if passed:
        word = "file was" if len(passed) == 1 else "files were"
        with st.expander(f"{len(passed):,} {word} passed over", icon=":material/block:"):
            st.dataframe({"file": list(passed), "reason": list(passed.values())}, hide_index=True)


def _clear() -> None:
    """Forget all pictures, before the page runs again: no upload can bring one back."""
    session.clear_pictures()
    st.query_params.pop(session.WORK, None)
    _release(st.session_state.pop(UPLOADED, {}))
    st.session_state[TURN] = st.session_state.get(TURN, 0) + 1


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
        now[file.file_id] = before[file.file_id] if file.file_id in before else _add(file)
    for removed in {one for ids in before.values() for one in ids} - {one for ids in now.values() for one in ids}:
        session.remove_picture(removed)
    st.session_state[UPLOADED] = now


def _add(file: UploadedFile) -> list[str]:
    """Keep the pictures of an uploaded file; returns their ids."""
    name, data = printable(file.name), file.getvalue()
    return _add_archive(name, data) if is_archive(Path(name)) else _add_pages(name, data)


def _add_pages(name: str, data: bytes) -> list[str]:
    """Keep each picture of a file; returns their ids."""
    return [session.add_picture(page, data) for page in pages_of(name, data)]


def _add_archive(name: str, data: bytes) -> list[str]:
    """Keep the pictures in an archive; what is passed over is listed with its reason. A saved review is opened."""
    passed: dict[str, str] = st.session_state.setdefault(session.PASSED, {})
    try:
        tree = open_archive(Stored(Path(name), data))
    except DataError as error:
        passed[name] = str(error)
        return []
    if CONTENT in tree.files:
        if problem := review_files.take_review(data):
            passed[name] = problem
        return []
    passed |= {f"{name}/{inner}": reason for inner, reason in tree.passed.items()}
    added: list[str] = []
    for inner in tree.files:
        shown = printable(inner)
        if st.session_state.get(session.REJECTED) or st.session_state.get(session.CROWDED):
            passed[f"{name}/{shown}"] = FULL
        elif Path(inner).suffix.lower() not in SUFFIXES:
            passed[f"{name}/{shown}"] = "no picture"
        else:
            try:
                added += _add_pages(shown, tree.source(inner).content())
            except PictureError as error:
                passed[f"{name}/{shown}"] = str(error)
    if not passed:
        del st.session_state[session.PASSED]
    return added
