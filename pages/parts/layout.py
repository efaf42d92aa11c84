"""Frame of every page: its title and the footer."""

from __future__ import annotations

import threading

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

from zoo.api import default_runtime, running_runtime
from zoo.version import __version__

AUTH = "auth"  # section of the secrets that says who may log in (docs/operations.md)
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


def on_telephone() -> bool:
    """Whether the visitor's browser says that it runs on a telephone."""
    return "Mobi" in str(st.context.headers.get("User-Agent", ""))


def footer() -> None:
    """Disclaimer, version and load, below every page."""
    runtime = running_runtime()
    status = runtime.status() if runtime else None
    st.caption(
        f"HemaZoo {__version__}, for research and teaching. **Not a medical device**: do not use it for diagnosis."
    )
    if status and status.answered:
        st.caption(
            f"Server: {status.waiting} pictures waiting, {status.images_per_second:.1f} per second, "
            f"median {1000 * status.p50:.0f} ms.",
            help=f"95 % are answered within {1000 * status.p95:.0f} ms; {status.batch_size:.1f} pictures per batch. "
            "All sessions, over the last 30 seconds (waiting, per second) and the last 2,000 pictures.",
        )


@st.cache_resource(show_spinner=False)
def warm_up() -> None:
    """Load the engine beside the first page, once for each server, so that the first answer does not wait for it."""
    threading.Thread(target=default_runtime, name="warm-up", daemon=True).start()


def require_login() -> None:
    """Stop before the page until the visitor has logged in, on a server whose secrets hold `[auth]`."""
    if not st.secrets.load_if_toml_exists() or AUTH not in st.secrets or st.user.get("is_logged_in"):
        return
    st.title("Log in")
    st.write("This server asks its visitors to log in.")
    st.button("Log in", type="primary", icon=":material/login:", on_click=st.login)
    st.stop()
