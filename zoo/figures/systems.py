"""Figures of the published systems: feature space, importance of features, and falls on other pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zoo.figures.style import colour, colours, legend_below
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from plotly import subplots
else:
    pd = lazy_module("pandas")
    go = lazy_module("plotly.graph_objects")
    subplots = lazy_module("plotly.subplots")

MARGIN = {"l": 0, "r": 0, "t": 32, "b": 0}  # room above for the download button
PANEL_POINTS = 1200  # of a panel: more would hide each other and make the page slow
MARKER = 2.5


def feature_space(features: pd.DataFrame, parts: Sequence[str]) -> go.Figure:
    """The first three features in 3-D, one panel for each part of the data.

    Args:
        features: One row a picture, with columns file, label, split, x, y and z.
        parts: Values of `split`, one panel each.
    """
    panels = [[{"type": "scene"}] * len(parts)]
    figure = subplots.make_subplots(1, len(parts), specs=panels, subplot_titles=list(parts), horizontal_spacing=0.02)
    labels = sorted(features["label"].unique())
    for column, part in enumerate(parts, 1):
        rows = features[features["split"] == part]
        rows = rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), PANEL_POINTS)).astype(int)]
        for label, label_colour in zip(labels, colours(len(labels)), strict=True):
            points = rows[rows["label"] == label]
            figure.add_scatter3d(
                x=points["x"],
                y=points["y"],
                z=points["z"],
                name=label,
                legendgroup=label,
                showlegend=column == 1,
                mode="markers",
                marker={"size": MARKER, "color": label_colour},
                text=points["file"],
                hovertemplate="%{text}<extra>" + label + "</extra>",
                row=1,
                col=column,
            )
    axes = {f"{axis}axis": {"title": f"feature {number}"} for number, axis in enumerate("xyz", 1)}
    figure.update_scenes(**axes)
    return figure.update_layout(height=460, margin=MARGIN, legend={**legend_below(-0.02), "itemsizing": "constant"})


def importance(falls: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Fall in accuracy when a feature is shuffled: one group a feature, one bar a model.

    Args:
        falls: Tables with columns feature and fall, by the model's title.
    """
    figure = go.Figure()
    for index, (title, table) in enumerate(falls.items()):
        figure.add_bar(
            name=title,
            x=table["feature"],
            y=table["fall"],
            marker_color=colour(index),
            hovertemplate="%{x}: −%{y:.1%}<extra>" + title + "</extra>",
        )
    figure.update_yaxes(title="fall in accuracy", tickformat=".0%", fixedrange=True)
    figure.update_xaxes(fixedrange=True)
    return figure.update_layout(height=320, margin=MARGIN, barmode="group", legend=legend_below())


def falls(shares: pd.DataFrame) -> go.Figure:
    """Accuracy on several sets of pictures, one group a model; columns model, pictures and accuracy."""
    figure = go.Figure()
    for index, (pictures, rows) in enumerate(shares.groupby("pictures", sort=False)):
        figure.add_bar(
            name=str(pictures),
            x=rows["model"],
            y=rows["accuracy"],
            text=[f"{100 * value:.0f} %" for value in rows["accuracy"]],
            marker_color=colour(index),
            hovertemplate="%{x}: %{y:.1%}<extra>" + str(pictures) + "</extra>",
        )
    figure.update_yaxes(tickformat=".0%", range=[0, 1.05], fixedrange=True)
    figure.update_xaxes(fixedrange=True)
    return figure.update_layout(height=360, margin=MARGIN, barmode="group", legend=legend_below(-0.3))
