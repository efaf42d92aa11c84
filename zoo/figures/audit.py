"""Figures of an audit of a data set, for the report's own page and the app's data page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoo.audits.reports import Report
from zoo.figures.style import ACCENT, colours, legend_above
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
else:
    pd = lazy_module("pandas")
    go = lazy_module("plotly.graph_objects")

ALARM, CALM = ACCENT, "#9aa5b1"
PROPERTY_NAMES = {
    "size": "picture size",
    "format": "file format",
    "jpeg_quality": "JPEG quality",
    "file_size": "file size",
    "border_colour": "border colour",
    "mean_colour": "mean colour",
}
MAX_BARS, MAX_TICKS = 40, 12
MARGIN = {"l": 10, "r": 10, "t": 10, "b": 10}


def class_counts(report: Report) -> go.Figure:
    """Pictures of each class, stacked by split."""
    splits = report.splits or {"all": report.classes}
    bars = [
        go.Bar(name=split, x=list(report.classes), y=[counts.get(label, 0) for label in report.classes], marker_color=c)
        for (split, counts), c in zip(splits.items(), colours(len(splits)), strict=True)
    ]
    figure = go.Figure(bars)
    figure.update_layout(barmode="stack", yaxis_title="pictures", height=340, margin=MARGIN, legend=legend_above())
    figure.update_yaxes(tickformat=",d")
    return figure


def copies_per_cell(report: Report) -> go.Figure:
    """Histogram of the number of pictures from each source cell."""
    counts = pd.Series(list(report.source_cells.of.values())).value_counts()
    width = max(1, -(-int(counts.max()) // MAX_BARS)) if len(counts) else 1  # whole pictures a bar
    figure = go.Figure(go.Histogram(x=counts.to_numpy(), marker_color=CALM, xbins={"start": 0.5, "size": width}))
    figure.update_layout(
        xaxis_title="pictures of one source cell", yaxis_title="source cells", height=300, margin=MARGIN, bargap=0.05
    )
    figure.update_xaxes(tickformat=",d", dtick=1 if len(counts) and counts.max() <= MAX_TICKS else None)
    figure.update_yaxes(tickformat=",d")
    return figure


def leak_map(report: Report) -> go.Figure:
    """Share of each class's test pictures with a copy in training: in the data set's own split, and at random."""
    figure = go.Figure()
    for name, values, colour in (
        ("the data set's own split", report.leak, ALARM),
        ("a random split, 20 % for testing", report.random_leak, CALM),
    ):
        if values:
            leaks = [values.get(label, 0.0) for label in report.classes]
            texts = [f"{100 * leak:.1f} %" for leak in leaks]
            figure.add_bar(name=name, x=list(report.classes), y=leaks, marker_color=colour, text=texts)
    figure.update_layout(
        barmode="group",
        yaxis={"tickformat": ".0%", "range": [0, 1.05], "title": "test pictures with a copy in training"},
        height=340,
        margin=MARGIN,
        legend=legend_above(),
    )
    return figure


def shortcuts(report: Report) -> go.Figure:
    """Balanced accuracy with which each property alone predicts the label, against chance."""
    chance = 1 / max(len(report.classes), 1)
    names = list(report.shortcuts)[::-1]
    values = [report.shortcuts[name] for name in names]
    figure = go.Figure(
        go.Bar(
            x=values,
            y=[PROPERTY_NAMES.get(name, name) for name in names],
            orientation="h",
            marker_color=[ALARM if name in report.alarms else CALM for name in names],
            text=[f"{100 * value:.1f} %" for value in values],
        )
    )
    figure.add_vline(x=chance, line_dash="dot", annotation_text="chance", annotation_position="top")
    figure.update_layout(
        xaxis={"tickformat": ".0%", "range": [0, 1], "title": "balanced accuracy"},
        yaxis={"automargin": True},
        height=90 + 40 * len(names),
        margin={**MARGIN, "t": 30},
    )
    return figure


def scatter(pictures: pd.DataFrame, by: str, solid: bool = False) -> go.Figure:
    """Scatter plot of embeddings, drawn by WebGL so that tens of thousands of points stay fast.

    Args:
        pictures: One row a picture, with columns file, x, y and, for 3-D, z.
        by: Column whose values get a colour each.
        solid: Whether to draw in 3-D.

    Returns:
        A figure in which the `customdata` of a point is its row number in `pictures`.
    """
    figure = go.Figure()
    values = pictures[by].fillna("–").astype(str)
    names = sorted(values.unique())
    for name, colour in zip(names, colours(len(names)), strict=True):
        rows = np.flatnonzero((values == name).to_numpy())
        part = pictures.iloc[rows]
        common = {
            "x": part["x"],
            "y": part["y"],
            "name": name,
            "mode": "markers",
            "customdata": rows,
            "text": part["file"],
            "hovertemplate": "%{text}<extra>" + name + "</extra>",
        }
        if solid:
            figure.add_scatter3d(**common, z=part["z"], marker={"size": 2, "color": colour})
        else:
            figure.add_scattergl(**common, marker={"size": 5, "opacity": 0.7, "color": colour})
    blank = {"showticklabels": False, "title": ""}
    figure.update_layout(
        height=520,
        margin=MARGIN,
        legend={**legend_above(), "itemsizing": "constant"},
        xaxis=blank,
        yaxis=blank,
        scene={"xaxis_title": "1st", "yaxis_title": "2nd", "zaxis_title": "3rd"},
    )
    return figure
