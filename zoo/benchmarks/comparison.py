"""Computations behind a comparison of models: which benchmarks they share, and the rows behind a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from zoo.benchmarks import CORRUPTED, leaderboard
from zoo.entry import Entry
from zoo.scores import significance
from zoo.scores.bootstrap import Interval
from zoo.scores.calibration import scaling_of
from zoo.scores.predictions import label_arrays
from zoo.scores.temperature import scale_probabilities

Stage = Literal["stored", "before", "after"]


def leaderboard_value(entry: Entry, column: str) -> float:
    """The entry's value in a column of the leaderboard; 0 if it was not scored."""
    cell = leaderboard.cells(entry).get(column)
    return cell.value if cell else 0.0


def tested(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Entries that were scored on at least one test set, by id."""
    return {
        entry.id: entry
        for entry in entries
        if any(benchmark.role == "test" for benchmark in entry.evaluation.benchmarks.values())
    }


def ranked_ids(entries: Sequence[Entry]) -> list[str]:
    """Ids, the best in its home laboratory first; those scored on a leaky split last."""
    table = leaderboard.table(entries)
    return table.sort_values(["leaky", "home"], ascending=[True, False])["id"].tolist()


def benchmarks_of(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Test benchmarks with the entries that were scored on them.

    Leaky benchmarks and those of corrupted pictures come last, before them those with the most models come first.
    """
    scored: dict[str, list[Entry]] = {}
    for entry in entries:
        for name, benchmark in entry.evaluation.benchmarks.items():
            if benchmark.role == "test":
                scored.setdefault(name, []).append(entry)

    def rank(item: tuple[str, list[Entry]]) -> tuple[bool, bool, int, int]:
        name, models = item
        at_home = sum(leaderboard.home_benchmark(entry) == name for entry in models)
        leaky = any(entry.evaluation.benchmarks[name].leaky for entry in models)
        return leaky, name.endswith(CORRUPTED), -len(models), -at_home

    return dict(sorted(scored.items(), key=rank))


def corrupted_benchmark(name: str) -> str:
    """Name of the benchmark with corrupted pictures of the benchmark `name`."""
    return name if name.endswith(CORRUPTED) else name + CORRUPTED


def confused_images(table: pd.DataFrame, labels: Sequence[str], true: str, predicted: str) -> pd.DataFrame:
    """Rows of a prediction table behind one cell of its confusion matrix, the most confident first."""
    answers = np.array(labels)[table[list(labels)].to_numpy().argmax(1)]
    rows = table[(table["label"] == true) & (answers == predicted)]
    return rows.sort_values(predicted, ascending=False)


def calibration_data(
    entry: Entry, table: pd.DataFrame, labels: Sequence[str], stage: Stage
) -> tuple[np.ndarray, np.ndarray]:
    """True classes (n,) and probabilities (n, classes): as stored, or before or after temperature scaling."""
    truth, probabilities = label_arrays(table, labels)
    scaling = scaling_of(entry)
    exponent = {"stored": 1.0, "before": scaling.before, "after": scaling.after}[stage] or 1.0
    return truth, scale_probabilities(probabilities, exponent)


def paired_difference(
    first: pd.DataFrame, second: pd.DataFrame, labels: Sequence[str]
) -> tuple[Interval, significance.McNemar] | None:
    """Difference in accuracy of two prediction tables, and McNemar's test; None if they share no picture."""
    try:
        return (
            significance.accuracy_difference(first, second, labels),
            significance.mcnemar(first, second, labels),
        )
    except ValueError:
        return None
