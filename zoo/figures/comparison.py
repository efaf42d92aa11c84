"""How are models drawn side by side? The same figures for the app's Compare page and for reports, all plotly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from zoo.benchmarks.corruptions import CLEAN, KINDS
from zoo.benchmarks.leaderboard import COLUMNS
from zoo.scores import curves
from zoo.scores.bootstrap import Interval
from zoo.scores.metrics import METRICS

COLOURS = ("#b5123e", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
GREY = "#8a8f98"
CELL = 46  # pixels of a matrix row
LEAST_SHARE = 0.2  # at which the colour scale of a difference ends at the least
MARGIN = {"l": 0, "r": 0, "t": 32, "b": 0}  # above: room for the button that downloads
BARS = ("accuracy", "macro_precision", "macro_recall", "macro_f1")  # of system E
SHOWN = ("counts", "of the true class", "of the called class")  # ways to show a confusion matrix


def colour(number: int) -> str:
    """Colour of the model with a number, the same in every figure."""
    return COLOURS[number % len(COLOURS)]


def normalised(counts: np.ndarray, shown: str) -> np.ndarray:
    """Counts (K, K) as one of SHOWN; rows or columns without images stay 0."""
    if shown == SHOWN[0]:
        return counts.astype(float)
    total = counts.sum(1 if shown == SHOWN[1] else 0, keepdims=True)
    return np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)


def confusion(counts: np.ndarray, labels: Sequence[str], shown: str, top: float) -> go.Figure:
    """A confusion matrix, true labels down; 0..`top` is the colour scale that all models share.

    On top of the squares lie invisible points, one a cell, whose customdata is (true, called): plotly lets points be
    chosen, not squares.
    """
    values = normalised(counts, shown)
    rows, columns = (normalised(counts, name) for name in SHOWN[1:])
    text = [[_cell(v, shown) for v in row] for row in values]
    hover = [
        f"true {labels[i]}<br>called {labels[j]}<br>{counts[i, j]:,} images<br>{rows[i, j]:.1%} of the true class"
        f"<br>{columns[i, j]:.1%} of the called class"
        for i in range(len(labels))
        for j in range(len(labels))
    ]
    figure = _matrix(values, labels, text, {"colorscale": "Purples", "zmin": 0, "zmax": top or 1})
    figure.add_scatter(
        x=[label for _ in labels for label in labels],
        y=[label for label in labels for _ in labels],
        mode="markers",
        marker={"symbol": "square", "size": 34, "opacity": 0},
        selected={"marker": {"opacity": 0.25, "color": "#000"}},
        unselected={"marker": {"opacity": 0}},
        customdata=[[true, called] for true in labels for called in labels],
        text=hover,
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    return figure


def difference(first: np.ndarray, second: np.ndarray, labels: Sequence[str], shown: str) -> go.Figure:
    """Difference of two matrices of counts, red where the first has more, blue where the second has."""
    values = normalised(first, shown) - normalised(second, shown)
    share = shown != SHOWN[0]
    text = [[f"{100 * v:+.1f}" if share else f"{v:+,.0f}" for v in row] for row in values]
    # differences of a few points should not look like abysses
    top = max(float(np.abs(values).max(initial=0)), LEAST_SHARE if share else 1.0)
    return _matrix(values, labels, text, {"colorscale": "RdBu_r", "zmin": -top, "zmax": top, "zmid": 0})


def per_class(found: Mapping[str, pd.DataFrame], score: str) -> go.Figure:
    """One score of each class, models side by side, with intervals."""
    figure = go.Figure()
    for number, (title, table) in enumerate(found.items()):
        figure.add_bar(
            name=title,
            x=table["label"],
            y=table[score],
            error_y=_error(table[score], table[f"{score}_low"], table[f"{score}_high"]),
            marker_color=colour(number),
            hovertemplate="%{x}: %{y:.1%}<extra>" + title + "</extra>",
        )
    return _shares(figure, 340, barmode="group")


def bars(found: Mapping[str, Mapping[str, Interval]], names: Sequence[str] = BARS) -> go.Figure:
    """Several scores, models side by side, with intervals (system E's chart)."""
    figure = go.Figure()
    for number, (title, scores) in enumerate(found.items()):
        some = [scores[name] for name in names]
        values = pd.Series([i.value for i in some])
        figure.add_bar(
            name=title,
            x=[METRICS[name].title for name in names],
            y=values,
            error_y=_error(values, pd.Series([i.low for i in some]), pd.Series([i.high for i in some])),
            marker_color=colour(number),
            hovertemplate="%{x}: %{y:.1%}<extra>" + title + "</extra>",
        )
    return _shares(figure, 340, barmode="group")


def operating(found: Mapping[str, pd.DataFrame], label: str, kind: str) -> go.Figure:
    """ROC (`kind` "roc") or precision–recall ("pr") curves of one class against the rest, by prediction table."""
    figure = go.Figure()
    for number, (title, table) in enumerate(found.items()):
        positive, scores = (table["label"] == label).to_numpy(), table[label].to_numpy(np.float64)
        curve = (curves.roc if kind == "roc" else curves.precision_recall)(positive, scores)
        x, y, thresholds = _thinned(curve.x, curve.y, curve.thresholds)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=f"{title} ({'AUC' if kind == 'roc' else 'AP'} {curve.area:.3f})",
            line={"color": colour(number), "shape": "linear" if kind == "roc" else "vh"},
            customdata=thresholds,
            hovertemplate="%{x:.1%}, %{y:.1%} at %{customdata:.3f}<extra>" + title + "</extra>",
        )
    if kind == "roc":
        figure.add_scatter(
            x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "dash": "dot"}, showlegend=False, hoverinfo="skip"
        )
    axes = ("false positive rate", "true positive rate") if kind == "roc" else ("recall", "precision")
    return _unit(figure, *axes)


