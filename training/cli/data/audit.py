"""Check whether a data set can be trusted.

Looks for unreadable pictures, copies, source cells, outliers, shortcuts and label errors. Measurements are cached: if
interrupted, run the same command again to continue.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.audit.defaults import default_embedder
from training.cli.common import (
    INTERRUPTED_RESUME,
    add_json,
    add_originals,
    add_reading,
    layouts_text,
    read_named,
    reading_of,
)
from zoo.audits.reports import REPORT, Audit, headlines
from zoo.cache import cache_folder
from zoo.cli.common import FAILED, OK, print_message
from zoo.files import new_target
from zoo.sources.catalogue import get_entry

INTERRUPTED_MESSAGE = INTERRUPTED_RESUME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = layouts_text()
    parser.add_argument("data", type=Path, metavar="DATA", help="the data set's folder or file")
    add_originals(parser)
    add_reading(parser)
    parser.add_argument(
        "--embedder",
        default=default_embedder(),
        metavar="ENTRY",
        help="model of the zoo whose features compare pictures (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="REPORT", help="folder of the report to write")
    parser.add_argument("--no-thumbnails", action="store_true", help="leave pictures out, so that it can be passed on")
    parser.add_argument("--restart", action="store_true", help="replace a report in --out")
    add_json(parser, "the report")


def run(options: argparse.Namespace) -> int:
    """Write the report; the status is 1 if a picture could not be read."""
    audit = audit_data(options)
    if options.json:
        print(audit.report.model_dump_json())
    return FAILED if audit.report.unreadable else OK


def audit_data(options: argparse.Namespace) -> Audit:
    """Audit the data, write the report and print its findings."""
    out = options.out.resolve()
    with new_target(out, options.restart, (REPORT,), (options.data,)):
        return _audit_into(out, options)


def _audit_into(out: Path, options: argparse.Namespace) -> Audit:
    from training.audit.report import run as run_audit
    from training.audit.report import write

    embedder = get_entry(options.embedder)
    data = read_named(options.data, reading_of(options))
    print_message(f"{len(data):,} pictures, {len(data.labels)} classes.")
    findings = run_audit(data, embedder, cache_folder(), options.originals)
    audit = write(out, findings, embedder, thumbnails=not options.no_thumbnails)
    told = data.about()  # printed when it was read
    for alarming, line in headlines(audit.report):
        if line not in told:
            print_message(f"{'!' if alarming else '·'} {line}")
    for name, reason in audit.report.unreadable_reasons.items():
        print_message(f"cannot be read: {name}: {reason}")
    print_message(f"Report: {out / 'index.html'}")
    return audit
