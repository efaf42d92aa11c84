"""Score entries on benchmarks.

Predictions and scores are kept in the entries.

  python -m training evaluate pbc8-efficientnet-lite0 --benchmark lisc bccd-crops --data ROOT
  python -m training evaluate my-zoo/my-model --own my-cells --name my-lab

An entry is never scored on pictures that it may have been trained on. If interrupted, run the same command again to
continue.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.common import (
    INTERRUPTED_RESUME,
    ROOT_HELP,
    add_device,
    add_json,
    add_reading,
    find_entry,
    print_summaries,
    read_named,
    reading_of,
)
from zoo import benchmarks
from zoo.benchmarks import BenchmarkSet
from zoo.benchmarks.asking import main_scores
from zoo.benchmarks.eligibility import is_scored, refusal
from zoo.benchmarks.leaderboard import home_benchmark
from zoo.cli._model import add_sample_argument
from zoo.cli.common import ENTRY_HELP, FAILED, OK, USAGE, fail, print_message
from zoo.entry import ID, Entry, EntryError, load_entry, read_network_predictions
from zoo.lazy import lazy_module
from zoo.scores.metrics import METRICS
from zoo.scores.sample.samples import Sample

if TYPE_CHECKING:
    from training.evaluation import benchmarks as evaluate
    from zoo.serving.runtime import Runtime
else:
    evaluate = lazy_module("training.evaluation.benchmarks")

INTERRUPTED_MESSAGE = INTERRUPTED_RESUME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = "Benchmarks: " + ", ".join(benchmarks.names()) + "."
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help=ENTRY_HELP)
    parser.add_argument(
        "--benchmark", nargs="+", action="extend", metavar="NAME", help="(default: all that fit the entries)"
    )
    parser.add_argument("--data", type=Path, metavar="ROOT", help=ROOT_HELP)
    parser.add_argument("--own", type=Path, metavar="DIR", help="use a labelled data set of your own as the benchmark")
    parser.add_argument("--name", default="own", help="name of that benchmark (default: %(default)s)")
    add_reading(parser)
    parser.add_argument("--again", action="store_true", help="also score benchmarks that the entry holds already")
    parser.add_argument("--speed", action="store_true", help="also measure how many images per second it classifies")
    parser.add_argument("--rescore", action="store_true", help="only compute the scores of stored predictions again")
    add_sample_argument(parser)
    add_device(parser)
    add_json(parser, "the entries' summaries")


def run(options: argparse.Namespace) -> int:
    """Score the entries; the status is 1 if one of them could not be scored."""
    from zoo.serving.runtime import Runtime

    entries = [find_entry(name, usable=not options.rescore) for name in options.entries]
    if options.rescore:
        return _rescore(entries, options.json)
    problem = _problem(options)
    if problem:
        return fail(problem, USAGE)
    failures: dict[str, str] = {}
    for entry in entries if options.sample else ():
        entry.prior_of(options.sample)  # raises before pictures are read
    chosen = _benchmarks(options, entries)
    with Runtime(options.device) as runtime:
        for benchmark, pictures in chosen:
            open_entries = _unscored(options, entries, benchmark)
            if open_entries:
                failures |= evaluate.evaluate(open_entries, benchmark, pictures, runtime, print_message)
        if options.speed:
            _measure_speed(entries, chosen, runtime)
    for reason in failures.values():
        print_message(reason)
    if options.sample and not options.own:
        _print_with_sample(options.sample, entries, [benchmark for benchmark, _ in chosen])
    return print_summaries(entries, options.json) or (FAILED if failures else OK)


def _print_with_sample(sample: Sample, entries: Sequence[Entry], chosen: Sequence[BenchmarkSet]) -> None:
    """Print the main scores with another sample than the one that is stored, from the stored predictions."""
    for entry in entries:
        for benchmark in chosen:
            with contextlib.suppress(EntryError):
                network = read_network_predictions(load_entry(entry.folder), benchmark.name)
                scores = main_scores(entry, benchmark, network, sample)
                texts = [f"{METRICS[name].title} {100 * score['value']:.1f} %" for name, score in scores.items()]
                print_message(f"{entry.id}: {benchmark.name}, asked with “{sample.name}”: {', '.join(texts)}")


def _rescore(entries: Sequence[Entry], as_json: bool) -> int:
    for entry in entries:
        renewed = evaluate.rescore(entry)
        note = "" if renewed else " Its card was not renewed: another version wrote its recipe."
        print_message(f"{entry.id}: {len(entry.evaluation.benchmarks)} benchmarks computed again.{note}")
    return print_summaries(entries, as_json)


def _problem(options: argparse.Namespace) -> str | None:
    """Sentence saying what is wrong with the options."""
    if options.own is None and options.data is None:
        return "Name the data sets' folder with --data, or a labelled folder of your own with --own."
    if options.own and not ID.match(options.name):
        return f"{options.name!r} is not a benchmark name: use letters, digits, dots, dashes and underscores."
    published = ", ".join(benchmarks.names())
    unknown = set(options.benchmark or []) - set(benchmarks.names())
    if unknown:
        return f"There is no benchmark {', '.join(sorted(unknown))}. Published: {published}."
    if options.name in benchmarks.names():
        return f"{options.name} is the name of a published benchmark. Published: {published}."
    return None


def _benchmarks(
    options: argparse.Namespace, entries: Sequence[Entry]
) -> list[tuple[BenchmarkSet, Sequence[evaluate.Picture]]]:
    """The benchmarks to score on, each with its pictures."""
    if options.own:
        read_named(options.own, reading_of(options))  # says what is read, and how
        return [evaluate.own_benchmark(options.own, options.name, entries, options.sample, reading_of(options))]
    chosen = [benchmarks.get_benchmark(name) for name in options.benchmark or benchmarks.names()]
    return [(benchmark, benchmark.pictures(options.data)) for benchmark in chosen]


def _unscored(options: argparse.Namespace, entries: Sequence[Entry], benchmark: BenchmarkSet) -> list[Entry]:
    """The entries that still have to be scored on a benchmark."""
    unscored = [entry for entry in entries if options.again or not is_scored(entry, benchmark)]
    if options.benchmark or options.own:
        return unscored
    # all that fit were asked for: an entry that does not fit is not a failure
    return [entry for entry in unscored if not refusal(entry, benchmark)]


def _measure_speed(
    entries: Sequence[Entry], chosen: Sequence[tuple[BenchmarkSet, Sequence[evaluate.Picture]]], runtime: Runtime
) -> None:
    """Measure each entry's speed on its home benchmark, or the first of the chosen ones."""
    for entry in entries:
        home = home_benchmark(entry)
        pictures = next((pictures for benchmark, pictures in chosen if benchmark.name == home), chosen[0][1])
        rate = evaluate.measure_speed(entry, runtime, pictures)
        print_message(f"{entry.id}: {rate:,.0f} images per second")
