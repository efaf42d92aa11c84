"""Seconds to compute all scores with their intervals from 2,000 resamples.

PYTHONPATH=. python benchmarks/metrics.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from zoo.scores import bootstrap, metrics
from zoo.scores.predictions import Predictions
from zoo.scores.temperature import Scaling

LABELS = list("abcdefgh")


def table_of(images: int, cells: int, skill: float, seed: int = 0) -> pd.DataFrame:
    """A prediction table of a made-up model, more accurate with higher `skill`."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(LABELS), cells)[np.arange(images) % cells]
    logits = 2 * random.normal(0, 1, (images, len(LABELS))) + skill * np.eye(len(LABELS))[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    table = pd.DataFrame(probabilities.astype(np.float16).astype(np.float32), columns=LABELS)
    table.insert(0, "file", [f"{n}.png" for n in range(images)])
    table.insert(1, "cell", [f"cell-{n % cells}" for n in range(images)])
    table.insert(2, "label", [LABELS[n] for n in truth])
    return table


def main() -> None:
    """Print one row a case: all scores with and without drawing the resamples, and the confusion counts alone."""
    print(f"{bootstrap.N_RESAMPLES:,} resamples, {len(LABELS)} classes, seconds (best of three)")
    print(f"{'images':>7} {'cells':>7} {'accuracy':>9} {'first':>7} {'again':>7} {'counts only':>12}")
    for images, cells, skill in ((12_000, 12_000, 9), (12_000, 12_000, 3), (12_000, 350, 3), (2_500, 71, 3)):
        table = table_of(images, cells, skill)
        first, again, counts = [], [], []
        for _ in range(3):
            bootstrap.resample_weights.cache_clear()
            first.append(timed(lambda table=table: metrics.report(table, LABELS, Scaling(1.5, 1.0))))
            again.append(timed(lambda table=table: metrics.report(table, LABELS, Scaling(1.5, 1.0))))
            counts.append(timed(lambda table=table: Predictions(table, LABELS).confusions))
        accuracy = metrics.evaluate(table, LABELS)["accuracy"].value
        print(f"{images:7,} {cells:7,} {accuracy:9.1%} {min(first):7.2f} {min(again):7.2f} {min(counts):12.2f}")


def timed(do: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
