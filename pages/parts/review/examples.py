"""Pictures to try at a first visit; they come with the program."""

from __future__ import annotations

import streamlit as st

from pages.parts import session
from pages.parts.wording import plain
from zoo.sources.examples import Example, bundled_examples

PICTURE_PIXELS, TILE_PIXELS = 104, 132


def offer() -> None:
    """Show the bundled examples, each with a button that classifies it."""
    examples = bundled_examples()
    st.info("Drop pictures above, or try one of these examples.", icon=":material/upload:")
    with st.container(horizontal=True, key="examples"):
        for example in examples:
            with st.container(width=TILE_PIXELS, horizontal_alignment="center", gap="small"):
                st.image(_read(example), width=PICTURE_PIXELS, alt=f"Example: {example.label}")
                st.button(
                    plain(str(example.label)),
                    key=f"try {example.name}",
                    on_click=_use,
                    args=([example],),
                    width="stretch",
                )
    with st.container(horizontal=True):
        st.button("All of them", icon=":material/select_all:", on_click=_use, args=(examples,))
        st.page_link("pages/examples.py", label="More examples", icon=":material/photo_library:")
    st.caption(f"Pictures: {plain('; '.join(dict.fromkeys(example.credit for example in examples)))}.")


def _use(examples: list[Example]) -> None:
    for example in examples:
        session.add_picture(example.name, _read(example), example.credit)


@st.cache_data(max_entries=32, show_spinner=False, hash_funcs={Example: lambda example: example.name})
def _read(example: Example) -> bytes:
    assert example.path is not None
    return example.path.read_bytes()
