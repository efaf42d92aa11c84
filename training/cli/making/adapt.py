"""Adapt an entry to your own laboratory with a few of its cells.

Makes a new entry from an entry and a few pictures of another laboratory: a folder of pictures per class, or pictures
without labels. The gain is measured by cross-validation: each cell is classified by a model that was adapted without
it.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from training.cli.common import add_json, add_reading, find_entry, read_named, reading_of
from zoo.adaptation import MIN_CELLS
from zoo.cli._model import add_sample_argument
from zoo.cli.common import ENTRY_HELP, FAILED, OK, print_message
from zoo.data import DataSet
from zoo.data.kinds import kind_of
from zoo.entry import CONFIG, Entry
from zoo.files import new_target
from zoo.imaging.decode import PictureError
from zoo.lazy import lazy_module
from zoo.progress import progress_bar

if TYPE_CHECKING:
    from zoo import adaptation
    from zoo.adaptation import Adapted
else:
    adaptation = lazy_module("zoo.adaptation")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = f"At least {MIN_CELLS} pictures of each class are needed."
    parser.add_argument("entry", metavar="ENTRY", help=ENTRY_HELP)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DATA", help="class folders, pictures or a data set"
    )
    add_reading(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the new entry")
    parser.add_argument("--name", metavar="NAME", help="of the laboratory (default: the folder's)")
    add_sample_argument(parser)
    add_json(parser, "the result")


def run(options: argparse.Namespace) -> int:
    """Adapt the entry; the status is 1 if a picture could not be read."""
    adapted, unreadable = adapt_entry(options)
    if options.json:
        _print_json(adapted, options.out)
    return FAILED if unreadable else OK


def adapt_entry(options: argparse.Namespace) -> tuple[Adapted, int]:
    """Adapt the entry and print the gain; also returns how many pictures could not be read."""
    entry = find_entry(options.entry)
    laboratory = options.name or options.data.resolve().name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", laboratory).strip("-._") or "laboratory"
    cells = _read_cells(read_named(options.data, reading_of(options)), entry)
    locked = new_target(options.out.resolve(), True, (CONFIG,), (options.data, entry.folder))
    with locked, progress_bar(None, "adapting", total=100, unit="%") as bar:

        def show_progress(share: float, step: str) -> None:
            bar.set_postfix_str(step)
            bar.update(round(100 * share) - bar.n)

        adapted = adaptation.adapt(
            entry,
            cells.images,
            cells.labels,
            options.out,
            name,
            cells.files,
            show_progress,
            sample=options.sample,
            groups=cells.groups,
        )
    _print_result(adapted)
    print_message(f"To see it in the app: HEMAZOO_ZOO={options.out.resolve().parent} make demo")
    return adapted, cells.unreadable


@dataclass
class _Cells:
    """The readable pictures of a folder."""

    images: list[Image.Image] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    unreadable: int = 0


def _read_cells(data: DataSet, entry: Entry) -> _Cells:
    """Read the pictures; labels are spelled as the entry spells them."""
    known = {label: name for name in entry.labels for label in (name.lower(), kind_of(name)) if label}
    cells = _Cells()
    for item in data.items:
        try:
            cells.images.append(item.source.image())
        except PictureError as error:
            cells.unreadable += 1
            print_message(f"{item.file}: {error}")
            continue
        cells.files.append(item.file)
        cells.groups.append(item.group or item.cell)
        cells.labels.append(None if item.label is None else known.get(item.label.lower(), item.label))
    return cells


def _print_json(adapted: Adapted, out: Path) -> None:
    scores = {"before": adapted.before, "after": adapted.after, "gain": adapted.gain}
    record = {
        "entry": str(out),
        "sample": adapted.entry.default_sample.name,
        "changed": str(adapted.choice),
        **{key: score and asdict(score) for key, score in scores.items()},
        "pictures": adapted.pictures,
        "labelled": adapted.labelled,
        "agree": adapted.agreement,
        "groups": adapted.groups,
    }
    print(json.dumps(record))


def _print_result(adapted: Adapted) -> None:
    print_message(f"changed: {adapted.choice}")
    if not (adapted.before and adapted.after and adapted.gain):
        print_message(
            f"{100 * adapted.agreement:.0f} % of answers are unchanged. Without labels their accuracy cannot be "
            "measured."
        )
        return
    rows = (("before", adapted.before, "%"), ("after", adapted.after, "%"), ("gain", adapted.gain, "points"))
    for name, score, unit in rows:
        interval = f"{100 * score.low:.1f} to {100 * score.high:.1f}"
        print_message(
            f"{name}: {100 * score.value:.1f} {unit} ({interval}) balanced accuracy, cross-validated on "
            f"{adapted.labelled} cells"
        )
    print_message(f"In the cross-validation, {adapted.folds_told}.")
