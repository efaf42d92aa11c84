"""Figures of detectors: scores by object, and counts found against counts marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zoo.detection.objects import OBJECTS
from zoo.entry.schema import Metric
from zoo.figures.style import GREY, colour, legend_below
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
HEIGHT = 340


def precision_bars(scores: Mapping[str, Mapping[str, Metric]], score: str = "AP50") -> go.Figure:
    """One score of each object with its interval; `scores` by "object: score", by the detector's title."""
    figure = go.Figure()
    for index, (title, found) in enumerate(scores.items()):
        known = {name: found[key] for name in OBJECTS if (key := f"{name}: {score}") in found}
        values = np.array([one.value for one in known.values()])
        low = np.array([one.value if one.low is None else one.low for one in known.values()])
        high = np.array([one.value if one.high is None else one.high for one in known.values()])
        figure.add_bar(
            name=title,
            x=list(known),
            y=values,
            error_y={"type": "data", "array": high - values, "arrayminus": values - low, "color": GREY},
            marker_color=colour(index),
            hovertemplate="%{x}: %{y:.1%}<extra>" + title + "</extra>",
        )
    figure.update_yaxes(range=[0, 1], tickformat=".0%", fixedrange=True)
    figure.update_xaxes(fixedrange=True)
    return figure.update_layout(height=HEIGHT, margin=MARGIN, barmode="group", legend=legend_below())


def bland_altman(counts: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Difference of the counts of each field over their mean, an object a panel.

    Lines show the mean difference, dashed ones the limits of 95 % of the differences (Bland & Altman 1986).

    Args:
        counts: Tables of `zoo.detection.scoring.count_table` by the detector's title.
    """
    from zoo.detection.scoring import agreement  # noqa: PLC0415 (needs pandas)

    shown = _objects(list(counts.values()))
    figure = subplots.make_subplots(cols=max(1, len(shown)), subplot_titles=[f"{name}s" for name in shown])
    lines: list[dict[str, object]] = []  # set at once: plotly's `add_hline` takes a tenth of a second for each
    for index, (title, table) in enumerate(counts.items()):
        for column, name in enumerate(shown, 1):
            rows = table[table["object"] == name]
            differences = (rows["found"] - rows["marked"]).to_numpy(float)
            figure.add_scatter(
                x=(rows["found"] + rows["marked"]) / 2,
                y=differences,
                customdata=rows[["file", "found", "marked"]],
                mode="markers",
                name=title,
                legendgroup=title,
                showlegend=column == 1 and len(counts) > 1,
                marker={"color": colour(index), "opacity": 0.5},
                hovertemplate="%{customdata[0]}<br>%{customdata[1]} found, %{customdata[2]} marked<extra>"
                + title
                + "</extra>",
                row=1,
                col=column,
            )
            bias, spread = agreement(differences)
            for value, dash in ((bias, "solid"), (bias - spread, "dash"), (bias + spread, "dash")):
                lines.append(_line(value, column, {"color": colour(index), "dash": dash, "width": 1}))
    figure.update_xaxes(title="mean of both counts", rangemode="tozero", fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    figure.update_yaxes(title="found − marked", col=1)
    return figure.update_layout(height=HEIGHT, margin=MARGIN, legend=legend_below(), shapes=lines)


def _line(value: float, column: int, style: dict[str, object]) -> dict[str, object]:
    """A horizontal line through the panel of a column, counted from 1."""
    axis = "" if column == 1 else str(column)
    place = {"xref": f"x{axis} domain", "x0": 0, "x1": 1, "yref": f"y{axis}", "y0": value, "y1": value}
    return {"type": "line", "line": style, **place}


def _objects(tables: Sequence[pd.DataFrame]) -> list[str]:
    """Objects that any field holds, marked or found."""
    cells = pd.concat(tables)
    totals = cells.groupby("object")[["marked", "found"]].sum().sum(axis=1)
    return [name for name in OBJECTS if totals.get(name, 0)]
