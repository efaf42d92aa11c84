"""How does one explained picture go into a report? A page with picture, maps, answers and what they are worth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

INCHES = (8.27, 5.8)  # A5, landscape
DOTS = 160  # an inch, of a PNG
NOTE = "HemaZoo. Not a medical device: research and education only."


@dataclass(frozen=True)
class Panel:
    """A model's answer on the sheet: its picture with the map, lines of text, and probabilities by label."""

    image: Image.Image
    lines: Sequence[str]
    probabilities: dict[str, float]


def sheet(picture: Image.Image, title: str, panels: Sequence[Panel], kind: Literal["pdf", "png"]) -> bytes:
    """A page as PDF or PNG: the picture, then a panel a model."""
    columns = 1 + len(panels)
    figure = Figure(figsize=(max(INCHES[0], 2.8 * columns), INCHES[1]), layout="constrained")
    axes = figure.subplots(2, columns, height_ratios=[3, 2], squeeze=False)
    figure.suptitle(_plain(title), fontsize=11)
    for place, (image, name) in enumerate([(picture, "picture"), *((p.image, p.lines[0]) for p in panels)]):
        axes[0, place].imshow(np.asarray(image))
        axes[0, place].set_title(_plain(name), fontsize=8, wrap=True)
        axes[0, place].axis("off")
    axes[1, 0].axis("off")
    for place, panel in enumerate(panels, 1):
        ranked = sorted(panel.probabilities.items(), key=lambda item: item[1])
        bars = axes[1, place].barh(
            [_plain(name) for name, _ in ranked], [share for _, share in ranked], color="#b5123e"
        )
        axes[1, place].bar_label(bars, [f"{100 * share:.1f} %" for _, share in ranked], fontsize=7, padding=2)
        axes[1, place].set_xlim(0, 1.25)
        axes[1, place].tick_params(labelsize=7)
        axes[1, place].spines[["top", "right"]].set_visible(False)
        axes[1, place].set_xticks([])
        axes[1, place].set_xlabel("\n".join(_plain(line) for line in panel.lines[1:]), fontsize=7)
    figure.text(0.01, 0.01, NOTE, fontsize=6, color="#666666")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DOTS)
    return buffer.getvalue()


def _plain(text: str) -> str:
    """Text from outside in which matplotlib finds no formula."""
    return text.replace("$", r"\$")
