"""Comparison of models as one self-contained HTML page, for example for a paper's supplement.

It holds the figures and tables of the Compare page, made by the same functions.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import permutations
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pandas as pd
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from training.audit.page import STYLE
from zoo.benchmarks import find_source, leaderboard, published, robustness
from zoo.benchmarks.comparison import Stage, calibration_data, joint_labels, sample_names, with_labels
from zoo.benchmarks.eligibility import NOT_SCORED
from zoo.benchmarks.scoring import METRICS, intervals, is_corrupted, rows_hash, score
from zoo.entry import Entry, read_history, read_predictions
from zoo.figures import comparison as figures
from zoo.figures import confusion as confusion_figures
from zoo.figures.history import training_curves
from zoo.imaging.decode import PictureError
from zoo.scores import significance
from zoo.scores.calibration import scaling_on
from zoo.scores.metrics import Report
from zoo.scores.predictions import label_arrays, table_confusion
from zoo.tables import to_csv

CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "displayModeBar": True,
    "modeBarButtons": [["toImage"]],
    "toImageButtonOptions": {"format": "svg"},
}
SHEET_PICTURES = 12
MAX_PAIRS = 6  # ordered pairs of models whose disagreements are shown in pictures
THUMBNAIL_SIDE = 96  # longer side, pixels
OPERATING_CURVES: tuple[tuple[Literal["roc", "pr"], str], ...] = (("roc", "ROC"), ("pr", "Precision and recall"))
CLASS_SCORES = {"f1": "F1", "precision": "Precision", "recall": "Recall"}
HISTORY = ("val_accuracy", "val_loss", "train_accuracy", "train_loss", "learning_rate")
MORE_STYLE = """
.row { display: flex; flex-wrap: wrap; gap: 24px; } .row > div { flex: 1 1 420px; min-width: 0; overflow: hidden; }
.wide { overflow-x: auto; } .wide td, .wide th { white-space: nowrap; }
nav a { margin-right: 1em; } .csv { font-size: 13px; }
"""

STAGES: tuple[Stage, ...] = ("before", "after")  # of temperature scaling


@dataclass(frozen=True)
class _Model:
    """A model's predictions on a benchmark and their scores."""

    entry: Entry
    title: str
    table: pd.DataFrame
    report: Report
    sample: str


