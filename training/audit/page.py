"""An audit as one HTML page that needs no other file: plots, thumbnails and lists."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape

import pandas as pd
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from zoo.audits.reports import Report, headlines
from zoo.figures import audit as report_figures

GROUPS, EACH, SHEET, NAMES = 24, 8, 60, 40  # groups shown, pictures of each, pictures of a sheet, names of a list

STYLE = """
:root { color-scheme: light; } body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem;
max-width: 1100px; color: #222; } h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
.alarm { color: #b5123e; font-weight: 600; } .muted { color: #667; }
.sheet { display: flex; flex-wrap: wrap; gap: 8px; }
figure { margin: 0; width: 96px; font-size: 11px; overflow-wrap: anywhere; }
figure img { width: 96px; border-radius: 4px;
image-rendering: auto; background: #eee; } .groups { display: flex; flex-wrap: wrap; gap: 4px 24px; }
.group { border-left: 3px solid #ddd; padding-left: 8px; margin: 8px 0; }
table { border-collapse: collapse; } td, th { padding: 2px 12px 2px 0; text-align: left; } li { margin: 2px 0; }
"""


def render(report: Report, pictures: pd.DataFrame) -> str:
    """The page of an audit. Everything that comes from the data set is escaped."""
    rows = dict(zip(pictures["file"], range(len(pictures)), strict=True))
    thumbs = pictures["thumbnail"].tolist() if "thumbnail" in pictures else [b""] * len(pictures)
    labels = pictures["label"].tolist()

    def picture(file: str, caption: str = "") -> str:
        row = rows.get(file)
        data = base64.b64encode(thumbs[row]).decode() if row is not None and thumbs[row] else ""
        image = f'<img alt="" src="data:image/jpeg;base64,{data}">' if data else ""
        label = labels[row] if row is not None and isinstance(labels[row], str) else ""
        return f"<figure>{image}<b>{escape(caption or label)}</b><br>{escape(file)}</figure>"

    parts = [
        f"<h1>Audit of {escape(report.name)}</h1>",
        f'<p class="muted">{report.images:,} pictures, {len(report.classes)} classes, read as {escape(report.layout)}. '
        f"Content hash {report.data_hash[:16]}…</p>",
        "<ul>" + "".join(_headline(*line) for line in headlines(report)) + "</ul>",
        *_counts(report),
        *_groups("Identical pixels", report.duplicates.pixel, picture),
        *_groups("Same cell, different labels", report.duplicates.contradictory, picture),
        *_groups("On two sides of the split", report.duplicates.crossing, picture),
        *_groups("Near copies", report.duplicates.near, picture),
        *_cells(report),
        *_sheet("Outliers: unlike every other picture", report.outliers, picture),
        *_sheet("Drawn upon, or colours that no other picture has", report.marked, picture),
        *_sheet(
            "Likely label errors: given → likelier",
            report.label_errors,
            lambda file: picture(file, f"{labels[rows[file]]} → {report.likelier.get(file, '')}"),
        ),
        *_shortcuts(report),
        "<h2>Embeddings</h2>",
        f'<p class="muted">First principal components of what {escape(report.embedder)} sees.</p>',
        _plot(report_figures.scatter(pictures.drop(columns="thumbnail", errors="ignore"), "label")),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit of {escape(report.name)}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>{''.join(parts)}</body></html>"
    )


def _headline(alarming: bool, text: str) -> str:
    return f'<li class="{"alarm" if alarming else ""}">{escape(text)}</li>'


def _plot(figure: go.Figure) -> str:
    return plotly.io.to_html(figure, include_plotlyjs=False, full_html=False, config={"displaylogo": False})


def _counts(report: Report) -> list[str]:
    lists = (
        ("Unreadable", [f"{name}: {why}" for name, why in report.unreadable_reasons.items()]),
        ("Reported by the reader", [f"{name}: {why}" for name, why in report.problems.items()]),
        ("Without a label", report.unlabelled),
        ("Of one colour", report.blank),
        ("Of another size", report.wrong_size),
        ("Not stored as RGB", report.wrong_mode),
    )
    sizes = ", ".join(f"{size} ({count:,})" for size, count in report.sizes.items())
    kinds = ", ".join(f"{kind} ({count:,})" for kind, count in report.formats.items())
    return [
        "<h2>Counts</h2>",
        _plot(report_figures.class_counts(report)),
        f"<p>Sizes: {escape(sizes)}. Formats: {escape(kinds)}.</p>",
        *[_list(title, names) for title, names in lists if names],
    ]


def _list(title: str, names: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(name)}</li>" for name in names[:NAMES])
    more = f"<li>… and {len(names) - NAMES:,} more, in report.json</li>" if len(names) > NAMES else ""
    return f"<details><summary>{escape(title)}: {len(names):,}</summary><ul>{items}{more}</ul></details>"


def _groups(title: str, groups: list[list[str]], picture: Callable[[str], str]) -> list[str]:
    if not groups:
        return [f'<h2>{escape(title)}</h2><p class="muted">None.</p>']
    shown = [
        f'<div class="group"><span class="muted">{len(group)} pictures</span><div class="sheet">'
        f"{''.join(picture(file) for file in group[:EACH])}</div></div>"
        for group in groups[:GROUPS]
    ]
    more = (
        f'<p class="muted">{len(groups):,} groups in all; the rest is in report.json.</p>'
        if len(groups) > GROUPS
        else ""
    )
    return [f"<h2>{escape(title)}: {len(groups):,} groups</h2>", f'<div class="groups">{"".join(shown)}</div>', more]


def _sheet(title: str, files: list[str], picture: Callable[[str], str]) -> list[str]:
    if not files:
        return [f'<h2>{escape(title)}</h2><p class="muted">None.</p>']
    more = f'<p class="muted">{len(files):,} in all; the rest is in report.json.</p>' if len(files) > SHEET else ""
    body = "".join(picture(file) for file in files[:SHEET])
    return [f"<h2>{escape(title)}: {len(files):,}</h2>", f'<div class="sheet">{body}</div>', more]


def _cells(report: Report) -> list[str]:
    cells = report.source_cells
    parts = [
        "<h2>Source cells</h2>",
        f"<p>{cells.assigned:,} of {report.images:,} pictures belong to {cells.groups:,} known source cells, "
        f"{'matched with the original frames' if report.originals else 'found among the pictures themselves'}.</p>",
        _plot(report_figures.copies_per_cell(report)),
    ]
    if report.leak or report.random_leak:
        parts += ["<h3>Leak map</h3>", _plot(report_figures.leak_map(report))]
    if cells.related:
        parts.append(_list("Photographed more than once", [" = ".join(names) for names in cells.related]))
    return parts


def _shortcuts(report: Report) -> list[str]:
    if not report.shortcuts:
        return []
    return [
        "<h2>Shortcuts</h2>",
        "<p>What a small decision tree can tell of the label from properties that say nothing of the cell.</p>",
        _plot(report_figures.shortcuts(report)),
    ]
