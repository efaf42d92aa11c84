"""Train the published systems and write the tables of results.

Trains every recipe of the published systems under its authors' protocol and under a leak-free one, as far as the budget
allows, and writes the tables from the entries. Existing entries are not trained again; without --data only the tables
are written. If interrupted, run the same command again to continue.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.common import INTERRUPTED_RESUME, RUNS, add_device, add_json, print_summaries
from training.reproduce.formats import TABLE
from zoo.cli.common import FAILED, OK, USAGE, fail, print_message
from zoo.lazy import lazy_module
from zoo.serving.devices import resolve_device
from zoo.sources.catalogue import BUILTIN, FolderSource, list_entries

if TYPE_CHECKING:
    from training.reproduce import champions, documents, results
else:
    champions = lazy_module("training.reproduce.champions")
    documents = lazy_module("training.reproduce.documents")
    results = lazy_module("training.reproduce.results")

INTERRUPTED_MESSAGE = INTERRUPTED_RESUME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--system", choices=tuple("ABCDE"), help="one system only")
    parser.add_argument(
        "--champions",
        action="store_true",
        help="the models for cells of any laboratory instead: trained, and scored on every benchmark",
    )
    parser.add_argument("--only", action="append", metavar="RECIPE", help="one recipe only; can be repeated")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="folder that holds the data sets")
    parser.add_argument("--zoo", type=Path, default=BUILTIN, metavar="DIR", help="folder of the entries")
    parser.add_argument("--table", type=Path, default=TABLE, metavar="FILE", help="(default: docs/results.md)")
    parser.add_argument(
        "--budget", type=float, default=float("inf"), metavar="MINUTES", help="start no training after this time"
    )
    add_device(parser)
    add_json(parser, "the rows")


def run(options: argparse.Namespace) -> int:
    """Train what is missing and write the tables; the status is 1 if a recipe failed."""
    from training.fit.processor.devices import make_accelerator

    if options.table == TABLE and not TABLE.parent.is_dir():
        return fail("reproduce writes the docs of a checkout. Elsewhere, give --table FILE and --zoo DIR.", USAGE)
    if options.champions:
        return _champions(options)
    names = results.training_order(options.system, options.only)
    failed = []
    if options.data is not None:
        accelerator = make_accelerator(resolve_device(options.device))
        folders = results.Folders(options.data, options.zoo, RUNS)
        failed = results.reproduce(names, folders, options.budget * 60, accelerator, print_message)
    rows = results.result_rows(names, list_entries([FolderSource(options.zoo, str(options.zoo))]))
    if options.system is None and options.only is None:
        results.write_table(options.table, rows)
        print_message(f"Table: {options.table}")
        _renew_documents(options)
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    return FAILED if failed else OK


def _champions(options: argparse.Namespace) -> int:
    from training.fit.processor.devices import make_accelerator

    failed = []
    if options.data is not None:
        accelerator = make_accelerator(resolve_device(options.device))
        folders = results.Folders(options.data, options.zoo, RUNS)
        failed = champions.reproduce(folders, options.budget * 60, accelerator, print_message)
    for reason in failed:
        print_message(reason)
    champions.write_page(champions.TABLE if options.table == TABLE else options.table, options.zoo)
    _renew_documents(options)
    return print_summaries(champions.champions(options.zoo), options.json) or (FAILED if failed else OK)


def _renew_documents(options: argparse.Namespace) -> None:
    """Renew the tables of README.md and docs/models.md, and the cards, which describe the built-in zoo only."""
    from training.publish.card import renew_cards

    if options.table == TABLE and options.zoo == BUILTIN:
        documents.renew()
        renew_cards(options.zoo)
