"""State that a session keeps from page to page: the chosen model, pictures, own entries, pinned revisions."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from zoo.api import default_runtime
from zoo.entry import Entry
from zoo.serving.requests import Client, Ticket

MODEL, PICTURES, OWN, PINS = "model", "pictures", "own", "revisions"  # session keys
REJECTED = "rejected pictures"  # session key: number of pictures that did not fit
MAX_PICTURES_VARIABLE, MAX_PICTURES = "HEMAZOO_SESSION_PICTURES", 1000
MAX_MB_VARIABLE, MAX_MB = "HEMAZOO_SESSION_MB", 500
ID_LETTERS = 24  # of a picture's hash


@dataclass(frozen=True)
class Picture:
    """A picture of this session; `id` is a hash of its name and content."""

    id: str
    name: str
    data: bytes
    credit: str = ""

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name.rsplit(".", 1)[0]


def max_pictures() -> int:
    """Number of pictures that a session keeps: HEMAZOO_SESSION_PICTURES, or 1,000."""
    return int(os.environ.get(MAX_PICTURES_VARIABLE) or MAX_PICTURES)


def max_megabytes() -> int:
    """Size of all pictures that a session keeps, in MB: HEMAZOO_SESSION_MB, or 500."""
    return int(os.environ.get(MAX_MB_VARIABLE) or MAX_MB)


def pictures() -> list[Picture]:
    """The pictures of this session, in the order in which they were added."""
    return list(st.session_state.setdefault(PICTURES, {}).values())


def add_picture(name: str, data: bytes, credit: str = "") -> str:
    """Keep a picture for all pages; the same content under the same name is kept once.

    A full session rejects it and counts it in `REJECTED`.

    Returns:
        The picture's id.
    """
    identity = hashlib.sha256(name.encode() + b"\0" + data).hexdigest()[:ID_LETTERS]
    kept = st.session_state.setdefault(PICTURES, {})
    size = sum(len(picture.data) for picture in kept.values()) + len(data)
    if identity not in kept and (len(kept) >= max_pictures() or size > 1_000_000 * max_megabytes()):
        st.session_state[REJECTED] = st.session_state.get(REJECTED, 0) + 1
        return identity
    kept[identity] = Picture(identity, name, data, credit)
    return identity


def remove_picture(identity: str) -> None:
    """Forget a picture."""
    st.session_state.get(PICTURES, {}).pop(identity, None)


def clear_pictures() -> None:
    """Forget all pictures."""
    st.session_state[PICTURES] = {}


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


def progress_text(ticket: Ticket) -> str:
    """State of a request in words: how many requests are ahead, or the share that is done."""
    serving = default_runtime()
    ahead, rate = serving.engine.ahead(ticket), serving.status().images_per_second
    if ahead:
        return f"{ahead} requests are ahead" + (f", about {ahead / rate:.0f} s …" if rate > 0 else " …")
    return f"{100 * ticket.progress:.0f} % …"
