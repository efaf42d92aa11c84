"""Tables on pages, as files to download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from zoo.benchmarks import leaderboard
from zoo.lazy import lazy_module
from zoo.tables import to_csv

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

DECIMALS = 4  # of numbers in Markdown


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
            st.code(leaderboard.markdown(_rounded(table) if in_words is None else in_words), language="markdown")


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    return table.round(dict.fromkeys(table.select_dtypes("float").columns, DECIMALS))
