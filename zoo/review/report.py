"""Reports of a review: CSV with a row for each cell, HTML and PDF with counts and corrected cells."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from zoo.lazy import lazy_module
from zoo.review.cells import Reviewed
from zoo.review.differential import Differential
from zoo.review.kinds import title_of
from zoo.version import __version__

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib import figure as pyplot_figure
    from matplotlib.backends import backend_pdf
else:
    pd = lazy_module("pandas")
    pyplot_figure = lazy_module("matplotlib.figure")
    backend_pdf = lazy_module("matplotlib.backends.backend_pdf")

NOTICE = "For research and teaching. Not a medical device: not for diagnosis."
MAX_PICTURES = 60  # corrected cells that a report shows
PER_PAGE, PER_ROW = 20, 5  # of a PDF
MANY_CELLS = 1000  # of a count whose shares are given to a tenth of a percent
A4_INCHES = (8.27, 11.69)
JPEG_QUALITY = 85
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#221a1e}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{padding:.2rem .8rem;border-bottom:1px solid #ddd;"
    "text-align:right}th:first-child,td:first-child{text-align:left}figure{display:inline-block;width:8.5rem;margin:.4rem;"
    "vertical-align:top;font-size:.8rem}img{width:100%;border-radius:4px}.notice{color:#8a0d2f}"
)


@dataclass(frozen=True)
class Report:
    """Content of a report.

    Attributes:
        slide, reader: As the reader typed them.
        facts: Name and value of model, revision, sample and settings.
        differential: Counts of all cells.
        cells: All cells with their decisions.
        files: File of each picture, by the hash of its content.
        pictures: Picture of each corrected cell that is shown.
        reference: Whether shares are compared with those of healthy adults.
    """

    slide: str
    reader: str
    facts: Sequence[tuple[str, str]]
    differential: Differential
    cells: Sequence[Reviewed]
    files: dict[str, str]
    pictures: Sequence[tuple[Reviewed, Image.Image]] = field(default_factory=tuple)
    reference: bool = True

    @property
    def title(self) -> str:
        """Heading."""
        return f"Blood-cell review: {self.slide}" if self.slide else "Blood-cell review"

    def heading(self) -> list[tuple[str, str]]:
        """Names and values that stand above the counts."""
        decided = sum(one.decision is not None for one in self.cells)
        corrected = sum(one.corrected for one in self.cells)
        return [
            ("Reader", self.reader or "not named"),
            *self.facts,
            ("Pictures", f"{len(self.files):,}"),
            ("Cells", f"{len(self.cells):,}, {decided:,} decided by the reader, {corrected:,} corrected"),
            ("Made with", f"HemaZoo {__version__}"),
        ]


def cells_table(cells: Sequence[Reviewed], files: dict[str, str]) -> pd.DataFrame:
    """A row for each cell: file, the kind that counts, the model's answer, who decided, place, and probabilities."""
    rows = []
    for one in cells:
        cell, decision = one.cell, one.decision
        left, top, right, bottom = cell.box
        rows.append(
            {
                "file": files.get(cell.picture, ""),
                "label": one.kind if one.corrected else cell.label or one.kind,
                "confidence": round(cell.confidence, 6),
                "cell": cell.number,
                "object": cell.object,
                "model_label": cell.label or cell.answer,
                "corrected": one.corrected,
                "reader": decision.reader if decision else "",
                "time": decision.time if decision else "",
                "note": decision.note if decision else "",
                "diameter_um": None if cell.diameter_um is None else round(cell.diameter_um, 2),
                "cut": cell.cut,
                "left": left,
                "top": top,
                "right": right,
                "bottom": bottom,
                **{label: round(value, 6) for label, value in cell.probabilities.items()},
            }
        )
    return pd.DataFrame(rows)


