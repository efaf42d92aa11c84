"""Colours and layout that all figures share."""

from __future__ import annotations

from typing import Any

COLOURS = ("#b5123e", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
ACCENT, MUTED, GREY = COLOURS[0], "#b9a3ab", "#8a8f98"


def colour(index: int) -> str:
    """Colour of a model, class or split by its index; the same in every figure."""
    return COLOURS[index % len(COLOURS)]


def colours(count: int) -> list[str]:
    """Colours of the first `count` models, classes or splits."""
    return [colour(index) for index in range(count)]


def legend_below(y: float = -0.2) -> dict[str, Any]:
    """A horizontal legend below the plot; `y` as a share of its height."""
    return {"orientation": "h", "y": y, "x": 0}


def legend_above() -> dict[str, Any]:
    """A horizontal legend above the plot."""
    return {"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0}
