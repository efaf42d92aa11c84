"""A folder dropped in the browser, read as a data set: its layout is found, its pictures are decoded once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import streamlit as st
from PIL import Image

from pages.parts import session
from pages.parts.pickers import PICTURE_TYPES
from pages.parts.wording import plain
from zoo.adaptation import MAX_PICTURES
from zoo.data import AmbiguousError, DataError, ReadOptions, read_files
from zoo.data.kinds import kind_of, name_labels, rename
from zoo.entry import Entry
from zoo.imaging.decode import PictureError
from zoo.limits import ALL_SESSIONS_MB, SESSION_MB

TABLE_TYPES = ("csv", "tsv", "xlsx", "xml", "txt", "json", "yaml", "yml", "names")
PACKED_TYPES = ("npz", "zip", "tar", "tgz", "tbz", "tbz2", "txz", "gz", "bz2", "xz")
TYPES = [*PICTURE_TYPES, *TABLE_TYPES, *PACKED_TYPES]
CHANNELS = 3
KEPT = "folder"  # session key: the last folder with its decoded pictures
HELP = (
    "Class folders, patient folders, a table of labels, boxes (Pascal VOC, YOLO, COCO), arrays (.npz), or an archive "
    "of these: the layout is found. The pictures stay in the memory of this session."
)


class FullError(ValueError):
    """There is no room for the pictures of another folder; the message is a sentence for the user."""


@dataclass(frozen=True, eq=False)
class Folder:
    """Decoded pictures of a folder: label as the model spells it (None: without), name, and patient or slide."""

    images: tuple[Image.Image, ...]
    labels: tuple[str | None, ...]
    names: tuple[str, ...]
    groups: tuple[str | None, ...]
    told: tuple[str, ...]


def pick_folder(entry: Entry) -> Folder | None:
    """Upload a folder and show how it was read; None without one, or where it cannot be read."""
    files = st.file_uploader(
        "A folder with pictures of all classes",
        type=TYPES,
        accept_multiple_files="directory",
        key="adapt folder",
        help=HELP,
    )
    if not files:
        st.session_state.pop(KEPT, None)
        return None
    if sum(file.size for file in files) > SESSION_MB.bytes:
        st.error(f"The folder is larger than {SESSION_MB.value:,} MB. Use `python -m training adapt`.")
        return None
    layout = st.session_state.get("adapt layout", "")
    key = (entry.id, layout, tuple(file.file_id for file in files))
    if st.session_state.get(KEPT, (None, None))[0] != key:
        try:
            content = {file.name: file.getvalue() for file in files}
            st.session_state[KEPT] = (key, _read(entry, content, ReadOptions(layout)))
        except FullError as error:
            st.session_state.pop(KEPT, None)
            st.error(plain(error))
            return None
        except DataError as error:
            st.session_state.pop(KEPT, None)
            st.error(plain(error))
            if layout or isinstance(error, AmbiguousError):
                st.text_input("Layout", key="adapt layout", help="One of the names after --layout in the message.")
            return None
    if layout:
        st.text_input("Layout", key="adapt layout")
    folder: Folder = st.session_state[KEPT][1]
    st.caption("  \n".join(plain(line) for line in folder.told))
    return folder


def _read(entry: Entry, content: dict[str, bytes], options: ReadOptions) -> Folder:
    """The folder's pictures under the model's labels. Raises DataError."""
    name = PurePosixPath(next(iter(content))).parts[0]
    given = read_files(name, content, options)
    data = rename(given, name_labels(given.labels))
    known = {label: own for own in entry.labels for label in (own.lower(), kind_of(own)) if label}
    images, labels, names, groups, told = [], [], [], [], list(data.about())
    size = 0
    left: dict[str, int] = {}
    counts: dict[str | None, int] = {}
    for item in data.items:
        label = None if item.label is None else known.get(item.label.lower())
        if item.label is not None and label is None:
            left[item.label] = left.get(item.label, 0) + 1
            continue
        counts[label] = counts.get(label, 0) + 1
        if counts[label] > MAX_PICTURES:
            continue
        try:
            image = item.source.image()
        except PictureError as error:
            told.append(f"{item.file} was left out: {error}")
            continue
        size += CHANNELS * image.width * image.height
        if size > SESSION_MB.bytes:
            raise FullError(
                f"The folder's decoded pictures take more than {SESSION_MB.value:,} MB. Use `python -m training adapt`."
            )
        images.append(image)
        groups.append(item.group or item.cell)
        labels.append(label)
        names.append(item.file)
    told += [f"{label} ({count:,}) was left out: the model has no such class." for label, count in left.items()]
    told += [
        f"Of {label or 'pictures without a label'}, the first {MAX_PICTURES} are used."
        for label, n in counts.items()
        if n > MAX_PICTURES
    ]
    folder = Folder(tuple(images), tuple(labels), tuple(names), tuple(groups), tuple(told))
    if not session.uploads.keep(folder, size, ALL_SESSIONS_MB.bytes):
        raise FullError(f"{session.full()} Try again later, or use `python -m training adapt`.")
    return folder
