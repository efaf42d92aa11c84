"""HemaZoo's pages and their addresses; run with `streamlit run app.py`."""

from pathlib import Path

import streamlit as st

from pages.parts import layout
from zoo.threads import set_up_threads

set_up_threads()
ASSETS = Path(__file__).parent / "pages" / "assets"
PAGES = [
    st.Page("pages/classify.py", title="Classify", icon=":material/biotech:", default=True),
    st.Page("pages/explain.py", title="Explain", icon=":material/center_focus_strong:"),
    st.Page("pages/compare.py", title="Compare", icon=":material/grid_on:"),
    st.Page("pages/models.py", title="Models", icon=":material/inventory_2:"),
    st.Page("pages/systems.py", title="Systems", icon=":material/history_edu:"),
    st.Page("pages/adapt.py", title="Adapt", icon=":material/tune:"),
    st.Page("pages/data.py", title="Data", icon=":material/fact_check:"),
    st.Page("pages/examples.py", title="Examples", icon=":material/photo_library:"),
]


def main() -> None:
    """Show the page of the address."""
    # before the navigation, which would ask another server for the page's icon
    st.set_page_config(page_title="HemaZoo", page_icon="🩸", layout="wide")
    page = st.navigation(PAGES, position="top")
    st.set_page_config(page_title=f"{page.title} · HemaZoo")
    st.html(ASSETS / "style.css")
    st.logo(str(ASSETS / "logo.svg"), size="large")
    st.session_state[layout.INSIDE] = True
    content = st.container()
    # before the page runs, so that it also stands below a page that stops early
    layout.footer()
    with content:
        layout.require_login()
        try:
            page.run()
        finally:
            layout.warm_up()


# a process that a page starts imports this file again, under another name
if __name__ == "__main__":
    main()
