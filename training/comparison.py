"""How is a comparison read without the app? One HTML page that needs nothing else, for a paper's supplement.

The same figures and tables as on the Compare page, from the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from training.audit.page import STYLE
from zoo import comparison_figures as figures
from zoo import leaderboard, metrics, robustness, significance
from zoo.calibration import scaling_of
from zoo.entry import Entry, EntryError, read_history, read_predictions
from zoo.metrics import Report
from zoo.scoring import NAMES, intervals, is_corrupted, rows_hash, score

CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtons": [["toImage"]],
    "toImageButtonOptions": {"format": "svg"},
}


def render(entries: Sequence[Entry], titles: Mapping[str, str]) -> str:
    """The page. Everything that comes from an entry is escaped. Raises EntryError if predictions are damaged."""
    table = leaderboard.table(entries)
    leaders = {name: leaderboard.best(entries, name) for name in leaderboard.COLUMNS}
    parts = [
        "<h1>Comparison of models of blood cells</h1>",
        f'<p class="muted">{len(entries)} models. In brackets, and as bars: 95 % intervals by bootstrap over source '
        "cells. Bold: a significant lead over every other model (paired bootstrap, adjusted after Holm). Not a medical "
        "device.</p>",
        "<h2>Leaderboard</h2>",
        _table(_bold(leaderboard.in_words(table, leaders))),
        _figure(figures.home_and_away(table)) if not table.dropna(subset=["home", "away"]).empty else "",
    ]
    named = dict.fromkeys(name for e in entries for name, b in e.evaluation.benchmarks.items() if b.role == "test")
    for name in named:
        parts += _benchmark(name, [e for e in entries if name in e.evaluation.benchmarks], titles)
    histories = {titles[e.id]: read_history(e) for e in entries}
    for column in ("val_accuracy", "val_loss"):
        if any(column in history for history in histories.values()):
            parts += [f"<h2>{column.replace('_', ' ')}</h2>", _figure(figures.training_curves(histories, column))]
    script = f"<script>{get_plotlyjs()}</script>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Comparison</title><style>{STYLE}'
        ".row { display: flex; flex-wrap: wrap; gap: 24px; } "
        ".row > div { flex: 1 1 420px; min-width: 0; overflow: hidden; } "
        f".wide {{ overflow-x: auto; }}</style>{script}<body>{''.join(parts)}</body></html>\n"
    )


def _benchmark(name: str, entries: Sequence[Entry], titles: Mapping[str, str]) -> list[str]:
    """Everything of one benchmark: matrices, scores, classes, curves, calibration, corruption and tests."""
    described = entries[0].evaluation.benchmarks[name]
    labels = described.labels
    tables = {titles[e.id]: read_predictions(e, name) for e in entries if _same(e, name, labels)}
    by_title = {titles[e.id]: e for e in entries}
    reports = {title: score(table, labels, scaling_of(by_title[title])) for title, table in tables.items()}
    parts = [
        f"<h2>{escape(name)}: {escape(described.title)}</h2>",
        f'<p class="muted">{described.n_images:,} images of {described.n_cells:,} independent cells. '
        f"{escape(' '.join(described.notes))}</p>",
    ]
    parts += [
        f'<p class="alarm">Leaky split, {escape(titles[e.id])}: only good for reproducing others.</p>'
        for e in entries
        if e.evaluation.benchmarks[name].leaky
    ]
    if len({rows_hash(table) for table in tables.values()}) > 1:
        parts.append('<p class="alarm">Not all models were scored on the same pictures; compare with care.</p>')
    parts.append(_table(_scores(reports)))
    parts.append(_figure(figures.bars({title: intervals(r) for title, r in reports.items()})))
    counts = {title: metrics.confusion_of(table, labels) for title, table in tables.items()}
    for shown in figures.SHOWN[:2]:
        top = max(float(c.max()) for c in counts.values()) if shown == figures.SHOWN[0] else 1.0
        drawn = [_titled(title, figures.confusion(c, labels, shown, top)) for title, c in counts.items()]
        parts += [f"<h3>Confusion, {shown}</h3>", f'<div class="row">{"".join(drawn)}</div>']
    parts += ["<h3>F1 of each class</h3>", _figure(figures.per_class({t: r.classes for t, r in reports.items()}, "f1"))]
    answers = {title: metrics.arrays(table, labels) for title, table in tables.items()}
    both = _titled("Reliability", figures.reliability(answers)) + _titled(
        "The surest first", figures.risk_coverage(answers)
    )
    parts.append(f'<div class="row">{both}</div>')
    for label in labels:
        pair = "".join(
            _titled(f"{title}, {label} against the rest", figures.operating(tables, label, kind))
            for kind, title in (("roc", "ROC"), ("pr", "Precision and recall"))
        )
        parts.append(f'<div class="row">{pair}</div>')
    corrupted = {
        t: robustness.by_kind(robustness.errors(table, labels)) for t, table in tables.items() if is_corrupted(table)
    }
    if corrupted:
        parts += ["<h3>Balanced error by corruption and severity</h3>", _figure(figures.corruption(corrupted))]
    if len(tables) > 1:
        try:
            parts += ["<h3>Every two models</h3>", _table(significance.pairs(tables, labels).round(4))]
        except ValueError as error:
            parts.append(f"<p>{escape(str(error))}</p>")
    return parts


def _same(entry: Entry, name: str, labels: Sequence[str]) -> bool:
    found = entry.evaluation.benchmarks[name].labels
    if set(found) != set(labels):
        raise EntryError(f"{entry.id} names other classes on {name} than the other models: {', '.join(found)}.")
    return True


def _scores(reports: Mapping[str, Report]) -> pd.DataFrame:
    rows = []
    for key, title in NAMES.items():
        if any(key in report.scores for report in reports.values()):
            row = {"score": title}
            for model, report in reports.items():
                found = report.scores[key].interval if key in report.scores else None
                row[model] = f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})" if found else "–"
            rows.append(row)
    return pd.DataFrame(rows)


def _bold(table: pd.DataFrame) -> pd.DataFrame:
    return table.map(lambda v: f"\0{v[2:-2]}" if isinstance(v, str) and v.startswith("**") else v)


def _table(table: pd.DataFrame) -> str:
    head = "".join(f"<th>{escape(str(name))}</th>" for name in table.columns)
    rows = "".join("<tr>" + "".join(_cell(v) for v in row) + "</tr>" for row in table.itertuples(index=False))
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def _cell(value: object) -> str:
    text = str(value)
    return f"<td><b>{escape(text[1:])}</b></td>" if text.startswith("\0") else f"<td>{escape(text)}</td>"


def _titled(title: str, figure: go.Figure) -> str:
    return f"<div><b>{escape(title)}</b>{_figure(figure)}</div>"


def _figure(figure: go.Figure) -> str:
    figure.update_layout(template="plotly_white")
    config = {
        "displaylogo": False,
        "responsive": True,
        "modeBarButtons": [["toImage"]],
        "toImageButtonOptions": {"format": "svg"},
    }
    return plotly.io.to_html(figure, include_plotlyjs=False, full_html=False, config=config)
