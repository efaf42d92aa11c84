"""Write a model's features of each picture as a table.

One row per picture: the features of a classical head, or the vector before the last layer. The Data page shows a table
that lies in an audit's folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.cli.common import add_device, add_reading, layouts_text, read_named, reading_of
from zoo.cli.common import FAILED, OK, print_message
from zoo.serving.devices import resolve_device
from zoo.sources.catalogue import get_entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = layouts_text()
    parser.add_argument("entry", help="a model of the zoo")
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help="the data set's folder or file")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".csv or .parquet")
    add_reading(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Write the table; the status is 1 if a picture could not be read."""
    from training.evaluation.features import feature_table, write_features

    entry = get_entry(options.entry)
    data = read_named(options.data, reading_of(options))
    table, unreadable = feature_table(entry, data, resolve_device(options.device))
    write_features(options.out, table)
    for name, reason in unreadable.items():
        print_message(f"skipped {name}: {reason}")
    print_message(f"{options.out}: {len(table):,} pictures, {len(table.columns) - 2} features.")
    return FAILED if unreadable else OK
