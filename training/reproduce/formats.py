"""Numbers and tables of the generated documents, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.entry import Entry, Metric

TABLE = Path(__file__).parents[2] / "docs" / "results.md"  # of a checkout
MISSING = "–"  # a value that does not exist or was not measured


def metric_of(entry: Entry, benchmark: str, metric: str) -> Metric | None:
    """A stored metric of an entry on a benchmark; None where it was not measured."""
    scores = entry.evaluation.benchmarks.get(benchmark)
    return scores.metrics.get(metric) if scores else None


def percent(metric: Metric, interval: bool = True, unit: str = " %") -> str:
    """A metric as a percentage, with its 95 % interval in parentheses if it has one."""
    text = f"{100 * metric.value:.1f}{unit}"
    if interval and metric.low is not None and metric.high is not None:
        text += f" ({100 * metric.low:.1f} to {100 * metric.high:.1f})"
    return text


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a header; ends with a newline."""
    lines = ["| " + " | ".join(cells) + " |\n" for cells in (titles, *rows)]
    return "".join([lines[0], "|" + "---|" * len(titles) + "\n", *lines[1:]])