def html(report: Report) -> str:
    """A page that needs no other file."""
    parts = [f"<h1>{escape(report.title)}</h1>", f'<p class="notice">{NOTICE}</p>', "<table>"]
    parts += [f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in report.heading()]
    parts += ["</table><h2>Differential of white cells</h2>", _html_table(*_differential_rows(report))]
    if report.reference:
        source = escape(report.differential.reference_sources)
        parts.append(f"<p>Normal: {source}; low or high where the 95 % interval lies outside.</p>")
    parts += ["<h2>Whole fields</h2>", _html_table(("", "model", "corrected"), report.differential.statistics())]
    if report.pictures:
        parts.append("<h2>Corrected cells</h2>")
        for one, picture in report.pictures[:MAX_PICTURES]:
            caption = "<br>".join(map(escape, _caption(report, one)))
            alt = escape(f"Cell corrected to {title_of(one.kind or '')}", quote=True)
            parts.append(f'<figure><img alt="{alt}" src="{_jpeg_url(picture)}">{caption}</figure>')
        parts.append(_left_out(report))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(report.title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def pdf(report: Report) -> bytes:
    """A printable document, A4."""
    buffer = io.BytesIO()
    with backend_pdf.PdfPages(buffer, metadata={"Title": report.title, "Creator": f"HemaZoo {__version__}"}) as pages:
        pages.savefig(_numbers_page(report))
        shown = report.pictures[:MAX_PICTURES]
        for start in range(0, len(shown), PER_PAGE):
            pages.savefig(_pictures_page(report, shown[start : start + PER_PAGE]))
    return buffer.getvalue()


def _differential_rows(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the differential in words."""
    table = report.differential.table(report.reference)
    head: tuple[str, ...] = ("", "model", "share", "corrected", "share", "95 % interval")
    rows: list[tuple[str, ...]] = []
    digits = share_digits(report.differential.corrected.white_cells)
    for row in table.to_dict("records"):
        texts = (
            str(row["kind"]),
            f"{row['model']:,}",
            _percent(row["model_share"], digits),
            f"{row['corrected']:,}",
            _percent(row["corrected_share"], digits),
            f"{100 * row['low']:.{digits}f} to {100 * row['high']:.{digits}f} %" if math.isfinite(row["low"]) else "–",
        )
        rows.append((*texts, f"{row['normal']} {row['flag']}".strip()) if report.reference else texts)
    return (*head, "normal") if report.reference else head, rows


def share_digits(cells: int) -> int:
    """Digits behind the point that the interval of a share in percent supports."""
    return 1 if cells >= MANY_CELLS else 0


def _percent(value: float, digits: int) -> str:
    return f"{100 * value:.{digits}f} %" if math.isfinite(value) else "–"


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _caption(report: Report, one: Reviewed) -> Iterator[str]:
    yield f"{report.files.get(one.cell.picture, '')} · cell {one.cell.number}"
    model = one.cell.answer
    yield f"{title_of(model) if model else 'no answer'} → {title_of(one.kind or '')}"
    if one.decision and one.decision.note:
        yield one.decision.note


def _left_out(report: Report) -> str:
    more = sum(one.corrected for one in report.cells) - min(len(report.pictures), MAX_PICTURES)
    return f"<p>{more:,} more corrected cells are in the table of cells.</p>" if more > 0 else ""


def _jpeg_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _numbers_page(report: Report) -> pyplot_figure.Figure:
    figure = pyplot_figure.Figure(figsize=A4_INCHES)
    figure.text(0.08, 0.95, _plain(report.title), fontsize=16)
    figure.text(0.08, 0.93, NOTICE, fontsize=8, color="#8a0d2f")
    y = 0.90
    for name, value in report.heading():
        figure.text(0.08, y, name, fontsize=9, color="#555555")
        figure.text(0.25, y, _plain(value), fontsize=9)
        y -= 0.018
    head, rows = _differential_rows(report)
    y = _draw_table(figure, y - 0.03, "Differential of white cells", head, rows)
    if report.reference:
        figure.text(0.08, y, _plain(f"Normal: {report.differential.reference_sources}."), fontsize=7, color="#555555")
    _draw_table(figure, y - 0.04, "Whole fields", ("", "model", "corrected"), report.differential.statistics())
    return figure


def _draw_table(
    figure: pyplot_figure.Figure, y: float, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> float:
    """Draw a table from `y` down; returns where it ends."""
    figure.text(0.08, y, title, fontsize=12)
    columns = [0.08, *(0.42 + number * 0.5 / max(1, len(head) - 1) for number in range(1, len(head)))]
    for number, row in enumerate((head, *rows)):
        y -= 0.019
        for x, text in zip(columns, row, strict=True):
            weight = "bold" if number == 0 else "normal"
            figure.text(x, y, _plain(text), fontsize=8, weight=weight, ha="left" if x == columns[0] else "right")
    return y - 0.02


def _pictures_page(report: Report, shown: Sequence[tuple[Reviewed, Image.Image]]) -> pyplot_figure.Figure:
    figure = pyplot_figure.Figure(figsize=A4_INCHES)
    axes = figure.subplots(PER_PAGE // PER_ROW, PER_ROW)
    figure.suptitle("Corrected cells", fontsize=12)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (one, picture) in zip(axes.flat, shown, strict=False):
        axis.imshow(picture)
        axis.set_title(_plain("\n".join(_caption(report, one))), fontsize=6)
    return figure


def _plain(text: str) -> str:
    """Text from outside, escaped so that matplotlib reads no formula in it."""
    return text.replace("$", r"\$")
