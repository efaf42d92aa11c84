"""Publish entries on the Hugging Face Hub.

Puts each entry, with a card, into a model repository of the Hub in one commit, then downloads it again and compares its
answers. Publishing again updates what changed. Log in first with `hf auth login`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.common import add_dry_run, add_json, find_entry
from zoo.cli.common import ENTRY_HELP, FAILED, OK, USAGE, fail, print_message
from zoo.entry import CONFIG, Entry, EntryError, read_entry
from zoo.lazy import lazy_module
from zoo.sources.catalogue import list_detectors

if TYPE_CHECKING:
    from training.publish import hub
    from training.publish.repository import Publication
else:
    hub = lazy_module("training.publish.hub")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help=ENTRY_HELP)
    parser.add_argument(
        "--repo", required=True, metavar="NAMESPACE[/NAME]", help="the repository (default NAME: the entry's id)"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--tag", metavar="TAG", help="name of this version, such as v1")
    parser.add_argument("--pr", action="store_true", help="open a pull request instead of changing main")
    add_dry_run(parser)
    add_json(parser, "what was published")


def run(options: argparse.Namespace) -> int:
    """Publish the entries one after the other; the status is 1 if one of them failed."""
    entries = [_entry(name) for name in options.entries]
    namespace, _, name = options.repo.partition("/")
    if name and len(entries) > 1:
        return fail("Several entries need a namespace without a name: --repo NAMESPACE.", USAGE)
    publish_options = hub.PublishOptions(options.private, options.tag, options.pr, options.dry_run)
    records, failed = [], 0
    for entry in entries:
        try:
            publication = hub.publish(entry, f"{namespace}/{name or entry.id}", publish_options, print_message)
        except EntryError as error:
            failed += 1
            print_message(f"{entry.id}: {error}")
            continue
        records.append({**asdict(publication), "entry": entry.id})
        _print_outcome(publication, options.dry_run)
    if options.json:
        print(json.dumps(records))
    return FAILED if failed else OK


def _print_outcome(publication: Publication, dry_run: bool) -> None:
    for line in publication.change.lines() if dry_run else ():
        print_message(f"{publication.repo}: {line}")
    if dry_run:
        print_message(f"{publication.repo}: would be published")
    elif not publication.change.is_empty:
        print_message(f"{publication.repo}: published at {publication.url}, commit {publication.sha}")


def _entry(name: str) -> Entry:
    """A classifier or a detector, by its folder or id. Raises EntryError if there is none."""
    detectors = {entry.id: entry for entry in list_detectors()}
    if name in detectors:
        return detectors[name]
    entry = read_entry(Path(name).resolve()) if (Path(name) / CONFIG).is_file() else None
    return entry if isinstance(entry, Entry) and entry.is_detector else find_entry(name, usable=False)
