"""A printable page about one picture: the picture, explanation maps, probabilities and notes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from zoo.figures.style import ACCENT
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    from matplotlib import figure as pyplot_figure
    from matplotlib.axes import Axes
else:
    pyplot_figure = lazy_module("matplotlib.figure")

PAGE_INCHES = (8.27, 5.8)  # A5, landscape
MIN_COLUMN_INCHES = 2.8
DPI = 160  # of a PNG
NOTE = "HemaZoo. Not a medical device: research and teaching only."


@dataclass(frozen=True)
class Panel:
    """A model's answer on the page.

    Attributes:
        image: The picture with the map drawn on it.
        lines: The title, then notes that stand below the probabilities.
        probabilities: Probability by class.
    """

    image: Image.Image
    lines: Sequence[str]
    probabilities: dict[str, float]


def sheet(picture: Image.Image, title: str, panels: Sequence[Panel], kind: Literal["pdf", "png"]) -> bytes:
    """Draw the page.

    Args:
        picture: The picture that was classified.
        title: Title of the page.
        panels: One for each model, from left to right.
        kind: File format.

    Returns:
        Content of the file.
    """
    columns = 1 + len(panels)
    figure = pyplot_figure.Figure(
        figsize=(max(PAGE_INCHES[0], MIN_COLUMN_INCHES * columns), PAGE_INCHES[1]), layout="constrained"
    )
    axes = figure.subplots(2, columns, height_ratios=[3, 2], squeeze=False)
    figure.suptitle(_plain(title), fontsize=11)
    images = [(picture, "picture"), *((panel.image, panel.lines[0]) for panel in panels)]
    for axis, (image, name) in zip(axes[0], images, strict=True):
        axis.imshow(np.asarray(image))
        axis.set_title(_plain(name), fontsize=8, wrap=True)
        axis.axis("off")
    axes[1, 0].axis("off")
    for axis, panel in zip(axes[1, 1:], panels, strict=True):
        _draw_probabilities(axis, panel)
    figure.text(0.01, 0.01, NOTE, fontsize=6, color="#666666")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI)
    return buffer.getvalue()


def _draw_probabilities(axis: Axes, panel: Panel) -> None:
    ranked = sorted(panel.probabilities.items(), key=lambda item: item[1])
    labels, values = [_plain(label) for label, _ in ranked], [value for _, value in ranked]
    bars = axis.barh(labels, values, color=ACCENT)
    axis.bar_label(bars, [f"{100 * value:.1f} %" for value in values], fontsize=7, padding=2)
    axis.set_xlim(0, 1.25)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xticks([])
    axis.set_xlabel("\n".join(_plain(line) for line in panel.lines[1:]), fontsize=7)


def _plain(text: str) -> str:
    """Text from outside, escaped so that matplotlib reads no formula in it."""
    return text.replace("$", r"\$")
