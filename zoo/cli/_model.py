"""Options of the commands that run a model."""

from __future__ import annotations

import argparse

from zoo.cli.common import DEVICE_HELP
from zoo.entry import Entry
from zoo.serving.devices import PRECISIONS
from zoo.sources.catalogue import get_entry


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model and how it runs."""
    parser.add_argument("--model", required=True, metavar="ID", help="id of the model, see `python -m zoo list`")
    parser.add_argument(
        "--views",
        type=int,
        choices=(1, 2, 4, 8),
        help="average this many rotated and mirrored views of each picture (test-time augmentation): slower and "
        "slightly better (default: the model's own number)",
    )
    parser.add_argument("--device", default="auto", metavar="D", help=DEVICE_HELP)
    parser.add_argument("--precision", choices=PRECISIONS, help="(default: bf16 where it is faster)")


def selected_model(options: argparse.Namespace) -> Entry:
    """The entry that `--model` and `--views` select. Raises EntryError if it cannot be used."""
    entry = get_entry(options.model)
    return entry.with_views(options.views) if options.views else entry
