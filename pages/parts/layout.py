"""Frame of every page: its title and the footer."""

from __future__ import annotations

import importlib
import threading

import streamlit as st
from streamlit import runtime
from streamlit.runtime.pages_manager import PagesManager
from streamlit.runtime.runtime import RuntimeState

from zoo.api import default_runtime, prepare, running_runtime
from zoo.version import __version__

AUTH = "auth"  # section of the secrets that says who may log in (docs/operations.md)
FIGURE_MODULES = ("pandas", "plotly.graph_objects", "scipy.stats")  # imported late, because they take a second
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
    engine = running_runtime()
    status = engine.status() if engine else None
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
    """Load beside the first page, once for each server, what first answers and figures would wait for."""
    # tests run pages without a browser, each in a new zoo
    served = runtime.get_instance().state == RuntimeState.ONE_OR_MORE_SESSIONS_CONNECTED
    threading.Thread(target=_prepare if served else default_runtime, name="warm-up", daemon=True).start()


def _prepare() -> None:
    prepare()
    for name in FIGURE_MODULES:
        importlib.import_module(name)


def require_login() -> None:
    """Stop before the page until the visitor has logged in, on a server whose secrets hold `[auth]`."""
    if not st.secrets.load_if_toml_exists() or AUTH not in st.secrets or st.user.get("is_logged_in"):
        return
    st.title("Log in")
    st.write("This server asks its visitors to log in.")
    st.button("Log in", type="primary", icon=":material/login:", on_click=st.login)
    st.stop()
