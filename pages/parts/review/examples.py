"""Pictures to try at a first visit; they come with the program."""

from __future__ import annotations

import streamlit as st

from pages.parts import session
from pages.parts.wording import plain
from zoo.sources.examples import Example, bundled_examples

PICTURE_PIXELS, TILE_PIXELS = 104, 132


HINT = "Drop pictures above, or try one of these examples."


def offer(hint: str = HINT, more: bool = True) -> bool:
    """Show the bundled examples, each with a button that adds it to the session's pictures.

    Args:
        hint: What to do, above them.
        more: Whether to link to the page with more examples.

    Returns:
        Whether one was just chosen.
    """
    examples, chosen = bundled_examples(), False
    st.info(hint, icon=":material/upload:")
    with st.container(horizontal=True, key="examples"):
        for example in examples:
            with st.container(width=TILE_PIXELS, horizontal_alignment="center", gap="small"):
                st.image(_read(example), width=PICTURE_PIXELS, alt=f"Example: {example.label}")
                chosen |= st.button(
                    plain(str(example.label)),
                    key=f"try {example.name}",
                    on_click=_use,
                    args=([example],),
                    width="stretch",
                )
    with st.container(horizontal=True):
        chosen |= st.button("All of them", icon=":material/select_all:", on_click=_use, args=(examples,))
        if more:
            st.page_link("pages/examples.py", label="More examples", icon=":material/photo_library:")
    st.caption(f"Pictures: {plain('; '.join(dict.fromkeys(example.credit for example in examples)))}.")
    return chosen


def _use(examples: list[Example]) -> None:
    for example in examples:
        session.add_picture(example.name, _read(example), example.credit)


@st.cache_data(max_entries=32, show_spinner=False, hash_funcs={Example: lambda example: example.name})
def _read(example: Example) -> bytes:
    assert example.path is not None
    return example.path.read_bytes()
