r"""Decide which fields a detector may be trained on.

Copies of one field, and of pictures that are scored elsewhere, stay on one side: they are found by their pixels. The
table that is written names file, group and side; a detector's recipe names it as `data.sides`.

  python -m training split-fields ROOT/txl --layout yolo --known ROOT/bccd ROOT/pbc --out sides.csv \
      --scored zoo/benchmarks/sets/dataset2-test.csv zoo/benchmarks/sets/pbc-test.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from zoo.cli.common import OK, print_message
from zoo.files import atomic_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("data", type=Path, metavar="FIELDS", help="the data set's folder")
    parser.add_argument("--layout", default="", metavar="NAME", help="of the data set, where it does not say it itself")
    parser.add_argument(
        "--label", action="append", default=[], metavar="OWN=NAME", help="what a label means, as in 0=WBC"
    )
    parser.add_argument(
        "--known", nargs="+", type=Path, default=[], metavar="DIR", help="pictures that fields may show"
    )
    parser.add_argument(
        "--scored", nargs="+", type=Path, default=[], metavar="CSV", help="tables of pictures (file or cell) that test"
    )
    parser.add_argument("--leave-out", default="", metavar="START", help="leave out fields whose names start with this")
    parser.add_argument(
        "--test", type=float, default=0.15, metavar="SHARE", help="of the groups (default: %(default)s)"
    )
    parser.add_argument(
        "--test-of", default="", metavar="START", help="draw these only from names that start with this"
    )
    parser.add_argument("--validation", type=float, default=0.12, metavar="SHARE", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table, .csv")


def run(options: argparse.Namespace) -> int:
    """Write the table."""
    import numpy as np

    from training.detection.sides import drawn_side, grey, sides
    from zoo.data import read_dataset
    from zoo.data.kinds import name_labels, rename
    from zoo.data.options import ReadOptions
    from zoo.detection.fields import read_fields
    from zoo.imaging.decode import decode
    from zoo.serving.batch import find_files

    labels = dict(pair.split("=", 1) for pair in options.label if "=" in pair)
    data = read_dataset(options.data, options=ReadOptions(layout=options.layout, labels=labels))
    data = rename(data, name_labels({item.label for item in data.items if item.label}, labels))
    fields = [one for one in read_fields(data) if not options.leave_out or not _starts(one.file, options.leave_out)]
    scored = {row[key] for path in options.scored for row in _rows(path) for key in ("file", "cell") if key in row}
    files = [path for folder in options.known for path in find_files([folder])]
    names = [name for folder in options.known for name in _names(folder, find_files([folder]), scored)]
    shown = set(names)

    def side(name: str) -> str:
        if name in scored:
            return "test"
        # known pictures that test nothing are there to train and to choose by
        may_test = name not in shown and name.startswith(options.test_of)
        return drawn_side(name, options.test if may_test else 0, options.validation)

    vectors = [grey(one.image()) for one in tqdm(fields, "fields", file=sys.stderr)]
    known = [grey(decode(path)) for path in tqdm(files, "known", file=sys.stderr)]
    found = sides(
        [Path(one.file).name for one in fields],
        np.array(vectors),
        names,
        np.array(known),
        side,
    )
    with atomic_path(options.out) as temporary, temporary.open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["file", "group", "side"])
        writer.writerows(sorted((one.file, *pair) for one, pair in zip(fields, found, strict=True)))
    counts = {side: sum(pair[1] == side for pair in found) for side in ("train", "validation", "test")}
    print_message(f"{options.out}: " + ", ".join(f"{count} {side}" for side, count in counts.items()))
    return OK


def _starts(file: str, start: str) -> bool:
    return Path(file).name.startswith(start)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def _names(folder: Path, files: Sequence[Path], scored: set[str]) -> list[str]:
    """Names of a folder's pictures in the tables: their stems, or their paths in it."""
    by_stem = any(path.stem in scored for path in files)
    return [path.stem if by_stem else path.relative_to(folder).as_posix() for path in files]
