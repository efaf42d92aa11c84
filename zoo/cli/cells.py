"""Find the cells of fields, and classify the white ones.

Prints, for each picture, its counts of objects and of kinds of white cells, and its scale. --json gives every cell: its
box, object, kind, diameter, and whether the picture's edge cuts it. --cut writes the white cells as pictures, in a
folder for each kind, as data sets hold them: correct what is wrong there, and go on with `python -m training audit`,
`adapt` or `train`.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli._model import add_detector_argument, add_model_arguments
from zoo.cli._records import print_record
from zoo.cli.common import FAILED, OK, fail
from zoo.files import atomic_path, printable
from zoo.imaging.decode.scale import MAX_UM, MIN_UM, plausible
from zoo.progress import progress_bar
from zoo.sources.catalogue import MODEL
from zoo.tables import guarded

if TYPE_CHECKING:
    from PIL import Image

    from zoo.detection.detector import Detector
    from zoo.entry import Entry
    from zoo.serving.fields import NamedCells
    from zoo.serving.runtime import Runtime

COLUMNS = (
    "file",
    "page",
    "cell",
    "object",
    "label",
    "confidence",
    "diameter_um",
    "cut",
    "left",
    "top",
    "right",
    "bottom",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="pictures, or folders to search for them")
    add_model_arguments(parser, default=MODEL)
    add_detector_argument(parser)
    parser.add_argument(
        "--um-per-px",
        type=_scale,
        metavar="X",
        help="micrometres a pixel (default: as the file says, else by the red cells)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per picture on stdout")
    form.add_argument("--csv", type=Path, metavar="FILE", help="also write a table with a row for each cell")
    parser.add_argument("--draw", type=Path, metavar="DIR", help="also write the pictures with boxes into this folder")
    parser.add_argument(
        "--cut", type=Path, metavar="DIR", help="also write each white cell, in this folder's folder of its kind"
    )


def run(options: argparse.Namespace) -> int:
    """Find the cells of the pictures; the status is 1 if any of them failed."""
    from zoo.cli._model import selected_detector, selected_model
    from zoo.detection.detector import Detector
    from zoo.serving.batch import find_files, find_pages
    from zoo.serving.runtime import Runtime

    entry = selected_model(options)
    detector = Detector(selected_detector(options), options.backend)
    files = list(find_pages(map(str, find_files(options.paths)), None))
    if not files:
        return fail("There is no picture in these folders.")
    failed = 0
    with Runtime(options.device, options.precision, backend=options.backend) as runtime, _table(options.csv) as table:
        for file in progress_bar(files, entry.id, unit="field"):
            record = _find(runtime, entry, detector, file, options)
            failed += "error" in record
            print_record(record, options.json, _line)
            if table is not None:
                table.writerows(_rows(record))
    return fail(f"{failed} of {len(files)} files could not be read.", FAILED) if failed else OK


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if plausible(value) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {MIN_UM} to {MAX_UM}")
    return value


def _find(runtime: Runtime, entry: Entry, detector: Detector, file: str, options: argparse.Namespace) -> dict[str, Any]:
    """Record of one picture, or its name and the error."""
    from zoo.figures.cells import draw_cells
    from zoo.imaging.decode import PictureError, read_picture, split_page
    from zoo.serving.fields import SCHEMA, name_cells, record_of

    name, page = split_page(file)
    try:
        picture = read_picture(Path(file))
    except PictureError as error:
        return {"schema": SCHEMA, "file": printable(name), "page": page, "error": str(error)}
    named = name_cells(runtime, entry, detector, picture, options.sample, options.um_per_px)
    if options.draw:
        drawn = _place(options.draw, Path(printable(file)))
        drawn.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(drawn) as temporary:
            draw_cells(picture.image, named).save(temporary, "PNG")
    if options.cut:
        _write_cuts(options.cut, Path(printable(file)), picture.image, named)
    return record_of(printable(file), named, picture.notes)


def _write_cuts(folder: Path, file: Path, image: Image.Image, named: NamedCells) -> None:
    """Write the squares around the white cells that no edge cuts; names tell the picture and the cell's number."""
    from zoo.data.export import folder_name
    from zoo.detection.cut import cut_cell

    name = "_".join(_parts(file.with_suffix("")))
    for number, (cell, answer) in enumerate(zip(named.found.cells, named.answers, strict=True), 1):
        if answer is None or cell.cut:
            continue
        place = folder / folder_name(answer.label) / f"{name}-{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(place) as temporary:
            cut_cell(image, cell, named.found).save(temporary, "PNG")


def _place(folder: Path, file: Path) -> Path:
    """File of a picture with boxes: below its own folders, so that equal names in two of them stay apart."""
    *folders, name = _parts(file)
    return folder.joinpath(*folders, f"{name}.png")


def _parts(file: Path) -> list[str]:
    return [part for part in file.parts if part not in (file.anchor, "..", ".")]


def _line(record: dict[str, Any]) -> str:
    """Counts and scale for people."""
    kinds = Counter(cell["label"] for cell in record["cells"] if cell["label"])
    named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    objects = [f"{count:,} {name}{'s' if count > 1 else ''}" for name, count in record["counts"].items() if count]
    counts = ", ".join(objects) or "no cells"
    scale = f"{record['scale_um_per_px']:.4f} µm/px" if record["scale_um_per_px"] else "no scale"
    return "\t".join(filter(None, (record["file"], counts, named, scale, " ".join(record["quality"]))))


def _rows(record: dict[str, Any]) -> Iterator[list[Any]]:
    """A row for each cell; one without a cell where there is none."""
    file = guarded(record["file"])
    page = record["page"] or ""
    if not record.get("cells"):
        yield [file, page, *("" for _ in COLUMNS[2:])]
        return
    for number, cell in enumerate(record["cells"], 1):
        label = guarded(cell["label"] or "")
        diameter = "" if cell["diameter_um"] is None else cell["diameter_um"]
        yield [file, page, number, cell["object"], label, cell["confidence"], diameter, cell["cut"], *cell["box"]]


@contextmanager
def _table(path: Path | None) -> Iterator[Any]:
    """A csv writer into `path`, which appears when the block has succeeded; None if no path is given."""
    if path is None:
        yield None
        return
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        yield writer
