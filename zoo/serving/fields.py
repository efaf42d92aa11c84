"""Cells of whole fields: found by a detector, and white ones named by a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from zoo.detection.detector import Cells, Detector, FoundCell
from zoo.detection.objects import WHITE
from zoo.entry import Entry
from zoo.imaging.decode import split_page
from zoo.scores.samples import Sample
from zoo.serving.results import Prediction
from zoo.serving.runtime import Runtime

SCHEMA = 1  # of the records of `zoo cells`
AROUND = 1.9  # side of a cell's square over its longer side, so that it is seen as in pictures of one cell


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
    image: Image.Image,
    sample: Sample | None = None,
    um_per_px: float | None = None,
) -> NamedCells:
    """Find the cells of an RGB picture and classify the white ones together.

    Args:
        runtime: Runs the classifier.
        entry: The classifier.
        detector: Finds the cells.
        image: The picture.
        sample: What it is of; None: the classifier's usual sample.
        um_per_px: Micrometres a pixel, where they are known.

    Raises:
        EntryError: The classifier cannot be used.
        BusyError: The queue stayed full.
    """
    found = detector.find(image, um_per_px)
    white = [number for number, cell in enumerate(found.cells) if cell.object == WHITE]
    # all are submitted first, so that they are answered in batches
    tickets = [runtime.submit(entry, cut_cell(image, found.cells[number])) for number in white]
    answers = {
        number: runtime.prediction(entry, ticket.result(), sample)
        for number, ticket in zip(white, tickets, strict=True)
    }
    asked = (sample or entry.default_sample).name
    return NamedCells(found, tuple(answers.get(number) for number in range(len(found.cells))), asked)


def cut_cell(image: Image.Image, cell: FoundCell) -> Image.Image:
    """The square around a cell, as large as the picture allows."""
    left, top, right, bottom = cell.box
    half = AROUND * max(right - left, bottom - top) / 2
    x, y = cell.centre
    square = (max(0, round(x - half)), max(0, round(y - half)), round(x + half), round(y + half))
    return image.crop((*square[:2], min(image.width, square[2]), min(image.height, square[3])))


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
