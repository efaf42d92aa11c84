"""Answers of a model on a benchmark: its network's probabilities, asked with a sample.

On a benchmark whose data set names a sample, a model is asked among all kinds that it knows, as a user would ask. All
other benchmarks are of pictures that were chosen by kind: a model is asked among the benchmark's kinds only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.benchmarks.registry import COLUMNS, BenchmarkSet
from zoo.entry import Entry
from zoo.lazy import lazy_module
from zoo.scores import label_mapping, metrics
from zoo.scores.calibration import scaling_of
from zoo.scores.sample.samples import ALIKE, ONLY, Sample, samples

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

MAIN_METRICS = ("accuracy", "balanced_accuracy", "ece", "ece_calibrated")  # stored for every sample


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers on a benchmark.

    Attributes:
        table: Columns file, cell, label, and one column of probabilities a label.
        labels: The labels that could be answered; those of the benchmark are among them.
        sample: Name of the sample that was asked with.
    """

    table: pd.DataFrame
    labels: list[str]
    sample: str


def ask(entry: Entry, benchmark: BenchmarkSet, network: pd.DataFrame, sample: Sample | None) -> Answers:
    """Answers with a sample; None asks among the benchmark's kinds only.

    A kind that the benchmark's data set joins with a coarser one counts as that one; no other kinds are added up.
    """
    given, joins = network[entry.labels].to_numpy(np.float64), benchmark.data_set.joins
    if sample is None:
        labels = benchmark.labels
        same = set(labels) == set(entry.labels)
        name = ALIKE if same else ONLY
    else:
        given, name = entry.apply_sample(given, sample), sample.name
        labels = list(dict.fromkeys(joins.get(label, label) for label in entry.labels))
    mapped = label_mapping.map_probabilities(given, entry.labels, labels, joins)
    columns = [network[[column for column in COLUMNS if column in network]]]
    table = pd.concat([*columns, pd.DataFrame(mapped, index=network.index, columns=labels)], axis=1)
    return Answers(table, list(labels), name)


def main_scores(
    entry: Entry, benchmark: BenchmarkSet, network: pd.DataFrame, sample: Sample | None
) -> dict[str, dict[str, float]]:
    """Main scores with a sample, with intervals, in the form of evaluation.json; the arguments are those of `ask`."""
    answers, scaling = ask(entry, benchmark, network, sample), scaling_of(entry, sample)
    names = [name for name in MAIN_METRICS if name != "ece_calibrated" or scaling.after is not None]
    found = {name: metrics.estimate(answers.table, answers.labels, name, scaling).interval for name in names}
    return metrics.as_dict(found)


def scores_by_sample(
    entry: Entry, benchmark: BenchmarkSet, network: pd.DataFrame
) -> dict[str, dict[str, dict[str, float]]]:
    """Main scores with each sample of the project, by its name; none for a benchmark without a sample of its own."""
    if benchmark.sample is None:
        return {}
    return {
        name: main_scores(entry, benchmark, network, None if name == ONLY else sample)
        for name, sample in samples().items()
    }
