"""Split a data set without leaks and write a manifest.

Divides a data set into train, val and test. All copies of one source cell stay on one side, in every scheme but
random, which leaks and exists to reproduce published figures. If interrupted, run the same command again to continue.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.cli.common import INTERRUPTED_RESUME, add_json, add_originals, add_reading, layouts_text, reading_of
from training.errors import UsageError
from training.prepare.dataset import TrainingDataError
from training.prepare.splits import SCHEMES, SIDES, split_by, table_of
from zoo.cache import cache_folder
from zoo.cli.common import OK, print_message
from zoo.data import read_dataset

if TYPE_CHECKING:
    from training.prepare.manifest import Manifest

INTERRUPTED_MESSAGE = INTERRUPTED_RESUME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = layouts_text()
    parser.add_argument("data", type=Path, metavar="DATA", help="the data set's folder or file")
    add_originals(parser)
    add_reading(parser, labels=False)
    parser.add_argument("--scheme", choices=SCHEMES, required=True, help="choose grouped if in doubt")
    parser.add_argument(
        "--fractions",
        type=_fractions,
        default=(0.7, 0.15, 0.15),
        metavar="TRAIN,VAL,TEST",
        help="fractions that add up to 1 (default: 0.7,0.15,0.15); official and kfold use the second one only",
    )
    parser.add_argument("--folds", type=int, default=5, help="folds of kfold, one manifest each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help=".json file; kfold adds -1, -2, …")
    parser.add_argument("--restart", action="store_true", help="replace a manifest in --out")
    add_json(parser, "a summary")


def run(options: argparse.Namespace) -> int:
    """Write the manifest, or one per fold."""
    manifests = split_data(options)
    if options.json:
        records = [_record(path, manifest) for path, manifest in zip(_paths(options), manifests, strict=True)]
        print(json.dumps(records if options.scheme == "kfold" else records[0]))
    return OK


def split_data(options: argparse.Namespace) -> list[Manifest]:
    """Split the data, write the manifests and print what is in them.

    Raises:
        UsageError: A manifest exists, or there are too few folds.
        TrainingDataError: The data cannot be split.
    """
    from training.audit.report import look_for_copies
    from training.prepare.manifest import make_manifest, write_manifest
    from training.prepare.training_data import print_excluded, print_split

    is_kfold, paths = options.scheme == "kfold", _paths(options)
    existing = next((path for path in paths if path.exists()), None)
    if existing and not options.restart:
        raise UsageError(f"{existing} already exists. Choose another --out, or --restart to replace it.")
    if is_kfold and options.folds < 2:
        raise UsageError("kfold needs at least 2 folds.")
    everything = read_dataset(options.data, reading_of(options))
    for line in everything.about():
        print_message(line)
    data = everything.where(lambda item: item.label is not None)
    if len(data.labels) < 2:
        raise TrainingDataError(f"{options.data} has pictures of fewer than two classes; there is nothing to split.")
    measured, _, cells = look_for_copies(data, cache_folder(), options.originals)
    table = table_of(data, measured, cells)
    print_excluded(len(everything) - len(table.files), "pictures without a label or that cannot be read")
    manifests = []
    for number, path in enumerate(paths):
        split = split_by(options.scheme, table, options.fractions, options.seed, options.folds, number)
        fold = {"fold": number, "folds": options.folds} if is_kfold else {}
        manifest = make_manifest(data, table, split, options.scheme, options.seed, options.fractions, **fold)
        write_manifest(path, manifest)
        print_split(split)
        print_message(f"{path}: {manifest.hash}")
        manifests.append(manifest)
    return manifests


def _paths(options: argparse.Namespace) -> list[Path]:
    """Files of the manifests."""
    if options.scheme != "kfold":
        return [options.out]
    return [_numbered(options.out, number) for number in range(1, options.folds + 1)]


def _record(path: Path, manifest: Manifest) -> dict[str, Any]:
    sides = {name: [row for row in manifest.rows if row[3] == name] for name in SIDES}
    return {
        "manifest": str(path),
        "hash": manifest.hash,
        "images": {name: len(rows) for name, rows in sides.items()},
        "cells": {name: len({row[2] for row in rows}) for name, rows in sides.items()},
        "left_out": manifest.left_out,
        "leaky": manifest.leaky,
        "leak_share": manifest.leak_share,
    }


def _fractions(text: str) -> tuple[float, float, float]:
    example = "as in 0.7,0.15,0.15"
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers, {example}") from error
    if abs(train + val + test - 1) > 1e-6 or not all(0 < fraction < 1 for fraction in (train, val, test)):
        raise argparse.ArgumentTypeError(f"give three fractions above 0 that add up to 1, {example}")
    return train, val, test


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")
