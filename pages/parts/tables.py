"""Tables on pages, as files to download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st
from streamlit.elements.arrow import SelectionMode

from zoo.benchmarks import leaderboard
from zoo.lazy import lazy_module
from zoo.tables import to_csv

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

ONE_ROW: tuple[SelectionMode, ...] = ("single-row", "single-cell")  # selection by a tick or a click
SEVERAL_ROWS: tuple[SelectionMode, ...] = ("multi-row", "single-cell")
DECIMALS = 4  # of numbers in Markdown


def selected_rows(key: str) -> list[int]:
    """Rows of the table with a key that the visitor ticked, or clicked anywhere in, the last one at the end."""
    selection = st.session_state[key]["selection"]
    clicked = [row for row, _ in selection.get("cells", ())]
    return list(dict.fromkeys([*(row for row in selection["rows"] if row not in clicked), *clicked]))


def csv(table: pd.DataFrame) -> bytes:
    """The table as UTF-8 CSV."""
    return to_csv(table).encode("utf-8")


def csv_button(label: str, table: pd.DataFrame, file: str, key: str | None = None) -> None:
    """A button that downloads a table as CSV."""
    st.download_button(label, csv(table), file, "text/csv", icon=":material/download:", key=key)


def downloads(table: pd.DataFrame, stem: str, in_words: pd.DataFrame | None = None) -> None:
    """Offer a table as CSV, and as Markdown to copy; `in_words` is the table for Markdown if it is another one."""
    with st.container(horizontal=True):
        csv_button("CSV", table, f"{stem}.csv", key=f"csv {stem}")
        with st.popover("Markdown", icon=":material/content_copy:"):
            st.code(
                leaderboard.markdown(_rounded(table) if in_words is None else in_words), language=None, wrap_lines=True
            )


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    return table.round(dict.fromkeys(table.select_dtypes("float").columns, DECIMALS))
