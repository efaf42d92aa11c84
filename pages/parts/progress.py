"""Long work on a page: a bar with the time left, and a button that stops it; what is done by then is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.parts import session
from zoo.serving.requests import Ticket

PATIENCE_SECONDS = 0.4  # before a bar is shown: short work ends without one
ESTIMATE_SECONDS = 1.0  # of work, before the time that is left can be told
MINUTE, MAX_IN_SECONDS = 60, 90


class LongWork:
    """Work under way: `show` draws the bar with the button, once it has lasted for a moment.

    Showing it is also where Streamlit ends the work when the button, or anything else, was clicked.
    """

    def __init__(self, key: str, stop: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.place = st.empty()
        self._key, self._stop, self._args = key, stop, args
        self._begun = time.monotonic()
        self._bar: DeltaGenerator | None = None

    def show(self, share: float, text: str, at_once: bool = False) -> None:
        """Show the share that is done, 0..1, in words too; `at_once` without waiting for a moment."""
        elapsed = time.monotonic() - self._begun
        if self._bar is None:
            if not at_once and elapsed < PATIENCE_SECONDS:
                return
            with self.place.container(horizontal=True, vertical_alignment="center"):
                self._bar = st.progress(0.0)
                st.button("Stop", key=self._key, icon=":material/stop_circle:", on_click=self._stop, args=self._args)
        self._bar.progress(min(share, 1.0), f"{text} · {left}" if (left := time_left(elapsed, share)) else text)

    def follow(self, ticket: Ticket, text: str, before: float = 0.0, part: float = 1.0) -> None:
        """Show a request of the engine that is `part` of the work, after the share `before`."""
        waiting = session.requests_ahead(ticket)
        self.show(before + part * ticket.progress, f"{text} · {waiting}" if waiting else text)


@contextmanager
def long_work(key: str, stop: Callable[..., None], *args: Any) -> Iterator[LongWork]:
    """Work that can be stopped: a click calls `stop` with `args`, then the page runs again."""
    work = LongWork(key, stop, args)
    try:
        yield work
    finally:
        work.place.empty()


def time_left(elapsed: float, share: float) -> str:
    """The time that is left in words; empty where it is not known yet."""
    if elapsed < ESTIMATE_SECONDS or not 0 < share < 1:
        return ""
    seconds = elapsed * (1 - share) / share
    if seconds < MAX_IN_SECONDS:
        return f"about {max(1, round(seconds))} s left"
    return f"about {round(seconds / MINUTE)} min left"


def tell_stopped() -> None:
    """Say how many pictures were left out when the visitor stopped, and offer to go on."""
    left = len(session.pictures()) - len(session.wanted_pictures())
    if left:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.info(f"Stopped: {left:,} of {len(session.pictures()):,} pictures are left out.")
            st.button("Go on", icon=":material/play_arrow:", on_click=session.go_on)
