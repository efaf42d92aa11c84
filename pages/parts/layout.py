"""Frame of every page: its title and the footer."""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

from zoo.api import default_runtime
from zoo.version import __version__

INSIDE = "inside app.py"  # session key, set by app.py


def page(title: str, details: str | None = None) -> None:
    """Begin a page with its title; `details` are shown by the help icon beside it.

    Until app.py has run once, Streamlit treats a folder called pages as its old kind of multipage app, and would serve
    the first visitors of, say, /models that file alone.
    """
    if not st.session_state.get(INSIDE):
        PagesManager.uses_pages_directory = False
        st.rerun()
    st.title(title, help=details)


def footer() -> None:
    """Disclaimer, version and load, below every page."""
    status = default_runtime().status()
    st.caption(
        f"HemaZoo {__version__}, for research and teaching. **Not a medical device**: do not use it for diagnosis."
    )
    if status.answered:
        st.caption(
            f"Server: {status.waiting} pictures waiting, {status.images_per_second:.1f} per second, "
            f"median {1000 * status.p50:.0f} ms.",
            help=f"95 % are answered within {1000 * status.p95:.0f} ms; {status.batch_size:.1f} pictures per batch. "
            "All sessions, over the last 30 seconds (waiting, per second) and the last 2,000 pictures.",
        )