def reliability(found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> go.Figure:
    """Confidence against accuracy from (truth, probabilities) by title; the size of a point is its number of images."""
    figure = go.Figure()
    for number, (title, (truth, shares)) in enumerate(found.items()):
        bins = curves.reliability(truth, shares)
        some = bins.images > 0
        figure.add_scatter(
            x=bins.confidence[some],
            y=bins.accuracy[some],
            mode="lines+markers",
            name=title,
            line={"color": colour(number), "width": 1},
            marker={"size": 5 + 20 * np.sqrt(bins.images[some] / bins.images.sum())},
            customdata=bins.images[some],
            hovertemplate="confidence %{x:.1%}, right %{y:.1%}<br>%{customdata:,} images<extra>" + title + "</extra>",
        )
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "dash": "dot"}, showlegend=False, hoverinfo="skip"
    )
    return _unit(figure, "confidence", "share right")


def risk_coverage(found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> go.Figure:
    """Accuracy over the surest share of images, from (truth, probabilities) by title."""
    figure = go.Figure()
    for number, (title, (truth, shares)) in enumerate(found.items()):
        curve = curves.risk_coverage(truth, shares)
        x, y, thresholds = _thinned(curve.x, curve.y, curve.thresholds)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=title,
            line_color=colour(number),
            customdata=thresholds,
            hovertemplate="%{x:.0%} answered, %{y:.1%} right (confidence at least %{customdata:.3f})<extra>"
            + title
            + "</extra>",
        )
    figure = _unit(figure, "share of images answered, the surest first", "share right")
    return figure.update_yaxes(range=None, rangemode="normal", tickformat=".0%")


