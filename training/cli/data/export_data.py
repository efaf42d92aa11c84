"""Write a data set as class folders, COCO or YOLO.

Reads any layout. Labels stay as they are, unless --labels renames them. Pictures are written as PNG, without the
metadata of the original files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.cli.common import add_reading, layouts_text, reading_of
from training.prepare.dataset import show_progress
from zoo.cli.common import FAILED, OK, print_message
from zoo.data import read_dataset
from zoo.data.export import EXPORTS, MARKS, export_data
from zoo.data.kinds import Names, name_labels, rename
from zoo.files import new_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = layouts_text()
    parser.add_argument("data", type=Path, metavar="DATA", help="the data set's folder or file")
    parser.add_argument("--as", dest="kind", choices=sorted(EXPORTS), required=True, help="what to write")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--restart", action="store_true", help="replace what is in --out")
    add_reading(parser)


def run(options: argparse.Namespace) -> int:
    """Write the folder; the status is 1 if a picture could not be read."""
    out = options.out.resolve()
    with new_target(out, options.restart, MARKS, (options.data,)):
        return _export_into(out, options)


def _export_into(out: Path, options: argparse.Namespace) -> int:
    """Read the data and write the folder `out`."""
    reading = reading_of(options)
    data = read_dataset(options.data, reading)
    names = name_labels(data.labels, reading.labels) if reading.labels else Names({}, {})
    data = rename(data, names)
    for line in data.about():
        print_message(line)
    exported = export_data(data, options.kind, out, show_progress)
    for file, reason in exported.problems.items():
        print_message(f"not exported: {file}: {reason}")
    print_message(f"{out}: {exported.cells:,} cells in {exported.pictures:,} pictures, as {options.kind}.")
    return FAILED if exported.problems else OK
