"""List the models of the zoo."""

from __future__ import annotations

import argparse
import json

from zoo.cli.common import OK, print_message
from zoo.entry import AnyEntry, BrokenEntry, summary
from zoo.sources.catalogue import list_entries


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--json", action="store_true", help="print a JSON list on stdout")


def run(options: argparse.Namespace) -> int:
    """Print one line per model, or a JSON list."""
    entries = list_entries()
    if options.json:
        print(json.dumps([summary(entry) for entry in entries], indent=2, ensure_ascii=False))
        return OK
    for entry in entries:
        print(_line(entry))
    if not entries:
        print_message("The zoo is empty. Set HEMAZOO_ZOO to folders that hold entries.")
    return OK


def _line(entry: AnyEntry) -> str:
    if isinstance(entry, BrokenEntry):
        return f"{entry.id:28} BROKEN  {entry.reason}"
    size = "no weights here"
    if entry.weights:
        count = entry.weights.parameters
        size = f"{count / 1e6:.2f} M parameters" if count else f"{entry.weights.bytes / 1e6:.1f} MB"
    tests = [b for b in entry.evaluation.benchmarks.values() if b.role == "test" and "accuracy" in b.metrics]
    scores = [f"{100 * b.metrics['accuracy'].value:.1f} % on {b.title}" for b in tests]
    return f"{entry.id:28} {entry.config.zoo.task:28} {size:22} {', '.join(scores)}"
