"""Compare entries in one HTML page.

Writes one self-contained HTML page that compares entries on every benchmark they were scored on. It shows pictures of
the data sets whose folders HEMAZOO_DATASETS names.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.common import find_entry
from zoo.cli.common import ENTRY_HELP, OK, fail, print_message
from zoo.data.offered import offered_folders
from zoo.files import write_text
from zoo.lazy import lazy_module
from zoo.sources.catalogue import distinct_titles

if TYPE_CHECKING:
    from training.evaluation import html_report
else:
    html_report = lazy_module("training.evaluation.html_report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help=ENTRY_HELP)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page, for instance report.html")
    parser.add_argument("--no-thumbnails", action="store_true", help="leave pictures out, so that it can be passed on")


def run(options: argparse.Namespace) -> int:
    """Write the page."""
    entries = [find_entry(name, usable=False) for name in options.entries]
    unscored = [entry.id for entry in entries if not entry.evaluation.benchmarks]
    if unscored:
        return fail(f"{', '.join(unscored)}: no predictions to compare. Score it first with `evaluate`.")
    folders = [] if options.no_thumbnails else offered_folders()
    write_text(options.out, html_report.render(entries, distinct_titles(entries), folders))
    print_message(f"{options.out}: {len(entries)} models.")
    return OK
