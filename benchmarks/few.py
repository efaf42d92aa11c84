"""Gain from adapting a model to a few labelled cells of a new laboratory.

    PYTHONPATH=. python benchmarks/few.py champion8-fine --data ROOT [--benchmark lisc] [--each 5] [--draws 5]

Each draw adapts the model to some cells of a benchmark and scores it on the others, asked with the laboratory's sample.
Prints, for each draw, balanced accuracy on the other cells before and after, and the balanced accuracy that the
adaptation expected from cross-validating the drawn cells; then the mean over draws and their range.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.adaptation import adapt
from zoo.benchmarks import BenchmarkSet, get_benchmark
from zoo.benchmarks.asking import ask
from zoo.entry import Entry
from zoo.scores import metrics
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import get_entry


def main() -> None:
    """Print the result of every draw."""
    options = _parser().parse_args()
    entry, benchmark = get_entry(options.entry), get_benchmark(options.benchmark)
    pictures = [(row, cell, label, source.image()) for row, cell, label, source in benchmark.pictures(options.data)]
    own, before, after = _answers(entry, pictures), [], []
    for draw in range(options.draws):
        drawn = _draw([label for _, _, label, _ in pictures], options.each, draw)
        kept = [n for n in range(len(pictures)) if n not in drawn]
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            images, labels = [pictures[n][3] for n in drawn], [pictures[n][2] for n in drawn]
            target = Path(folder) / "adapted"
            made = adapt(entry, images, labels, target, options.benchmark, sample=benchmark.sample)
            seconds = time.perf_counter() - start
            new = _answers(made.entry, [pictures[n] for n in kept])
        before.append(_score(entry, benchmark, own.iloc[kept]))
        after.append(_score(made.entry, benchmark, new))
        assert made.after is not None
        expected = f"{100 * made.after.value:.1f} % ({100 * made.after.low:.1f} to {100 * made.after.high:.1f})"
        print(
            f"draw {draw + 1}: {len(drawn)} cells, {100 * before[-1]:.1f} -> {100 * after[-1]:.1f} % of {len(kept)} "
            f"others, expected {expected}, {seconds:.0f} s, changed {made.choice}",
            flush=True,
        )
    for name, found in (("before", before), ("after", after)):
        print(f"{name}: {100 * np.mean(found):.1f} % balanced (draws {100 * min(found):.1f} to {100 * max(found):.1f})")


def _draw(labels: list[str], each: int, seed: int) -> list[int]:
    """Rows of `each` cells of every label, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return sorted(int(n) for name in sorted(set(labels)) for n in [n for n in order if labels[n] == name][:each])


def _answers(entry: Entry, pictures: list) -> pd.DataFrame:
    """The network's probabilities; by torch, because an adapted network is not worth converting."""
    with Runtime(backend="torch") as runtime:
        tickets = [runtime.submit(entry, image) for _, _, _, image in pictures]
        table = pd.DataFrame([ticket.result().probabilities for ticket in tickets], columns=entry.labels)
    return table.assign(file=[p[0] for p in pictures], cell=[p[1] for p in pictures], label=[p[2] for p in pictures])


def _score(entry: Entry, benchmark: BenchmarkSet, network: pd.DataFrame) -> float:
    """Balanced accuracy, asked with the benchmark's sample."""
    answers = ask(entry, benchmark, network, benchmark.sample or entry.default_sample)
    return metrics.estimate(answers.table, answers.labels, "balanced_accuracy").value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", help="an entry's id in the zoo")
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder that holds the data sets")
    parser.add_argument("--benchmark", default="lisc", help="(default: lisc)")
    parser.add_argument("--each", type=int, default=5, help="labelled cells of each kind (default: 5)")
    parser.add_argument("--draws", type=int, default=5, help="(default: 5)")
    return parser


if __name__ == "__main__":
    main()
