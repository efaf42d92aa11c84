"""Error of counted shares in laboratories that a model never saw, on drawn samples with known shares.

From the stored answers in each validation laboratory, samples of 100 and 500 cells are drawn with the shares of
`count_samples.toml`, and counted. The error that is the classifier's is what remains when chance is taken off.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from training.evaluation.samples import widest_benchmarks
from training.publish.card import renew_card
from zoo.benchmarks import BenchmarkSet
from zoo.benchmarks.asking import ask
from zoo.entry import Entry, EntryError, keeps_network, read_network_predictions
from zoo.entry.write import update_section
from zoo.scores.counts import chance_limits, limits
from zoo.scores.sample.samples import samples

FILE = Path(__file__).with_name("count_samples.toml")
SIZES = (100, 500)  # cells of a drawn sample
DRAWS = 40  # samples of each size and kind of sample
SEED = 0


@dataclass(frozen=True)
class DrawnSample:
    """Shares of kinds in percent, and the sample that a model is asked with."""

    name: str
    asked: str
    shares: dict[str, float]


@dataclass(frozen=True)
class CountError:
    """Result in one laboratory.

    Attributes:
        laboratory: Its name.
        absolute: Mean absolute error of a share (0..1).
        error: Standard deviation of a share's error that is the classifier's (0..1).
        chance_coverage: Share of true shares within the limits of chance.
        coverage: Share of true shares within limits whose error was measured in the other laboratories.
        width: Mean width of these.
    """

    laboratory: str
    absolute: float
    error: float
    chance_coverage: float
    coverage: float
    width: float


@cache
def drawn_samples() -> list[DrawnSample]:
    """The kinds of samples that are drawn."""
    content: dict[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return [DrawnSample(name, part["asked"], part["shares"]) for name, part in content.items()]


def draw_counts(entry: Entry, benchmark: BenchmarkSet, draws: int = DRAWS) -> pd.DataFrame:
    """Draw and count samples of a laboratory's cells.

    Args:
        entry: An entry that keeps its network's predictions on the benchmark.
        benchmark: The laboratory's cells.
        draws: Samples of each size and kind of sample.

    Returns:
        A row for each kind of each drawn sample: kind, cells, count and the true share (0..1).
    """
    network, random = read_network_predictions(entry, benchmark.name), np.random.default_rng(SEED)
    rows: list[pd.DataFrame] = []
    for drawn in drawn_samples():
        answers = ask(entry, benchmark, network, samples()[drawn.asked])
        labels = answers.labels
        predicted = answers.table[labels].to_numpy().argmax(1)
        kinds = [kind for kind in benchmark.labels if (answers.table["label"] == kind).any()]
        shares = np.array([drawn.shares.get(kind, 0.0) for kind in kinds], np.float64)
        # chances that the answer to a cell of a kind is each label
        confusion = np.stack(
            [np.bincount(predicted[answers.table["label"] == kind], minlength=len(labels)) for kind in kinds]
        )
        confusion = confusion / confusion.sum(1, keepdims=True)
        shares /= shares.sum()
        for size in SIZES:
            for cells in random.multinomial(size, shares, size=draws):
                answered = [random.multinomial(n, row) for n, row in zip(cells, confusion, strict=True)]
                counts = np.sum(answered, axis=0)
                counted = [counts[labels.index(kind)] for kind in kinds]
                rows.append(pd.DataFrame({"kind": kinds, "cells": size, "count": counted, "share": shares}))
    return pd.concat(rows, ignore_index=True)


def classifier_error(table: pd.DataFrame) -> float:
    """Standard deviation of a share's error that is the classifier's, from the rows of `draw_counts`."""
    counted = table["count"] / table["cells"]
    chance = counted * (1 - counted) / table["cells"]
    return float(np.sqrt(max(0.0, float(((counted - table["share"]) ** 2 - chance).mean()))))


def measure(entry: Entry) -> tuple[float, list[CountError]]:
    """Measure the error of counts in the validation laboratories, each with limits set by the others.

    Returns:
        The error over all laboratories, and the results of each.

    Raises:
        EntryError: The entry keeps no predictions on two validation laboratories.
    """
    found = [one for one in widest_benchmarks(entry) if keeps_network(entry, one.name)]
    if len(found) < 2:
        raise EntryError(f"{entry.id} keeps its network's predictions on fewer than two validation laboratories.")
    tables = {one.data_set.laboratory: draw_counts(entry, one) for one in found}
    results = []
    for name, table in tables.items():
        error = joint_error([other for other_name, other in tables.items() if other_name != name])
        counts, cells, share = (table[column].to_numpy() for column in ("count", "cells", "share"))
        low, high = limits(counts, cells, error)
        narrow = chance_limits(counts, cells)
        results.append(
            CountError(
                name,
                float(np.abs(counts / cells - share).mean()),
                classifier_error(table),
                float(((narrow[0] <= share) & (share <= narrow[1])).mean()),
                float(((low <= share) & (share <= high)).mean()),
                float((high - low).mean()),
            )
        )
    return joint_error(list(tables.values())), results


def joint_error(tables: Sequence[pd.DataFrame]) -> float:
    """Error over laboratories, each weighing alike."""
    return float(np.sqrt(np.mean([classifier_error(table) ** 2 for table in tables])))


def store(entry: Entry, error: float, results: Sequence[CountError]) -> None:
    """Write the error of counts into an entry."""
    measured = {
        one.laboratory: {"absolute": one.absolute, "coverage": one.coverage, "width": one.width} for one in results
    }
    update_section(entry.folder, "counts", {"error": error, "laboratories": measured})
    renew_card(entry.folder)
