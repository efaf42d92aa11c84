"""Figures of confusion matrices and their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import plotly.graph_objects as go
else:
    go = lazy_module("plotly.graph_objects")

COUNTS, BY_TRUE, BY_PREDICTED = "counts", "of the true class", "of the predicted class"
NORMALISATIONS = (COUNTS, BY_TRUE, BY_PREDICTED)
ROW_PIXELS = 46  # height of a row
MIN_SCALE = 0.2  # the colour scale of a difference ends at least here, so that small differences look small
MARGIN = {"l": 0, "r": 0, "t": 32, "b": 0}  # room above for the download button


def normalised(counts: np.ndarray, normalisation: str) -> np.ndarray:
    """Counts (K, K), or shares of rows or columns; a row or column without images stays 0."""
    if normalisation == COUNTS:
        return counts.astype(float)
    total = counts.sum(1 if normalisation == BY_TRUE else 0, keepdims=True)
    return np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)


def confusion(
    counts: np.ndarray,
    labels: Sequence[str],
    normalisation: str,
    scale_end: float,
    names: Mapping[str, str] | None = None,
    short: Mapping[str, str] | None = None,
) -> go.Figure:
    """A confusion matrix with the true classes as rows.

    Invisible points lie over the cells, because plotly lets points be chosen but not cells; the `customdata` of each is
    (true, predicted).

    Args:
        counts: Images (K, K), true class by predicted class.
        labels: The K classes.
        normalisation: One of `NORMALISATIONS`.
        scale_end: Value at which the colour scale ends, the same for all models.
        names: Classes written out, by label; None to show the labels.
        short: What stands at the axes of a narrow figure, by label; None for the names.
    """
    values = normalised(counts, normalisation)
    digits = 0 if short else 1
    text = [[f"{v:,.0f}" if normalisation == COUNTS else f"{100 * v:.{digits}f}" for v in row] for row in values]
    figure = _matrix(values, labels, text, {"colorscale": "Purples", "zmin": 0, "zmax": scale_end or 1}, names, short)
    return figure.add_scatter(
        x=[label for _ in labels for label in labels],
        y=[label for label in labels for _ in labels],
        mode="markers",
        marker={"symbol": "square", "size": 34, "opacity": 0},
        selected={"marker": {"opacity": 0.25, "color": "#000"}},
        unselected={"marker": {"opacity": 0}},
        customdata=[[true, predicted] for true in labels for predicted in labels],
        text=_hover_texts(counts, _written(labels, names)),
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def difference(
    first: np.ndarray,
    second: np.ndarray,
    labels: Sequence[str],
    normalisation: str,
    names: Mapping[str, str] | None = None,
    short: Mapping[str, str] | None = None,
) -> go.Figure:
    """Difference of two matrices of counts (K, K): red where the first has more, blue where the second has."""
    values = normalised(first, normalisation) - normalised(second, normalisation)
    is_share = normalisation != COUNTS
    digits = 0 if short else 1
    text = [[f"{100 * v:+.{digits}f}" if is_share else f"{v:+,.0f}" for v in row] for row in values]
    end = max(float(np.abs(values).max(initial=0)), MIN_SCALE if is_share else 1.0)
    return _matrix(values, labels, text, {"colorscale": "RdBu_r", "zmin": -end, "zmax": end, "zmid": 0}, names, short)


def _written(labels: Sequence[str], names: Mapping[str, str] | None) -> list[str]:
    return [(names or {}).get(label, label) for label in labels]


def _hover_texts(counts: np.ndarray, labels: Sequence[str]) -> list[str]:
    by_true, by_predicted = normalised(counts, BY_TRUE), normalised(counts, BY_PREDICTED)
    return [
        f"true {labels[i]}<br>predicted {labels[j]}<br>{counts[i, j]:,} images<br>{by_true[i, j]:.1%} of the true class"
        f"<br>{by_predicted[i, j]:.1%} of the predicted class"
        for i in range(len(labels))
        for j in range(len(labels))
    ]


def _matrix(
    values: np.ndarray,
    labels: Sequence[str],
    text: list[list[str]],
    scale: dict[str, Any],
    names: Mapping[str, str] | None,
    short: Mapping[str, str] | None,
) -> go.Figure:
    written = _written(labels, names)
    ticks = {"tickvals": list(labels), "ticktext": _written(labels, short) if short else written}
    heat = go.Heatmap(
        z=values,
        x=labels,
        y=labels,
        text=text,
        texttemplate="%{text}",
        customdata=[[[true, predicted] for predicted in written] for true in written],
        hovertemplate="true %{customdata[0]}<br>predicted %{customdata[1]}<br>%{text}<extra></extra>",
        showscale=False,
        xgap=1,
        ygap=1,
        **scale,
    )
    return go.Figure(heat).update_layout(
        height=150 + ROW_PIXELS * len(labels),
        margin=MARGIN,
        xaxis={"title": "predicted", "fixedrange": True, "tickangle": 0 if short else -40, "automargin": True, **ticks},
        yaxis={"title": "true", "autorange": "reversed", "fixedrange": True, "automargin": True, **ticks},
        dragmode=False,
    )
