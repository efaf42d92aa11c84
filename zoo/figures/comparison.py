"""Figures of several models side by side, from scores and prediction tables by the model's title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import numpy as np

from zoo.benchmarks.corruptions import CLEAN, KINDS
from zoo.benchmarks.leaderboard import COLUMNS
from zoo.figures.style import ACCENT, GREY, colour, legend_below
from zoo.lazy import lazy_module
from zoo.scores import curves
from zoo.scores.bootstrap import Interval
from zoo.scores.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from plotly import subplots
else:
    pd = lazy_module("pandas")
    go = lazy_module("plotly.graph_objects")
    subplots = lazy_module("plotly.subplots")

MARGIN = {"l": 0, "r": 0, "t": 32, "b": 0}  # room above for the download button
SUMMARY_SCORES = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
MAX_POINTS = 400  # of a curve: thousands would make the page slow
PLOTS_PER_ROW = 4  # of small plots by corruption
BAR_WIDTH, BAR_INSET = 100, 5  # pixels of an interval's bar, and of the room at each end


def per_class(scores: Mapping[str, pd.DataFrame], score: str) -> go.Figure:
    """One score of each class with intervals; `scores` has a row a class, and columns score, score_low, score_high."""
    figure = go.Figure()
    for index, (title, table) in enumerate(scores.items()):
        figure.add_bar(
            name=title,
            x=table["label"],
            y=table[score],
            error_y=_error_bars(table[score], table[f"{score}_low"], table[f"{score}_high"]),
            marker_color=colour(index),
            hovertemplate="%{x}: %{y:.1%}<extra>" + title + "</extra>",
        )
    return _as_shares(figure, 340, barmode="group")


def bars(scores: Mapping[str, Mapping[str, Interval]], names: Sequence[str] = SUMMARY_SCORES) -> go.Figure:
    """Several scores with intervals."""
    figure = go.Figure()
    for index, (title, intervals) in enumerate(scores.items()):
        chosen = [intervals[name] for name in names]
        values = pd.Series([interval.value for interval in chosen])
        low, high = pd.Series([interval.low for interval in chosen]), pd.Series([interval.high for interval in chosen])
        figure.add_bar(
            name=title,
            x=[METRICS[name].title for name in names],
            y=values,
            error_y=_error_bars(values, low, high),
            marker_color=colour(index),
            hovertemplate="%{x}: %{y:.1%}<extra>" + title + "</extra>",
        )
    return _as_shares(figure, 340, barmode="group")


def operating_curves(tables: Mapping[str, pd.DataFrame], label: str, kind: Literal["roc", "pr"]) -> go.Figure:
    """ROC or precision–recall curves of one class against the rest, from prediction tables."""
    figure = go.Figure()
    for index, (title, table) in enumerate(tables.items()):
        positive, scores = (table["label"] == label).to_numpy(), table[label].to_numpy(np.float64)
        curve = (curves.roc if kind == "roc" else curves.precision_recall)(positive, scores)
        x, y, thresholds = _thinned(curve.x, curve.y, curve.thresholds)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=f"{title} ({'AUC' if kind == 'roc' else 'AP'} {curve.area:.3f})",
            line={"color": colour(index), "shape": "linear" if kind == "roc" else "vh"},
            customdata=thresholds,
            hovertemplate="%{x:.1%}, %{y:.1%} at %{customdata:.3f}<extra>" + title + "</extra>",
        )
    if kind == "roc":
        _add_diagonal(figure)
    axes = ("false positive rate", "true positive rate") if kind == "roc" else ("recall", "precision")
    return _unit_square(figure, *axes)


def reliability(answers: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> go.Figure:
    """Reliability diagram: confidence against accuracy; the size of a point is its number of images.

    Args:
        answers: True classes (n,) and probabilities (n, classes) by title.
    """
    figure = go.Figure()
    for index, (title, (truth, probabilities)) in enumerate(answers.items()):
        bins = curves.reliability(truth, probabilities)
        filled = bins.images > 0
        figure.add_scatter(
            x=bins.confidence[filled],
            y=bins.accuracy[filled],
            mode="lines+markers",
            name=title,
            line={"color": colour(index), "width": 1},
            marker={"size": 5 + 20 * np.sqrt(bins.images[filled] / bins.images.sum())},
            customdata=bins.images[filled],
            hovertemplate="confidence %{x:.1%}, correct %{y:.1%}<br>%{customdata:,} images<extra>" + title + "</extra>",
        )
    _add_diagonal(figure)
    return _unit_square(figure, "confidence", "share correct")


def risk_coverage(answers: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> go.Figure:
    """Accuracy on the most confident share of images.

    Args:
        answers: True classes (n,) and probabilities (n, classes) by title.
    """
    figure = go.Figure()
    for index, (title, (truth, probabilities)) in enumerate(answers.items()):
        curve = curves.risk_coverage(truth, probabilities)
        x, y, thresholds = _thinned(curve.x, curve.y, curve.thresholds)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=title,
            line_color=colour(index),
            customdata=thresholds,
            hovertemplate="%{x:.0%} answered, %{y:.1%} correct (confidence at least %{customdata:.3f})<extra>"
            + title
            + "</extra>",
        )
    figure = _unit_square(figure, "share of images answered, most confident first", "share correct")
    return figure.update_yaxes(range=None, rangemode="normal", tickformat=".0%")


def corruption(errors: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Balanced error by severity, a small plot for each kind; clean pictures have severity 0.

    Args:
        errors: Tables of `zoo.benchmarks.robustness.by_kind` by title.
    """
    kinds = [kind for kind in KINDS if any((table["kind"] == kind).any() for table in errors.values())]
    rows = max(1, -(-len(kinds) // PLOTS_PER_ROW))
    titles = [KINDS[kind].title for kind in kinds]
    figure = subplots.make_subplots(
        rows, PLOTS_PER_ROW, shared_yaxes=True, subplot_titles=titles, vertical_spacing=0.36 / rows
    )
    for index, (title, table) in enumerate(errors.items()):
        clean = table[table["kind"] == CLEAN]
        for place, kind in enumerate(kinds):
            points = pd.concat([clean, table[table["kind"] == kind]]).sort_values("severity")
            figure.add_scatter(
                x=points["severity"],
                y=points["error"],
                error_y=_error_bars(points["error"], points["low"], points["high"]),
                mode="lines+markers",
                name=title,
                legendgroup=title,
                showlegend=place == 0,
                line_color=colour(index),
                hovertemplate="severity %{x}: error %{y:.1%}<extra>" + title + "</extra>",
                row=place // PLOTS_PER_ROW + 1,
                col=place % PLOTS_PER_ROW + 1,
            )
    figure.update_xaxes(dtick=1, fixedrange=True)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero", fixedrange=True)
    figure.update_annotations(font_size=12)
    return figure.update_layout(height=110 + 190 * rows, margin={**MARGIN, "t": 44}, legend=legend_below(-0.1))


def home_against_others(table: pd.DataFrame) -> go.Figure:
    """Balanced accuracy in the home laboratory against the mean in other laboratories, a point a model.

    Args:
        table: The table of `zoo.benchmarks.leaderboard.table`.
    """
    scored = table.dropna(subset=["home", "away"])
    figure = go.Figure()
    for index, row in enumerate(scored.to_dict("records")):
        home, away = (
            [pd.Series([row[f"{column}{end}"]]) for end in ("", "_low", "_high")] for column in ("home", "away")
        )
        figure.add_scatter(
            x=[row["home"]],
            y=[row["away"]],
            error_x=_error_bars(*home),
            error_y=_error_bars(*away),
            mode="markers",
            marker={"size": 11, "color": colour(index)},
            name=row["model"],
            hovertemplate="home %{x:.1%}<br>others, mean %{y:.1%}<extra>" + str(row["model"]) + "</extra>",
        )
    _add_diagonal(figure)
    return _unit_square(figure, "balanced accuracy, home laboratory", "balanced accuracy, other laboratories (mean)")


def interval_bar(value: float, low: float, high: float, scale_start: float, scale_end: float, highlighted: bool) -> str:
    """A small picture of a value and its interval on a scale, as a data URL (SVG); empty for NaN."""
    if not np.isfinite(value):
        return ""
    span = max(scale_end - scale_start, 1e-9)
    x, left, right = (
        BAR_INSET + (BAR_WIDTH - 2 * BAR_INSET) * float(np.clip((v - scale_start) / span, 0, 1))
        for v in (value, low, high)
    )
    tint = ACCENT if highlighted else GREY
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{BAR_WIDTH}" height="20" viewBox="0 0 {BAR_WIDTH} 20">'
        f'<rect x="{left:.1f}" y="8" width="{max(right - left, 1.5):.1f}" height="4" rx="2" fill="{tint}" '
        f'opacity="0.45"/>'
        f'<circle cx="{x:.1f}" cy="10" r="4" fill="{tint}"/></svg>'
    )
    return "data:image/svg+xml;utf8," + quote(svg)


def leaderboard_range(table: pd.DataFrame, name: str) -> tuple[float, float]:
    """Start and end of the scale on which a column's intervals are drawn."""
    low, high = table[f"{name}_low"].min(), table[f"{name}_high"].max()
    return (0.0, float(high)) if COLUMNS[name].lower_is_better else (float(low), float(high))


def _add_diagonal(figure: go.Figure) -> None:
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "dash": "dot"}, showlegend=False, hoverinfo="skip"
    )


