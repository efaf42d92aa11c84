"""Print the rows of a published benchmark as CSV, made again by its rule from the data sets."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.cli.common import ROOT_HELP
from zoo import benchmarks
from zoo.cli.common import FAILED, OK, print_message


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    names = benchmarks.names()
    parser.add_argument("benchmark", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help=ROOT_HELP)
    parser.add_argument(
        "--thumbnails",
        action="store_true",
        help="instead write the small pictures of the published rows that come with the program, where the data set "
        "allows it",
    )


def run(options: argparse.Namespace) -> int:
    """Print the rows; the status is 1 if they differ from the published ones."""
    from training.reproduce.rows import renew_thumbnails, rows_of

    if options.thumbnails:
        count = renew_thumbnails(options.benchmark, options.data)
        print_message(f"{count:,} thumbnails written.")
        return OK
    rows = rows_of(options.benchmark, options.data)
    print(rows.to_csv(index=False, lineterminator="\n"), end="")
    as_published = rows.equals(benchmarks.get_benchmark(options.benchmark).rows)
    print_message(f"{len(rows):,} rows, {'as published' if as_published else 'not the published ones'}.")
    return OK if as_published else FAILED