def render(entries: Sequence[Entry], titles: Mapping[str, str], folders: Sequence[Path] = ()) -> str:
    """Render the page. All text that comes from an entry is escaped.

    Args:
        entries: The models to compare.
        titles: Entry id → its title on the page.
        folders: Folders of data sets, named like the data sets; pictures of misclassified cells are shown from them.

    Returns:
        HTML that needs no other file.

    Raises:
        EntryError: Predictions are damaged.
    """
    table = leaderboard.table(entries)
    leaders = {name: leaderboard.best(entries, name) for name in leaderboard.COLUMNS}
    names = list(
        dict.fromkeys(name for e in entries for name, b in e.evaluation.benchmarks.items() if b.role == "test")
    )
    links = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in [*names, "training"])
    parts = [
        "<h1>Comparison of blood-cell models</h1>",
        f'<p class="muted">{len(entries)} models. Brackets and bars: 95 % intervals by bootstrap over source cells. '
        "Bold: significantly better than every other model (paired bootstrap, adjusted after Holm). Not a medical "
        f"device.</p><nav>{links}</nav>",
        "<h2>Leaderboard</h2>",
        _table(_bold(leaderboard.in_words(table, leaders)), "leaderboard", table),
        _figure(figures.home_against_others(table)) if not table.dropna(subset=["home", "away"]).empty else "",
    ]
    for name in names:
        parts += _benchmark(name, [e for e in entries if name in e.evaluation.benchmarks], titles, folders)
        if missing := [titles[e.id] for e in entries if name not in e.evaluation.benchmarks]:
            parts.append(f'<p class="muted">{NOT_SCORED.capitalize()} here: {escape(", ".join(missing))}.</p>')
    if unused := [name for name in published() if name not in names]:
        parts.append(f'<p class="muted">{NOT_SCORED.capitalize()} for any model: {escape(", ".join(unused))}.</p>')
    parts += _histories({titles[e.id]: read_history(e) for e in entries})
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Comparison of models</title>'
        f"<style>{STYLE}{MORE_STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _benchmark(name: str, entries: Sequence[Entry], titles: Mapping[str, str], folders: Sequence[Path]) -> list[str]:
    """Sections of one benchmark: scores, confusion, classes, curves, calibration, corruption, tests and pictures."""
    about = entries[0].evaluation.benchmarks[name]
    labels = joint_labels([entry.evaluation.benchmarks[name].labels for entry in entries])
    found = [_load(entry, titles[entry.id], name, labels) for entry in entries]
    apart = [one.title for one in found if set(one.table["label"]) != set(found[0].table["label"])]
    found = [one for one in found if one.title not in apart]
    tables = {one.title: one.table for one in found}
    parts = [
        f'<h2 id="{escape(name)}">{escape(name)}: {escape(about.title)}</h2>',
        f'<p class="muted">{about.n_images:,} images of {about.n_cells:,} independent cells. '
        f"{escape(' '.join(about.notes))} Sample: {escape(sample_names(entries, name))}.</p>",
    ]
    if apart:
        names = escape(", ".join(apart))
        parts.append(f'<p class="alarm">Left out, because scored on pictures of other classes: {names}.</p>')
    for one in found:
        scored = one.entry.evaluation.benchmarks[name]
        if scored.leaky:
            parts.append(
                f'<p class="alarm">Leaky split, {escape(one.title)}: {100 * scored.leak_share:.1f} % of test images '
                "show a cell that is in the training set too. Only for reproducing published results.</p>"
            )
    if len({rows_hash(table) for table in tables.values()}) > 1:
        parts.append('<p class="alarm">The models were not all scored on the same pictures: compare with care.</p>')
    parts += [
        _table(_scores(found), f"{name}-scores"),
        _figure(figures.bars({one.title: intervals(one.report) for one in found})),
        *_matrices(found, labels, name),
        *_classes(found, name),
        *_curves(found, labels),
        *_calibration(found, labels),
        *_corruption(found, labels, name),
        *_pairs(tables, labels, name),
    ]
    return parts + _pictures(found, labels, name, folders)


def _load(entry: Entry, title: str, name: str, labels: Sequence[str]) -> _Model:
    record, table = entry.evaluation.benchmarks[name], read_predictions(entry, name)
    report = score(table, record.labels, scaling_on(entry, name))
    return _Model(entry, title, with_labels(table, labels), report, record.sample)


def _matrices(found: Sequence[_Model], labels: Sequence[str], name: str) -> list[str]:
    counts = {one.title: table_confusion(one.table, labels) for one in found}
    parts = []
    for shown in confusion_figures.NORMALISATIONS:
        top = max(float(c.max()) for c in counts.values()) if shown == confusion_figures.COUNTS else 1.0
        drawn = [_titled(title, confusion_figures.confusion(c, labels, shown, top)) for title, c in counts.items()]
        parts += [f"<h3>Confusion, {shown}</h3>", f'<div class="row">{"".join(drawn)}</div>']
    for one, (title, c) in zip(found, counts.items(), strict=True):
        table = pd.DataFrame(c, index=pd.Index(labels), columns=pd.Index(labels)).rename_axis("true").reset_index()
        parts.append(_csv(table, f"{name}-confusion-{one.entry.id}", f"Counts of {title}, CSV"))
    first, *others = counts
    drawn = [
        _titled(
            f"{first} minus {other}",
            confusion_figures.difference(counts[first], counts[other], labels, confusion_figures.BY_TRUE),
        )
        for other in others
    ]
    if drawn:
        parts += [
            f"<h3>Difference, {confusion_figures.BY_TRUE}, in points</h3>",
            f'<div class="row">{"".join(drawn)}</div>',
        ]
    return parts


