"""Computations behind a comparison of models: which benchmarks they share, and the rows behind a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from zoo.benchmarks import CORRUPTED, leaderboard
from zoo.entry import Entry
from zoo.lazy import lazy_module
from zoo.scores import significance
from zoo.scores.bootstrap import Interval
from zoo.scores.calibration import sample_called, scaling_of
from zoo.scores.predictions import label_arrays

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

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
    """Ids, the best in other laboratories first, then by home score; those scored on a leaky split last."""
    if not entries:
        return []
    table = leaderboard.table(entries)
    return table.sort_values(["leaky", "away", "home"], ascending=[True, False, False])["id"].tolist()


def varied_ids(entries: Sequence[Entry], first: str | None = None, count: int = 3) -> list[str]:
    """Ids of models that differ: the best or `first`, the quickest other one, and the best published system.

    The others are scored on a test set that the first is scored on. Where such models are missing, the next best ones
    stand in.
    """
    known = {entry.id: entry for entry in entries}
    ranked = ranked_ids(entries)
    if first in known:
        ranked = [str(first), *(identity for identity in ranked if identity != first)]
    if not ranked:
        return []
    tests = _tests_of(known[ranked[0]])
    beside = [known[name] for name in ranked[1:] if tests & _tests_of(known[name])]
    others = [entry for entry in beside if not entry.system]
    quick = max(others, key=lambda entry: leaderboard.images_per_second(entry) or 0.0, default=None)
    published = next((entry for entry in beside if entry.system), None)
    chosen = [entry.id for entry in (quick, published) if entry is not None]
    return list(dict.fromkeys([ranked[0], *chosen, *ranked]))[:count]


def _tests_of(entry: Entry) -> set[str]:
    return {name for name, benchmark in entry.evaluation.benchmarks.items() if benchmark.role == "test"}


def benchmarks_of(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Test benchmarks with the entries that were scored on them.

    Leaky benchmarks and those of corrupted pictures come last, before them those with the most models come first.
    """
    scored: dict[str, list[Entry]] = {}
    for entry in entries:
        for name, benchmark in entry.evaluation.benchmarks.items():
            if benchmark.role == "test":
                scored.setdefault(name, []).append(entry)

    homes = [leaderboard.home_benchmark(entry) for entry in entries]

    def rank(item: tuple[str, list[Entry]]) -> tuple[bool, bool, int, int]:
        name, models = item
        at_home = homes.count(name)
        leaky = any(entry.evaluation.benchmarks[name].leaky for entry in models)
        return leaky, name.endswith(CORRUPTED), -len(models), -at_home

    return dict(sorted(scored.items(), key=rank))


def sample_names(entries: Sequence[Entry], benchmark: str) -> str:
    """Samples that the entries' records on a benchmark were asked with, for people; with models where they differ."""
    asked: dict[str, list[str]] = {}
    for entry in entries:
        asked.setdefault(entry.evaluation.benchmarks[benchmark].sample or "not stated", []).append(entry.title)
    if len(asked) == 1:
        return next(iter(asked))
    return "; ".join(f"{sample} for {' and '.join(titles)}" for sample, titles in asked.items())


def corrupted_benchmark(name: str) -> str:
    """Name of the benchmark with corrupted pictures of the benchmark `name`."""
    return name if name.endswith(CORRUPTED) else name + CORRUPTED


def joint_labels(label_sets: Sequence[Sequence[str]]) -> list[str]:
    """Labels of all models on one benchmark: as they are where all have the same, else sorted."""
    labels = list(dict.fromkeys(label for known in label_sets for label in known))
    return labels if all(set(known) == set(labels) for known in label_sets) else sorted(labels)


def with_labels(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """A prediction table with a column for each label; a label that the model does not know has probability 0."""
    missing = [label for label in labels if label not in table]
    return table.assign(**dict.fromkeys(missing, 0.0)) if missing else table


def confused_images(table: pd.DataFrame, labels: Sequence[str], true: str, predicted: str) -> pd.DataFrame:
    """Rows of a prediction table behind one cell of its confusion matrix, the most confident first."""
    answers = np.array(labels)[table[list(labels)].to_numpy().argmax(1)]
    rows = table[(table["label"] == true) & (answers == predicted)]
    return rows.sort_values(predicted, ascending=False)


def calibration_data(
    entry: Entry, table: pd.DataFrame, labels: Sequence[str], stage: Stage, sample: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """True classes (n,) and probabilities (n, classes): as stored, or before or after temperature scaling.

    `sample` is the name of the sample that they were asked with.
    """
    truth, probabilities = label_arrays(table, labels)
    scaling = scaling_of(entry, sample_called(entry, sample))
    exponent = {"stored": 1.0, "before": scaling.before, "after": scaling.after}[stage] or 1.0
    return truth, scaling.apply(probabilities, labels, exponent)


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
