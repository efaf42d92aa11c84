"""Shared parts of the training commands: options, entries by name, printed summaries."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.common import DEVICE_HELP, ENTRY_HELP, OK, print_message
from zoo.data import DataSet, ReadOptions, layouts, read_dataset
from zoo.data.kinds import name_labels, read_label_table, rename
from zoo.entry import CONFIG, Entry, read_entry, readable_entries, summary
from zoo.files import only_writer
from zoo.sources import runs
from zoo.sources.catalogue import FolderSource, get_entry, list_entries

if TYPE_CHECKING:
    from training.publish.repository import Publication

if TYPE_CHECKING:
    from accelerate import Accelerator  # importing it takes seconds

RUNS = Path(os.environ.get(runs.VARIABLE) or runs.DEFAULT)  # where running states are kept; the app looks there
INTERRUPTED_RESUME = "Stopped. Finished work is kept; run the same command again to continue."
RECIPE_HELP = "a recipe's id, or a .toml file"
ROOT_HELP = "folder that holds the data sets' folders"


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", default="auto", metavar="D", help=DEVICE_HELP)


def add_work(parser: argparse.ArgumentParser, content: str) -> None:
    """Add `--work`, a folder for what an interrupted command goes on with; `--place` is its earlier name."""
    parser.add_argument("--work", type=Path, metavar="DIR", help=content)
    parser.add_argument("--place", type=Path, dest="work", help=argparse.SUPPRESS, default=argparse.SUPPRESS)


def add_json(parser: argparse.ArgumentParser, content: str) -> None:
    """Add `--json`, which prints `content` on stdout."""
    parser.add_argument("--json", action="store_true", help=f"print {content} as JSON on stdout")


def add_recipe_changes(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the recipe, as in --set optimizer.lr=0.01; can be repeated",
    )


@contextmanager
def lock_outputs(accelerator: Accelerator, *targets: Path) -> Iterator[None]:
    """Lock what the processes of a training write, so that no other run writes it. Raises LockedError."""
    with ExitStack() as locks:
        if accelerator.is_main_process:
            for target in targets:
                locks.enter_context(only_writer(target))
        yield


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


def add_reading(parser: argparse.ArgumentParser, labels: bool = True) -> None:
    """Add the options that say how a data set is read: `--layout`, `--group`, `--group-pattern` and `--labels`."""
    names = ", ".join(one.name for one in layouts())
    group = parser.add_argument_group("reading data sets", "Needed only where a data set does not say it itself.")
    group.add_argument(
        "--layout",
        default="",
        metavar="NAME",
        help=f"{names}, table:COLUMN (the column of labels), or the roles of folder levels, as in split/group/class",
    )
    group.add_argument(
        "--group",
        default="",
        metavar="NAME",
        help="what must stay on one side of a split: a column, or the first word of folders' names, such as patient",
    )
    group.add_argument(
        "--group-pattern",
        default="",
        metavar="REGEX",
        help="the same, as a regular expression on pictures' names; its first bracket names the group",
    )
    if labels:
        group.add_argument(
            "--labels",
            type=Path,
            metavar="FILE",
            help='TOML file of lines such as "my label" = "monocyte"; "" leaves a label out, "*" is all unknown',
        )


def reading_of(options: argparse.Namespace) -> ReadOptions:
    """The values of the options of `add_reading`. Raises DataError if the table of labels cannot be read."""
    labels = getattr(options, "labels", None)
    table = read_label_table(labels) if labels else {}
    return ReadOptions(options.layout, options.group, options.group_pattern, table)


def read_named(place: Path, reading: ReadOptions) -> DataSet:
    """Read a data set, name its labels by the kinds of cells, and print what was found and passed over."""
    data = read_dataset(place, reading)
    data = rename(data, name_labels(data.labels, reading.labels))
    for line in data.about():
        print_message(line)
    return data


def layouts_text() -> str:
    """The layouts a data set may have, as a sentence."""
    return f"DATA may be: {'; '.join(one.text for one in layouts())}."


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
