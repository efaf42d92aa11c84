"""Figures of answers: probabilities of one picture, the differential count of many, and pictures to zoom."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from zoo.figures.style import ACCENT, GREY, MUTED
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from plotly import subplots
else:
    pd = lazy_module("pandas")
    go = lazy_module("plotly.graph_objects")
    subplots = lazy_module("plotly.subplots")

MARGIN = {"l": 0, "r": 0, "t": 4, "b": 4}
BAR_PIXELS, COUNT_PIXELS = 30, 34  # height of a bar
ZOOM_PIXELS = 420  # height of linked pictures


def probability_bars(
    probabilities: Mapping[str, float], predicted: str, names: Mapping[str, str] | None = None
) -> go.Figure:
    """One horizontal bar a class, the most probable on top.

    Args:
        probabilities: Probability by class, 0..1.
        predicted: The class to highlight.
        names: Classes written out for people; the class itself where there is none.
    """
    ranked = sorted(probabilities.items(), key=lambda item: item[1])
    labels, values = [label for label, _ in ranked], [value for _, value in ranked]
    figure = go.Figure(
        go.Bar(
            x=values,
            y=[(names or {}).get(label, label) for label in labels],
            orientation="h",
            text=[f"{100 * value:.1f} %" for value in values],
            textposition="auto",
            marker_color=[ACCENT if label == predicted else MUTED for label in labels],
            hovertemplate="%{y}<br>%{x:.2%}<extra></extra>",
        )
    )
    return figure.update_layout(
        height=46 + BAR_PIXELS * len(labels),
        margin=MARGIN,
        xaxis={"range": [0, 1], "tickformat": ".0%", "fixedrange": True},
        yaxis={"fixedrange": True, "automargin": True},
        showlegend=False,
    )


def differential_count(count: pd.DataFrame) -> go.Figure:
    """Shares of a differential count with 95 % intervals, from `zoo.scores.metrics.differential_count`."""
    figure = go.Figure(
        go.Bar(
            x=count["share"],
            y=count["label"],
            orientation="h",
            marker_color=ACCENT,
            customdata=count[["count", "low", "high"]],
            error_x={
                "type": "data",
                "array": count["high"] - count["share"],
                "arrayminus": count["share"] - count["low"],
                "color": GREY,
            },
            hovertemplate="%{y}: %{customdata[0]} cells, %{x:.1%}<br>"
            "%{customdata[1]:.1%} to %{customdata[2]:.1%}<extra></extra>",
        )
    )
    return figure.update_layout(
        height=60 + COUNT_PIXELS * len(count),
        margin=MARGIN,
        xaxis={"range": [0, 1], "tickformat": ".0%", "fixedrange": True},
        yaxis={"autorange": "reversed", "fixedrange": True, "automargin": True},
    )


def linked_pictures(pictures: Sequence[tuple[str, Image.Image]]) -> go.Figure:
    """Pictures of one size side by side, with titles, that zoom and move together."""
    titles = [title for title, _ in pictures]
    figure = subplots.make_subplots(1, len(pictures), subplot_titles=titles, horizontal_spacing=0.02)
    for column, (_, image) in enumerate(pictures, 1):
        figure.add_image(source=_png_url(image), x0=0.5, y0=0.5, row=1, col=column, hoverinfo="skip")
    figure.update_xaxes(matches="x", visible=False, constrain="domain")
    figure.update_yaxes(matches="y", visible=False, constrain="domain")
    width, height = pictures[0][1].size
    for column in range(1, len(pictures) + 1):
        anchor = "x" if column == 1 else f"x{column}"
        figure.update_yaxes(scaleanchor=anchor, range=[height, 0], row=1, col=column)
        figure.update_xaxes(range=[0, width], row=1, col=column)
    return figure.update_layout(height=ZOOM_PIXELS, margin={"l": 0, "r": 0, "t": 28, "b": 0}, dragmode="pan")


def _png_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
