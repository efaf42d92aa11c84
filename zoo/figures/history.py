"""Figures of training histories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from zoo.figures.style import ACCENT, MUTED, colour, legend_below
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
else:
    pd = lazy_module("pandas")
    go = lazy_module("plotly.graph_objects")


def training_and_validation(history: pd.DataFrame, quantity: Literal["loss", "accuracy"]) -> go.Figure:
    """Loss or accuracy of one run by epoch, in training and in validation.

    Args:
        history: One row an epoch, with columns such as `train_loss` and `val_loss`.
        quantity: What is drawn.
    """
    figure = go.Figure()
    for side, title, line_colour in (("train", "training", MUTED), ("val", "validation", ACCENT)):
        if f"{side}_{quantity}" in history:
            figure.add_scatter(
                x=history["epoch"],
                y=history[f"{side}_{quantity}"],
                name=title,
                line_color=line_colour,
                mode="lines+markers",
            )
    return figure.update_layout(
        height=300,
        margin={"l": 0, "r": 0, "t": 30, "b": 0},
        title=quantity.capitalize(),
        xaxis={"title": "epoch", "fixedrange": True},
        yaxis={"fixedrange": True, "rangemode": "tozero" if quantity == "loss" else "normal"},
        legend=legend_below(-0.25),
    )


def training_curves(histories: Mapping[str, pd.DataFrame], column: str) -> go.Figure:
    """One column of several histories by epoch; `histories` by the model's title."""
    figure = go.Figure()
    for index, (title, history) in enumerate(histories.items()):
        if "epoch" in history and column in history:
            figure.add_scatter(
                x=history["epoch"],
                y=history[column],
                name=title,
                mode="lines+markers",
                line_color=colour(index),
                hovertemplate="epoch %{x}: %{y:.4f}<extra>" + title + "</extra>",
            )
    figure.update_xaxes(title="epoch", fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    return figure.update_layout(height=340, margin={"l": 0, "r": 0, "t": 32, "b": 0}, legend=legend_below())
