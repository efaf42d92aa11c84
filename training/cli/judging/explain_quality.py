"""Measure how faithful an entry's explanation maps are.

Measures maps on many pictures: whether they lie on the cell, whether the model loses its class without the marked
parts, and whether the maps depend on the model's weights. The measurements are stored in the entry.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from training.cli.common import add_measurement, find_entry
from zoo.attribution import METHODS
from zoo.cli.common import OK, print_message
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    from training.evaluation import explanations
else:
    explanations = lazy_module("training.evaluation.explanations")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_measurement(parser)
    parser.add_argument(
        "--method",
        choices=METHODS,
        metavar="M",
        action="append",
        help=f"one of {', '.join(METHODS)}; can be repeated (default: the first that the entry allows)",
    )


def run(options: argparse.Namespace) -> int:
    """Measure the maps of each entry and method."""
    from zoo.serving.runtime import Runtime, methods_for

    entries = [find_entry(name) for name in options.entries]
    with Runtime(options.device) as runtime:
        measured = {
            entry.id: {
                method: explanations.measure_maps(entry, options.data, runtime, method, print_message)
                for method in options.method or methods_for(entry)[:1]
            }
            for entry in entries
        }
    if options.json:
        print(json.dumps(measured))
    return OK
