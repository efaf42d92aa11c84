"""Score entries on benchmarks.

Predictions and scores are kept in the entries.

  python -m training evaluate pbc8-efficientnet-lite0 --benchmark lisc bccd-crops --data ROOT
  python -m training evaluate my-zoo/my-model --own my-cells --name my-lab

An entry is never scored on pictures that it may have been trained on. If interrupted, run the same command again to
continue.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from training.cli.common import INTERRUPTED_RESUME, ROOT_HELP, add_device, add_json, find_entry, print_summaries
from training.evaluation import benchmarks as evaluate
from zoo import benchmarks
from zoo.benchmarks import BenchmarkSet
from zoo.benchmarks.eligibility import is_scored, refusal
from zoo.benchmarks.leaderboard import home_benchmark
from zoo.cli.common import ENTRY_HELP, FAILED, OK, USAGE, fail, print_message
from zoo.entry import ID, Entry
from zoo.serving.runtime import Runtime

INTERRUPTED_MESSAGE = INTERRUPTED_RESUME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = "Benchmarks: " + ", ".join(benchmarks.names()) + "."
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help=ENTRY_HELP)
    parser.add_argument(
        "--benchmark", nargs="+", action="extend", metavar="NAME", help="(default: all that fit the entries)"
    )
    parser.add_argument("--data", type=Path, metavar="ROOT", help=ROOT_HELP)
    parser.add_argument("--own", type=Path, metavar="DIR", help="use a labelled folder of your own as the benchmark")
    parser.add_argument("--name", default="own", help="name of that benchmark (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="also score benchmarks that the entry holds already")
    parser.add_argument("--speed", action="store_true", help="also measure how many images per second it classifies")
    parser.add_argument("--rescore", action="store_true", help="only compute the scores of stored predictions again")
    add_device(parser)
    add_json(parser, "the entries' summaries")


def run(options: argparse.Namespace) -> int:
    """Score the entries; the status is 1 if one of them could not be scored."""
    entries = [find_entry(name, usable=not options.rescore) for name in options.entries]
    if options.rescore:
        return _rescore(entries, options.json)
    problem = _problem(options)
    if problem:
        return fail(problem, USAGE)
    failures: dict[str, str] = {}
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
    return print_summaries(entries, options.json) or (FAILED if failures else OK)


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
        return [evaluate.own_benchmark(options.own, options.name, entries)]
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