def _classes(found: Sequence[_Model], name: str) -> list[str]:
    by_title = {one.title: one.report.classes for one in found}
    drawn = [_titled(title, figures.per_class(by_title, key)) for key, title in CLASS_SCORES.items()]
    whole = pd.concat([table.assign(model=title) for title, table in by_title.items()])
    words = whole[["model", "label", "images", "cells"]].copy()
    for key in (*CLASS_SCORES, "auc", "average_precision"):
        words[{"auc": "AUC", "average_precision": "average precision"}.get(key, key)] = [
            f"{row[key]:.3f} ({row[f'{key}_low']:.3f} to {row[f'{key}_high']:.3f})" for row in whole.to_dict("records")
        ]
    return ["<h3>Class by class</h3>", *drawn, _table(words, f"{name}-classes", whole)]


def _curves(found: Sequence[_Model], labels: Sequence[str]) -> list[str]:
    tables = {one.title: one.table for one in found}
    parts = ["<h3>Each class against the rest</h3>"]
    for label in labels:
        pair = "".join(
            _titled(f"{title}, {label}", figures.operating_curves(tables, label, kind))
            for kind, title in OPERATING_CURVES
        )
        parts.append(f'<div class="row">{pair}</div>')
    return parts


def _calibration(found: Sequence[_Model], labels: Sequence[str]) -> list[str]:
    drawn = []
    for stage in STAGES:
        answers = {one.title: calibration_data(one.entry, one.table, labels, stage, one.sample) for one in found}
        drawn.append(_titled(f"Reliability, {stage} temperature scaling", figures.reliability(answers)))
    answers = {one.title: label_arrays(one.table, labels) for one in found}
    drawn.append(_titled("Accuracy of the most confident answers, by coverage", figures.risk_coverage(answers)))
    return ["<h3>Calibration</h3>", f'<div class="row">{"".join(drawn)}</div>']


def _corruption(found: Sequence[_Model], labels: Sequence[str], name: str) -> list[str]:
    by_title = {
        one.title: robustness.by_kind(robustness.errors(one.table, labels)) for one in found if is_corrupted(one.table)
    }
    if not by_title:
        return []
    whole = pd.concat([table.assign(model=title) for title, table in by_title.items()])
    return [
        "<h3>Balanced error by corruption and severity</h3>",
        _figure(figures.corruption(by_title)),
        _csv(whole, f"{name}-errors", "Errors by kind and severity, CSV"),
    ]


def _pairs(tables: Mapping[str, pd.DataFrame], labels: Sequence[str], name: str) -> list[str]:
    if len(tables) < 2:
        return []
    try:
        found = significance.compare_pairs(tables, labels)
    except ValueError as error:
        return [f"<p>{escape(str(error))}</p>"]
    words = found.round(4).rename(
        columns={"first_only": "only first", "second_only": "only second", "p_holm": "p (Holm)"}
    )
    caption = (
        "Difference in accuracy with its paired 95 % interval; source cells that only one model predicts correctly, "
        "with the exact McNemar test; p adjusted after Holm for the number of pairs."
    )
    return ["<h3>Pairs of models</h3>", f'<p class="muted">{caption}</p>', _table(words, f"{name}-pairs", found)]


def _pictures(found: Sequence[_Model], labels: Sequence[str], name: str, folders: Sequence[Path]) -> list[str]:
    """Each model's most confident errors, and cells that one predicts correctly and another wrongly.

    File names stand for pictures that are in none of the folders.
    """
    parts = ["<h3>Most confident errors of each model</h3>"]
    for one in found:
        rows = significance.misclassified(one.table, labels)
        parts.append(_sheet(f"{one.title}: {len(rows):,} wrong", rows, one, labels, name, folders))
    pairs = list(permutations(found, 2))
    if pairs:
        parts.append("<h3>One model right, the other wrong</h3>")
    for right, wrong in pairs[:MAX_PAIRS]:
        try:
            rows = significance.only_first_correct(right.table, wrong.table, labels)
        except ValueError:
            continue
        title = f"{right.title} right, {wrong.title} wrong: {len(rows):,} images"
        parts.append(_sheet(title, rows, wrong, labels, name, folders))
    if len(pairs) > MAX_PAIRS:
        parts.append('<p class="muted">The app\'s Compare page shows the other pairs.</p>')
    return parts


