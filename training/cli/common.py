"""Shared parts of the training commands: options, entries by name, printed summaries."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from training.publish.repository import Publication
from zoo.cli.common import DEVICE_HELP, ENTRY_HELP, OK, print_message
from zoo.data import layouts
from zoo.entry import CONFIG, Entry, read_entry, readable_entries, summary
from zoo.sources import runs
from zoo.sources.catalogue import FolderSource, get_entry, list_entries

RUNS = Path(os.environ.get(runs.VARIABLE) or runs.DEFAULT)  # where running states are kept; the app looks there
INTERRUPTED_RESUME = "Stopped. Finished work is kept; run the same command again to continue."
RECIPE_HELP = "a recipe's id, or a .toml file"
ROOT_HELP = "folder that holds the data sets' folders"


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", default="auto", metavar="D", help=DEVICE_HELP)


def add_json(parser: argparse.ArgumentParser, content: str) -> None:
    """Add `--json`, which prints `content` on stdout."""
    parser.add_argument("--json", action="store_true", help=f"print {content} as JSON on stdout")


def add_recipe_changes(parser: argparse.ArgumentParser) -> None:
    """Add `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the recipe, as in --set optimizer.lr=0.01; can be repeated",
    )


def add_originals(parser: argparse.ArgumentParser) -> None:
    """Add `--originals`."""
    parser.add_argument(
        "--originals", type=Path, metavar="DIR", help="folder of the original frames of an augmented data set"
    )


def add_measurement(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that measures entries on the data sets."""
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help=ENTRY_HELP)
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help=ROOT_HELP)
    add_device(parser)
    add_json(parser, "the measurements")


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add `--dry-run`."""
    parser.add_argument("--dry-run", action="store_true", help="print what would change, and change nothing")


def layouts_text() -> str:
    """The layouts a data set may have, as a sentence."""
    return f"DATA may be: {'; '.join(layout.NAME for layout in layouts())}."


def find_entry(name: str, usable: bool = True) -> Entry:
    """An entry by its folder, or by its id in the zoo.

    Args:
        name: Folder of an entry, or an id.
        usable: Whether the entry must be able to classify; if not, an entry without weights will do.

    Raises:
        EntryError: There is no such entry, or it cannot be used.
    """
    folder = Path(name).resolve()
    is_folder = (folder / CONFIG).is_file()
    entries = list_entries([FolderSource(folder.parent, str(folder.parent))] if is_folder else None)
    readable = {entry.id: entry for entry in readable_entries(entries)}
    name = folder.name if is_folder else name
    return readable[name] if not usable and name in readable else get_entry(name, entries)


def print_summaries(entries: Sequence[Entry], as_json: bool) -> int:
    """Print the entries' summaries, read anew from disk, as JSON if asked to; returns OK."""
    if as_json:
        print(json.dumps([summary(read_entry(entry.folder)) for entry in entries]))
    return OK


def print_publication(publication: Publication, options: argparse.Namespace, action: str) -> int:
    """Print what a publication changed, or would change; `action` is a past participle. Returns OK."""
    for line in publication.change.lines() if options.dry_run else ():
        print_message(f"{publication.repo}: {line}")
    if options.json:
        print(json.dumps(asdict(publication)))
    outcome = f"would be {action}" if options.dry_run else f"{action} at {publication.url}, commit {publication.sha}"
    print_message(f"{publication.repo}: {outcome}")
    return OK
