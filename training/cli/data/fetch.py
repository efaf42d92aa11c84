"""Download a data set into a folder that every other command reads."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.cli.common import add_json
from training.prepare import fetch
from zoo.cli.common import OK, USAGE, fail, print_message
from zoo.data import read_dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = fetch.names_help()
    parser.add_argument(
        "name", help="bloodmnist[_64|_128|_224], kaggle:OWNER/NAME, hf:OWNER/NAME, or a short name (see below)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; must not exist")
    add_json(parser, "what was downloaded")


def run(options: argparse.Namespace) -> int:
    """Download the data set and print the next command."""
    out = options.out.resolve()
    if out.exists():
        return fail(f"{out} already exists. Choose another --out.", USAGE)
    try:
        source = fetch.parse(options.name)
    except fetch.FetchError as error:
        return fail(error, USAGE)
    fetched = fetch.fetch(source, out)
    place = options.out / fetched.place.relative_to(out)
    data = read_dataset(place)
    originals = f" --originals {options.out / fetched.originals.relative_to(out)}" if fetched.originals else ""
    print_message(f"{place}: {len(data):,} pictures, {len(data.labels)} classes.")
    print_message(f"Next: python -m training audit {place}{originals} --out reports/{place.name}")
    if options.json:
        print(json.dumps({"data": str(place), "images": len(data), "classes": list(data.labels)}))
    return OK
