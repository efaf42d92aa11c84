"""State that a session keeps from page to page: the chosen model, pictures, own entries, pinned revisions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from zoo.api import default_runtime
from zoo.bounded import LivingBytes
from zoo.entry import Entry
from zoo.imaging.decode import split_page
from zoo.limits import ALL_SESSIONS_MB, SESSION_MB, SESSION_PICTURES
from zoo.review import kept
from zoo.serving.requests import Client, Ticket

MODEL, PICTURES, OWN, PINS = "model", "pictures", "own", "revisions"  # session keys
REJECTED = "rejected pictures"  # session key: number of pictures that did not fit into the session
CROWDED = "crowded out pictures"  # session key: number of pictures that did not fit into the memory for all sessions
STOPPED = "stopped"  # session key: ids of the pictures that were not finished when the visitor stopped
PASSED = "passed over"  # session key: reason by name of each uploaded file that was passed over
WORK = "work"  # parameter of the address: a token of KEPT_TOKENS
KEPT_TOKENS = "kept under"  # session key: tokens of this work, see `pages.parts.review.kept`
KEPT_LAST = "kept last"  # session key: what of this work was kept last
SECOND = "second reader"  # session key: another person's review
REVIEW = "review"  # session key: decisions about cells, see `pages.parts.review.state`
FULL = "The server keeps at most {:,} MB of pictures for all its visitors, and has no room now."
ID_LETTERS = 24  # of a picture's hash

uploads = LivingBytes()  # of all sessions


@dataclass(frozen=True, eq=False)
class Upload:
    """The content of a file; its pages are several pictures."""

    data: bytes

    @cached_property
    def sha256(self) -> str:
        """Hash of the content."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of this session; `id` is a hash of its name and content."""

    id: str
    name: str
    upload: Upload
    credit: str = ""

    @property
    def data(self) -> bytes:
        """Content of its file."""
        return self.upload.data

    @property
    def content(self) -> str:
        """Hash of the content, whatever the file is called, and the page of a file with several."""
        page = split_page(self.name)[1]
        return self.upload.sha256 + (f"#page={page}" if page else "")

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name.rsplit(".", 1)[0]


def pictures() -> list[Picture]:
    """The pictures of this session, in the order in which they were added."""
    return list(st.session_state.setdefault(PICTURES, {}).values())


def add_picture(name: str, data: bytes, credit: str = "") -> str:
    """Keep a picture for all pages; the same content under the same name is kept once.

    A full session rejects it and counts it in `REJECTED`; where all sessions together are full, in `CROWDED`.

    Returns:
        The picture's id.
    """
    identity = hashlib.sha256(name.encode() + b"\0" + data).hexdigest()[:ID_LETTERS]
    kept: dict[str, Picture] = st.session_state.setdefault(PICTURES, {})
    if identity in kept:
        return identity
    files = {id(picture.data): picture.upload for picture in kept.values()}  # pages share their file's bytes
    upload = files.get(id(data))
    size = sum(len(one.data) for one in files.values()) + (0 if upload else len(data))
    if len(kept) >= SESSION_PICTURES.value or size > SESSION_MB.bytes:
        st.session_state[REJECTED] = st.session_state.get(REJECTED, 0) + 1
        return identity
    if upload is None:
        upload = Upload(data)
        if not uploads.keep(upload, len(data), ALL_SESSIONS_MB.bytes):
            st.session_state[CROWDED] = st.session_state.get(CROWDED, 0) + 1
            return identity
    kept[identity] = Picture(identity, name, upload, credit)
    return identity


def full() -> str:
    """Sentence saying that the memory for the pictures of all sessions is used up."""
    return FULL.format(ALL_SESSIONS_MB.value)


def wanted_pictures() -> list[Picture]:
    """The pictures without those that were not finished when the visitor stopped."""
    stopped = st.session_state.get(STOPPED, ())
    return [picture for picture in pictures() if picture.id not in stopped]


def stop(unfinished: Iterable[str]) -> None:
    """Leave out pictures, by id, until the visitor goes on."""
    st.session_state[STOPPED] = {*st.session_state.get(STOPPED, ()), *unfinished}


def go_on() -> None:
    """Take in all pictures again."""
    st.session_state.pop(STOPPED, None)


def remove_picture(identity: str) -> None:
    """Forget a picture."""
    st.session_state.get(PICTURES, {}).pop(identity, None)


def clear_pictures() -> None:
    """Forget all pictures, and what was decided about their cells."""
    st.session_state[PICTURES] = {}
    for token in st.session_state.get(KEPT_TOKENS, ()):
        kept.forget(token)
    for key in (REVIEW, STOPPED, PASSED, REJECTED, CROWDED, SECOND, KEPT_TOKENS, KEPT_LAST):
        st.session_state.pop(key, None)


def current_model() -> str | None:
    """Id of the model that was chosen last."""
    return st.session_state.get(MODEL)


def choose_model(identity: str) -> None:
    """Make a model the chosen one on every page."""
    st.session_state[MODEL] = identity


def own_entries() -> list[Entry]:
    """Entries that this session made itself; no other session sees them."""
    return st.session_state.get(OWN, [])


def pins() -> dict[str, str]:
    """Commits of the Hub that this session chose, by entry id."""
    return st.session_state.setdefault(PINS, {})


def pin(entry: Entry, sha: str | None) -> None:
    """Use an entry from the Hub at a commit in this session; None for the Hub's main branch."""
    pins().pop(entry.id, None)
    if sha:
        pins()[entry.id] = sha


def client() -> Client:
    """This session as a client of the engine: sessions take turns, and requests of a closed session are dropped."""
    context = get_script_run_ctx()
    if context is None or not runtime.exists():
        return Client("no session")
    session, app = context.session_id, runtime.get_instance()
    return Client(session, lambda: app.is_active_session(session))


def requests_ahead(ticket: Ticket) -> str:
    """Number of requests before one, and their time, in words; empty where it is next or under way."""
    serving = default_runtime()
    ahead, rate = serving.engine.ahead(ticket), serving.status().images_per_second
    if not ahead:
        return ""
    return f"{ahead} requests are ahead" + (f", about {ahead / rate:.0f} s" if rate > 0 else "")
