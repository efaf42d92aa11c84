"""Measure the error of differential counts in validation laboratories, from stored predictions.

Samples with known shares are drawn from each laboratory's cells and counted; the limits of a share are then set by the
other laboratories. The error is kept in the entry and widens the intervals of its counts.

  python -m training counts champion8 champion8-small
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from training.cli.common import add_json, find_entry
from zoo.cli.common import ENTRY_HELP, OK, print_message
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    from training.evaluation import counts
else:
    counts = lazy_module("training.evaluation.counts")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help=ENTRY_HELP)
    add_json(parser, "the errors")


def run(options: argparse.Namespace) -> int:
    """Measure each entry and keep the result in it."""
    told = {}
    for entry in [find_entry(name, usable=False) for name in options.entries]:
        error, results = counts.measure(entry)
        counts.store(entry, error, results)
        told[entry.id] = {"error": error, "laboratories": [asdict(one) for one in results]}
        print_message(f"{entry.id}: the classifier's error of a share is {100 * error:.1f} points.")
        for one in results:
            print_message(
                f"  {one.laboratory}: mean error {100 * one.absolute:.1f} points; within the limits of chance "
                f"{100 * one.chance_coverage:.0f} % of true shares, within ours, set by the other laboratories, "
                f"{100 * one.coverage:.0f} % (mean width {100 * one.width:.0f} points)"
            )
    if options.json:
        print(json.dumps(told))
    return OK
