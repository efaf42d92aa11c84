"""Plots on pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import plotly.graph_objects as go
else:
    go = lazy_module("plotly.graph_objects")

FORMAT = "figures"  # session key: format that plots are downloaded in
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["zoom2d", "pan2d", "select2d", "lasso2d", "autoScale2d"]}
MAP_CONFIG = {"displaylogo": False}  # for plots in which points are selected


def chart(figure: go.Figure, key: str | None = None) -> None:
    """Show a figure that does not zoom by accident; its camera button saves it as PNG."""
    st.plotly_chart(figure, key=key, config=CONFIG)


def downloadable(figure: go.Figure, key: str) -> None:
    """Show a figure that downloads in the format chosen on the page, named after `key`."""
    st.plotly_chart(figure, config=_download_config(key), key=key)


def selectable(figure: go.Figure, key: str) -> list[list[str]]:
    """Show a downloadable figure whose points can be chosen; the `customdata` of each chosen point."""
    event = st.plotly_chart(figure, config=_download_config(key), key=key, on_select="rerun", selection_mode="points")
    return [list(point["customdata"]) for point in event.selection.points]


def _download_config(key: str) -> dict[str, object]:
    kind = str(st.session_state.get(FORMAT) or "PNG").lower()
    return CONFIG | {
        "displayModeBar": True,
        "modeBarButtons": [["toImage"]],
        "toImageButtonOptions": {"format": kind, "filename": key.replace(" ", "-"), "scale": 2},
    }


def selection(figure: go.Figure, key: str) -> list[int]:
    """Show a scatter plot in which points are selected by box or lasso; the `customdata` (row) of each of them."""
    figure.update_layout(dragmode="select", uirevision="map")
    event = st.plotly_chart(
        figure, key=key, config=MAP_CONFIG, on_select="rerun", selection_mode=("points", "box", "lasso")
    )
    return [int(np.ravel(point["customdata"])[0]) for point in event.selection.points]