def corruption(found: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Balanced error by severity, a small plot a kind, from tables of `robustness.by_kind`; clean pictures are 0."""
    kinds = [kind for kind in KINDS if any((table["kind"] == kind).any() for table in found.values())]
    across = 4
    down = max(1, -(-len(kinds) // across))
    titles = [KINDS[kind].title for kind in kinds]
    figure = make_subplots(down, across, shared_yaxes=True, subplot_titles=titles, vertical_spacing=0.36 / down)
    for number, (title, table) in enumerate(found.items()):
        clean = table[table["kind"] == CLEAN]
        for place, kind in enumerate(kinds):
            rows = pd.concat([clean, table[table["kind"] == kind]]).sort_values("severity")
            figure.add_scatter(
                x=rows["severity"],
                y=rows["error"],
                error_y=_error(rows["error"], rows["low"], rows["high"]),
                mode="lines+markers",
                name=title,
                legendgroup=title,
                showlegend=place == 0,
                line_color=colour(number),
                hovertemplate="severity %{x}: error %{y:.1%}<extra>" + title + "</extra>",
                row=place // across + 1,
                col=place % across + 1,
            )
    figure.update_xaxes(dtick=1, fixedrange=True)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero", fixedrange=True)
    figure.update_annotations(font_size=12)
    return figure.update_layout(height=110 + 190 * down, margin={**MARGIN, "t": 44}, legend=_legend(-0.1))


def home_and_away(table: pd.DataFrame) -> go.Figure:
    """Balanced accuracy at home against that in another laboratory, a point a model, from `leaderboard.table`."""
    some = table.dropna(subset=["home", "away"])
    figure = go.Figure()
    for number, row in enumerate(some.to_dict("records")):
        figure.add_scatter(
            x=[row["home"]],
            y=[row["away"]],
            error_x=_error(*(pd.Series([row[f"home{end}"]]) for end in ("", "_low", "_high"))),
            error_y=_error(*(pd.Series([row[f"away{end}"]]) for end in ("", "_low", "_high"))),
            mode="markers",
            marker={"size": 11, "color": colour(number)},
            name=row["model"],
            hovertemplate="at home %{x:.1%}<br>elsewhere %{y:.1%}<extra>" + str(row["model"]) + "</extra>",
        )
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "dash": "dot"}, showlegend=False, hoverinfo="skip"
    )
    return _unit(figure, "balanced accuracy at home", "balanced accuracy elsewhere")


def training_curves(found: Mapping[str, pd.DataFrame], column: str) -> go.Figure:
    """One column of the histories by epoch, models overlaid."""
    figure = go.Figure()
    for number, (title, history) in enumerate(found.items()):
        if "epoch" in history and column in history:
            figure.add_scatter(
                x=history["epoch"],
                y=history[column],
                name=title,
                mode="lines+markers",
                line_color=colour(number),
                hovertemplate="epoch %{x}: %{y:.4f}<extra>" + title + "</extra>",
            )
    figure.update_xaxes(title="epoch", fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    return figure.update_layout(height=340, margin=MARGIN, legend=_legend())


def interval_bar(value: float, low: float, high: float, least: float, most: float, marked: bool) -> str:
    """A small picture of a value and its interval between `least` and `most`, as a data URL (SVG); empty for nan."""
    if not np.isfinite(value):
        return ""
    width, span = 100, max(most - least, 1e-9)
    x, left, right = (5 + 90 * float(np.clip((v - least) / span, 0, 1)) for v in (value, low, high))
    tint = COLOURS[0] if marked else GREY
    drawn = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" viewBox="0 0 {width} 20">'
        f'<rect x="{left:.1f}" y="8" width="{max(right - left, 1.5):.1f}" height="4" rx="2" fill="{tint}" '
        f'opacity="0.45"/>'
        f'<circle cx="{x:.1f}" cy="10" r="4" fill="{tint}"/></svg>'
    )
    return "data:image/svg+xml;utf8," + quote(drawn)


def leaderboard_range(table: pd.DataFrame, name: str) -> tuple[float, float]:
    """Ends of the scale on which a column's intervals are drawn."""
    low, high = table[f"{name}_low"].min(), table[f"{name}_high"].max()
    return (0.0, float(high)) if COLUMNS[name].lower_is_better else (float(low), float(high))


def _matrix(values: np.ndarray, labels: Sequence[str], text: list[list[str]], scale: dict) -> go.Figure:
    heat = go.Heatmap(
        z=values,
        x=labels,
        y=labels,
        text=text,
        texttemplate="%{text}",
        hovertemplate="true %{y}<br>called %{x}<br>%{text}<extra></extra>",
        showscale=False,
        xgap=1,
        ygap=1,
        **scale,
    )
    return go.Figure(heat).update_layout(
        height=150 + CELL * len(labels),
        margin=MARGIN,
        xaxis={"title": "called", "fixedrange": True, "tickangle": -40, "automargin": True},
        yaxis={"title": "true", "autorange": "reversed", "fixedrange": True, "automargin": True},
        dragmode=False,
    )


def _cell(value: float, shown: str) -> str:
    return f"{value:,.0f}" if shown == SHOWN[0] else f"{100 * value:.1f}"


def _error(value: pd.Series, low: pd.Series, high: pd.Series) -> dict:
    up, down = (high - value).clip(lower=0), (value - low).clip(lower=0)
    return {"type": "data", "array": up, "arrayminus": down, "color": GREY, "thickness": 1}


def _thinned(x: np.ndarray, y: np.ndarray, more: np.ndarray, most: int = 400) -> tuple[np.ndarray, ...]:
    """At most about `most` points of a curve, its corners kept: thousands would make the page slow."""
    if len(x) <= most:
        return x, y, more
    corner = np.ones(len(x), bool)
    corner[1:-1] = (np.diff(x)[:-1] != np.diff(x)[1:]) | (np.diff(y)[:-1] != np.diff(y)[1:])
    kept = np.flatnonzero(corner)
    if len(kept) > most:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, most).astype(int))]
    return x[kept], y[kept], more[kept]


def _shares(figure: go.Figure, height: int, **layout: object) -> go.Figure:
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", fixedrange=True)
    figure.update_xaxes(fixedrange=True)
    return figure.update_layout(height=height, margin=MARGIN, legend=_legend(), **layout)


def _unit(figure: go.Figure, x: str, y: str) -> go.Figure:
    figure.update_xaxes(title=x, range=[-0.01, 1.01], tickformat=".0%", fixedrange=True)
    figure.update_yaxes(title=y, range=[-0.01, 1.02], tickformat=".0%", fixedrange=True)
    return figure.update_layout(height=420, margin=MARGIN, legend=_legend(-0.25))


def _legend(y: float = -0.2) -> dict:
    return {"orientation": "h", "y": y, "x": 0}
