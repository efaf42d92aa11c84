"""Scores of models with each sample, and the flattening of reference shares, from stored predictions.

Both are about validation laboratories: benchmarks whose data set has the role `validation` and names a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.benchmarks import BenchmarkSet, get_benchmark, published
from zoo.benchmarks.asking import ask
from zoo.benchmarks.eligibility import refusal
from zoo.entry import Entry, EntryError, Metric, keeps_network, read_network_predictions
from zoo.scores.metrics import balanced_accuracy
from zoo.scores.predictions import table_confusion
from zoo.scores.sample.priors import largest_exponent
from zoo.scores.sample.samples import BLOOD, Sample, reference_shares, samples

STEPS = 12  # exponents that are tried from 0 to the largest allowed one
MAX_RATIO = 10.0  # evidence that one white kind may need over another


@dataclass(frozen=True)
class SampleScores:
    """Balanced accuracy of an entry on a benchmark by sample; `usual` is the sample that fits the laboratory."""

    entry: str
    benchmark: str
    title: str
    usual: str
    scores: dict[str, Metric]


@dataclass(frozen=True)
class FlatteningFit:
    """Mean balanced accuracy (0..1) by exponent of the reference shares, and the best exponent."""

    scores: dict[float, float]

    @property
    def best(self) -> float:
        """The exponent with the highest score."""
        return max(self.scores, key=self.scores.__getitem__)


def validation_benchmarks() -> list[BenchmarkSet]:
    """Benchmarks of laboratories that choices are made by, and whose sample is known."""
    named = [(name, one.data_set) for name, one in published().items()]
    return [get_benchmark(name) for name, data in named if data.role == "validation" and data.sample]


def widest_benchmarks(entry: Entry) -> list[BenchmarkSet]:
    """For each validation laboratory the benchmark with the most kinds that an entry can name."""
    best: dict[str, BenchmarkSet] = {}
    for benchmark in validation_benchmarks():
        laboratory = benchmark.data_set.laboratory
        known = best.get(laboratory)
        if refusal(entry, benchmark) is None and (known is None or len(benchmark.labels) > len(known.labels)):
            best[laboratory] = benchmark
    return list(best.values())


def scores_by_sample(entries: Sequence[Entry]) -> list[SampleScores]:
    """Stored scores of entries in the validation laboratories, one row an entry and benchmark."""
    rows = []
    for entry in entries:
        for benchmark in validation_benchmarks():
            record = entry.evaluation.benchmarks.get(benchmark.name)
            if record is None or not record.samples:
                continue
            scores = {name: found["balanced_accuracy"] for name, found in record.samples.items()}
            rows.append(SampleScores(entry.id, benchmark.name, benchmark.definition.title, record.sample, scores))
    return rows


def fit_flattening(entries: Sequence[Entry]) -> FlatteningFit:
    """Try exponents of the reference shares of peripheral blood on the validation laboratories.

    The score is the mean balanced accuracy over entries and laboratories; in each laboratory, over its white kinds
    whose labels are valid. The largest exponent tried lets no white kind need over MAX_RATIO times another's evidence.

    Args:
        entries: Entries that keep their network's predictions.

    Raises:
        EntryError: No entry keeps them.
    """
    shares = reference_shares(BLOOD)
    top = largest_exponent(np.array(list(shares.values())), MAX_RATIO)
    found = [(entry, one) for entry in entries for one in _white_benchmarks() if keeps_network(entry, one.name)]
    if not found:
        raise EntryError("None of these models keeps its network's predictions on a validation laboratory.")
    exponents = [round(top * step / STEPS, 4) for step in range(STEPS + 1)]
    exponents[-1] = float(np.floor(1e4 * top)) / 1e4  # rounded down: the ratio must hold
    scores = {}
    for exponent in exponents:
        blood = samples(exponent)[BLOOD]
        scores[exponent] = float(np.mean([_score(entry, benchmark, blood) for entry, benchmark in found]))
    return FlatteningFit(scores)


def _white_benchmarks() -> list[BenchmarkSet]:
    """For each validation laboratory, the benchmark with the most white kinds and no others."""
    white, best = set(reference_shares(BLOOD)), dict[str, BenchmarkSet]()
    for benchmark in validation_benchmarks():
        laboratory = benchmark.data_set.laboratory
        known = best.get(laboratory)
        if set(benchmark.labels) <= white and (known is None or len(benchmark.labels) > len(known.labels)):
            best[laboratory] = benchmark
    return list(best.values())


def _score(entry: Entry, benchmark: BenchmarkSet, sample: Sample) -> float:
    answers = ask(entry, benchmark, read_network_predictions(entry, benchmark.name), sample)
    return float(balanced_accuracy(table_confusion(answers.table, answers.labels)))
