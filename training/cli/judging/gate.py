"""Fit and measure the out-of-distribution gate of entries.

Fits each entry's gate on the cells it was trained on and measures it: false alarms on its own test cells, and its
answer to photographs, tissue, text, noise, empty smears and cells of other laboratories. Gate and measurements are
stored in the entry.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from training.cli.common import add_measurement, find_entry
from zoo.cli.common import OK, print_message
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    from training.evaluation import ood
else:
    ood = lazy_module("training.evaluation.ood")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_measurement(parser)
    parser.add_argument("--judge-only", action="store_true", help="only measure the gates that are there")


def run(options: argparse.Namespace) -> int:
    """Fit and measure the gates."""
    from zoo.serving.runtime import Runtime

    entries = [find_entry(name) for name in options.entries]
    measured = {}
    for entry in entries:
        if not options.judge_only:
            with Runtime(options.device) as runtime:
                ood.fit(entry, options.data, runtime, print_message)
        # the gate is loaded with its model: only a new runtime sees it
        with Runtime(options.device) as runtime:
            measured[entry.id] = ood.measure(entry, options.data, runtime, print_message)
    if options.json:
        print(json.dumps(measured))
    return OK
