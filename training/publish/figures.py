"""Figures of a model card: confusion matrix and training curves, as PNG."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

from zoo.benchmarks.leaderboard import home_benchmark
from zoo.entry import Entry, read_history

CONFUSION, CURVES = "confusion.png", "curves.png"
CAPTIONS = {CONFUSION: "Confusion matrix of the test set at home", CURVES: "Training and validation curves"}
DARK_CELL = 0.6  # fraction from which white text is easier to read


def card_figures(entry: Entry) -> dict[str, bytes]:
    """Draw the figures that an entry's stored scores allow.

    Returns:
        PNG bytes by file name; equal bytes for equal entries.
    """
    figures = {}
    home = entry.evaluation.benchmarks.get(home_benchmark(entry) or "")
    if home:
        figures[CONFUSION] = _draw_confusion(np.array(home.confusion), home.labels)
    history = read_history(entry)
    if {"epoch", "train_loss", "val_loss"} <= set(history) and len(history) > 1:
        figure = Figure(figsize=(7, 3), layout="constrained")
        for axes, kind in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            sides = [side for side in ("train", "val") if f"{side}_{kind}" in history]
            for side in sides:
                axes.plot(range(1, len(history) + 1), history[f"{side}_{kind}"], label=side)
            axes.set(xlabel="epoch", title=kind)
            if sides:
                axes.legend()
        figures[CURVES] = _png(figure)
    return figures


def _draw_confusion(counts: np.ndarray, labels: list[str]) -> bytes:
    fractions = counts / counts.sum(1, keepdims=True).clip(1)
    figure = Figure(figsize=(1.5 + 0.62 * len(labels),) * 2, layout="constrained")
    axes = figure.subplots()
    axes.imshow(fractions, cmap="Reds", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if fractions[row, column] > DARK_CELL else "black"
        axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=7, color=colour)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # without the drawing library's version: a newer library alone is not a change
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