def _error_bars(value: pd.Series, low: pd.Series, high: pd.Series) -> dict[str, Any]:
    above, below = (high - value).clip(lower=0), (value - low).clip(lower=0)
    return {"type": "data", "array": above, "arrayminus": below, "color": GREY, "thickness": 1}


def _thinned(x: np.ndarray, y: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """About MAX_POINTS points of a curve at most; its corners are kept first."""
    if len(x) <= MAX_POINTS:
        return x, y, thresholds
    corner = np.ones(len(x), bool)
    corner[1:-1] = (np.diff(x)[:-1] != np.diff(x)[1:]) | (np.diff(y)[:-1] != np.diff(y)[1:])
    kept = np.flatnonzero(corner)
    if len(kept) > MAX_POINTS:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, MAX_POINTS).astype(int))]
    return x[kept], y[kept], thresholds[kept]


def _as_shares(figure: go.Figure, height: int, **layout: object) -> go.Figure:
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", fixedrange=True)
    figure.update_xaxes(fixedrange=True)
    return figure.update_layout(height=height, margin=MARGIN, legend=legend_below(), **layout)


def _unit_square(figure: go.Figure, x: str, y: str) -> go.Figure:
    figure.update_xaxes(title=x, range=[-0.01, 1.01], tickformat=".0%", fixedrange=True)
    figure.update_yaxes(title=y, range=[-0.01, 1.02], tickformat=".0%", fixedrange=True)
    return figure.update_layout(height=420, margin=MARGIN, legend=legend_below(-0.25))
