"""Cells of whole fields: found by a detector, and white ones named by a classifier."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from zoo.detection.cut import cut_cell
from zoo.detection.objects import OBJECTS, WHITE
from zoo.entry import Entry
from zoo.imaging.decode import Picture, split_page
from zoo.scores.sample.samples import Sample
from zoo.serving.requests import BATCH_SIZE, Client, Ticket, wait_for
from zoo.serving.results import Prediction

if TYPE_CHECKING:
    from zoo.detection.detector import Cells, Detector, FoundCell
    from zoo.serving.runtime import Runtime

SCHEMA = 1  # of the records of `zoo cells`
CLOSE_UP = 3.6  # shorter side of a picture of one white cell, over the cell's longer side
CLOSE_UP_OTHER = 9.0  # the same where the cell is another one: platelets are smaller
AHEAD = 2 * BATCH_SIZE  # cells of a field that wait for their answers
WATCH_SECONDS = 0.2  # between two calls of `watch`


@dataclass(frozen=True, eq=False)
class Asked:
    """Question to a classifier about one picture.

    Attributes:
        parts: The pictures to classify: one a cell, or the whole one.
        cells: The cell that each shows; None where the whole picture is meant and no cell is known.
        nothing: Sentence where there is nothing to classify.
    """

    parts: tuple[Image.Image, ...]
    cells: tuple[FoundCell | None, ...]
    nothing: str | None = None


def ask_about(picture: Picture, detector: Detector | None) -> Asked:
    """Decide what to classify in a picture.

    A close-up, whose middle shows one cell that fills it as cells do in data sets, is classified as a whole, and so is
    a picture in which nothing is found: the classifier's own check says whether it shows a cell.
    """
    image = picture.image
    if detector is None:
        return Asked((image,), (None,))
    found = detector.find(image, file_um_per_px=picture.um_per_px)
    if not found.cells:
        return Asked((image,), (None,))
    if cell := close_up(found):
        return Asked((image,), (cell,))
    white = tuple(found.of(WHITE))
    if not white:
        counts = ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in found.counts.items() if n)
        return Asked((), (), f"No white cell found, only {counts}.")
    return Asked(tuple(cut_cell(image, cell, found) for cell in white), white)


def close_up(found: Cells) -> FoundCell | None:
    """The cell that a picture of one cell shows; None for a field.

    It lies over the picture's middle, and is large for it. White cells come first; others of them may be there only
    where the picture's edge cuts them.
    """
    width, height = found.size
    for name, most in ((WHITE, CLOSE_UP), *((name, CLOSE_UP_OTHER) for name in OBJECTS if name != WHITE)):
        cells = found.of(name)
        for cell in cells:
            left, top, right, bottom = cell.box
            over_middle = left < width / 2 < right and top < height / 2 < bottom
            if over_middle and min(width, height) <= most * max(right - left, bottom - top):
                alone = all(other is cell or other.cut for other in cells)
                return cell if alone or name != WHITE else None
        if cells and name == WHITE:
            return None
    return None


@dataclass(frozen=True)
class NamedCells:
    """Cells of a picture, and the classifier's answer for each, None where it is no white cell."""

    found: Cells
    answers: tuple[Prediction | None, ...]
    sample: str


def name_cells(
    runtime: Runtime,
    entry: Entry,
    detector: Detector,
    picture: Picture,
    sample: Sample | None = None,
    um_per_px: float | None = None,
) -> NamedCells:
    """Find the cells of a picture and classify the white ones together.

    Args:
        runtime: Runs the classifier.
        entry: The classifier.
        detector: Finds the cells.
        picture: The picture.
        sample: What it is of; None: the classifier's usual sample.
        um_per_px: Micrometres a pixel, where a person knows them; they go before what the file states.

    Raises:
        EntryError: The classifier cannot be used.
        BusyError: The queue stayed full.
    """
    found = detector.find(picture.image, um_per_px, picture.um_per_px)
    return name_found(runtime, entry, found, picture.image, sample)


def name_found(
    runtime: Runtime,
    entry: Entry,
    found: Cells,
    image: Image.Image,
    sample: Sample | None = None,
    client: Client | None = None,
    watch: Callable[[float], None] | None = None,
) -> NamedCells:
    """Classify the white cells that were found in an RGB picture; errors as for `name_cells`.

    Args:
        runtime: Runs the classifier.
        entry: The classifier.
        found: What the detector found.
        image: The picture.
        sample: As for `name_cells`.
        client: Who asks.
        watch: Called with the share that is done, 0..1, several times a second; any error that it raises cancels the
            rest.
    """
    white = [number for number, cell in enumerate(found.cells) if cell.object == WHITE]
    answers: dict[int, Prediction] = {}
    waiting: deque[tuple[int, Ticket]] = deque()

    def take() -> None:
        number, ticket = waiting[0]
        done = len(answers) / len(white)
        answer = wait_for(ticket, (lambda _: watch(done)) if watch else None, WATCH_SECONDS)
        answers[number] = runtime.prediction(entry, answer, sample)
        waiting.popleft()

    try:
        for number in white:
            waiting.append((number, runtime.submit(entry, cut_cell(image, found.cells[number], found), client=client)))
            if len(waiting) >= AHEAD:  # enough for full batches, and few that are left over where the work is cancelled
                take()
        while waiting:
            take()
    finally:
        for _, ticket in waiting:
            ticket.stop()
    asked = (sample or entry.default_sample).name
    return NamedCells(found, tuple(answers.get(number) for number in range(len(found.cells))), asked)


def record_of(file: str, named: NamedCells, notes: Sequence[str] = ()) -> dict[str, Any]:
    """One picture's record of `zoo cells`: plain values, ready for JSON."""
    name, page = split_page(file)
    scale = named.found.scale
    return {
        "schema": SCHEMA,
        "file": name,
        "page": page,
        "sample": named.sample,
        "scale_um_per_px": scale and round(scale.um_per_px, 5),
        "scale": scale
        and {
            "source": scale.source,
            "low": round(scale.low, 5),
            "high": round(scale.high, 5),
            "red_cells": scale.cells,
            "contradicts_um_per_px": scale.contradicts and round(scale.contradicts, 5),
        },
        "cells": [_cell(cell, answer) for cell, answer in zip(named.found.cells, named.answers, strict=True)],
        "counts": named.found.counts,
        "quality": list(named.found.quality),
        "notes": list(notes),
    }


def _cell(cell: FoundCell, answer: Prediction | None) -> dict[str, Any]:
    return {
        "box": list(cell.box),
        "object": cell.object,
        "confidence": round(cell.confidence, 4),
        "label": answer and answer.label,
        "probabilities": answer and {label: round(value, 6) for label, value in answer.probabilities.items()},
        "diameter_um": cell.diameter_um and round(cell.diameter_um, 2),
        "cut": cell.cut,
    }