def _sheet(
    title: str, rows: pd.DataFrame, one: _Model, labels: Sequence[str], name: str, folders: Sequence[Path]
) -> str:
    shown = []
    # copies of one cell are usually misclassified together, so each cell is shown once
    for row in rows.drop_duplicates("cell").head(SHEET_PICTURES).to_dict("records"):
        predicted = max(labels, key=lambda label: row[label])
        caption = f"{row['label']} → {predicted} ({100 * row[predicted]:.0f} %)"
        data = _thumbnail(name, row["file"], one.entry.data_set, folders)
        image = f'<img alt="" src="data:image/jpeg;base64,{data}">' if data else ""
        shown.append(f"<figure>{image}<b>{escape(caption)}</b><br>{escape(row['file'])}</figure>")
    return f'<p>{escape(title)}, of {rows["cell"].nunique():,} cells</p><div class="sheet">{"".join(shown)}</div>'


def _thumbnail(benchmark: str, file: str, data: str, folders: Sequence[Path]) -> str:
    """A picture as a small JPEG in base64; empty if no folder holds it or it cannot be read."""
    source = find_source(benchmark, file, data, folders)
    try:
        image = source.image() if source else None
    except PictureError:
        return ""
    if image is None:
        return ""
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def _histories(histories: Mapping[str, pd.DataFrame]) -> list[str]:
    columns = [name for name in HISTORY if any(name in history for history in histories.values())]
    drawn = [_titled(name.replace("_", " "), training_curves(histories, name)) for name in columns]
    none = '<p class="muted">No training history is stored for these models.</p>'
    return ['<h2 id="training">Training curves</h2>', f'<div class="row">{"".join(drawn)}</div>' if drawn else none]


def _scores(found: Sequence[_Model]) -> pd.DataFrame:
    rows = []
    for key, metric in METRICS.items():
        if any(key in one.report.scores for one in found):
            row = {"score": metric.title}
            for one in found:
                interval = one.report.scores[key].interval if key in one.report.scores else None
                row[one.title] = (
                    f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})" if interval else "–"
                )
            rows.append(row)
    return pd.DataFrame(rows)


def _bold(table: pd.DataFrame) -> pd.DataFrame:
    return table.map(lambda v: f"\0{v[2:-2]}" if isinstance(v, str) and v.startswith("**") else v)


def _table(table: pd.DataFrame, stem: str, whole: pd.DataFrame | None = None) -> str:
    """An HTML table with a link to it as CSV, or to `whole` where that has more columns or digits."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in table.columns)
    rows = "".join("<tr>" + "".join(_cell(v) for v in row) + "</tr>" for row in table.itertuples(index=False))
    link = _csv(table if whole is None else whole, stem, "CSV")
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>{link}'


def _csv(table: pd.DataFrame, stem: str, title: str) -> str:
    data = quote(to_csv(table, lineterminator="\n"))
    return (
        f'<p class="csv"><a download="{escape(stem)}.csv" href="data:text/csv;charset=utf-8,{data}">'
        f"{escape(title)}</a></p>"
    )


def _cell(value: object) -> str:
    text = str(value)
    return f"<td><b>{escape(text[1:])}</b></td>" if text.startswith("\0") else f"<td>{escape(text)}</td>"


def _titled(title: str, figure: go.Figure) -> str:
    return f"<div><b>{escape(title)}</b>{_figure(figure)}</div>"


def _figure(figure: go.Figure) -> str:
    figure.update_layout(template="plotly_white")
    return plotly.io.to_html(figure, include_plotlyjs=False, full_html=False, config=CONFIG)
