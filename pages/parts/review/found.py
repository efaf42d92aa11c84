"""Cells of a session's pictures: found once a picture, named once a model, and kept within a bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import streamlit as st
from PIL import Image

from pages.parts import entries, progress, session
from pages.parts.pictures import gallery
from pages.parts.session import Picture
from zoo.api import default_detector, default_runtime
from zoo.bounded import ByteCache
from zoo.detection.objects import WHITE
from zoo.entry import Entry
from zoo.lazy import lazy_module
from zoo.limits import ANSWERS_MB
from zoo.review.cells import WHOLE, Cell
from zoo.scores.sample.samples import Sample
from zoo.serving.results import Prediction, with_sample

if TYPE_CHECKING:
    from zoo.detection import cut as cutting
    from zoo.detection import detector as detection
    from zoo.serving import fields
else:  # torch is imported when a picture is there
    cutting = lazy_module("zoo.detection.cut")
    detection = lazy_module("zoo.detection.detector")
    fields = lazy_module("zoo.serving.fields")

COUNT_UNKNOWN = "count unknown"  # session key: whether cells that are not recognised keep their class
FOUND, NAMED, AS_WHOLE, SIZES = "found cells", "named cells", "one answer a picture", "sizes"  # session keys
CELL_BYTES, PREDICTION_BYTES = 500, 3000  # of memory, about
Answers = tuple[Prediction | None, ...]


@dataclass(frozen=True, eq=False)
class Examined:
    """A picture with its cells.

    Attributes:
        picture: The picture.
        size: Its width and height.
        cells: Its cells, numbered from 1; one, WHOLE, where the picture is classified as a whole.
        predictions: The classifier's answers by number of the cell.
        found: What the detector found; None where the picture is classified as a whole.
    """

    picture: Picture
    size: tuple[int, int]
    cells: tuple[Cell, ...]
    predictions: Mapping[int, Prediction] = field(default_factory=dict)
    found: detection.Cells | None = None

    @property
    def image(self) -> Image.Image:
        """The decoded picture; it is kept for all sessions within a bound, not here."""
        image = gallery.decoded(self.picture.id, self.picture.data, self.picture.name)
        assert isinstance(image, Image.Image), image
        return image

    def cut(self, cell: Cell) -> Image.Image:
        """Picture of one cell as the classifier sees it."""
        if self.found is None:
            return self.image
        return cutting.cut_cell(self.image, self.found.cells[cell.number - 1], self.found)


def cell_id(picture: Picture, number: int) -> str:
    """Id of a cell on the pages."""
    return f"{picture.id}-{number}"


def detector_entry() -> Entry | None:
    """The detector in use; None without one, and where the visitor wants one answer a picture."""
    return None if st.session_state.get(AS_WHOLE) else entries.detector_entry()


def offer_whole_pictures() -> None:
    """A switch between an answer for each cell and one for each picture; nothing without a detector."""
    if entries.detector_entry() is None:
        return
    key = "whole pictures"
    st.session_state[key] = bool(st.session_state.get(AS_WHOLE))

    def keep() -> None:
        st.session_state[AS_WHOLE] = st.session_state[key]

    st.toggle(
        "One answer a picture", key=key, on_change=keep, help="Off: every white cell of a field gets its own answer."
    )


def locate(pictures: Sequence[Picture]) -> dict[str, detection.Cells]:
    """Cells of each picture that is a field, by the picture's id; the detector runs once a picture.

    A picture that is missing here is classified as a whole: a close-up of one cell, or one without any found cell.

    Raises:
        EntryError: The detector cannot be loaded.
    """
    entry = detector_entry()
    found = {picture.id: _located(entry, picture) for picture in pictures} if entry else {}
    return {identity: cells for identity, cells in found.items() if cells is not None}


def find_and_name(entry: Entry, sample: Sample, pictures: Sequence[Picture]) -> tuple[list[Examined], list[Picture]]:
    """Find the cells of fields and name the white ones, one picture after the other; the visitor can stop it.

    Each field is searched once, and named once a model; another sample needs no network.

    Returns:
        The fields with their answers, and the pictures that are to be classified as wholes.

    Raises:
        EntryError, BusyError: The detector or the classifier cannot be used.
    """
    detector, fields_, wholes = detector_entry(), list[Examined](), list[Picture]()
    if detector is None:
        return [], list(pictures)
    unfinished = [picture.id for picture in pictures]
    several = len(pictures) > 1
    with progress.long_work("stop fields", session.stop, unfinished) as work:
        for number, picture in enumerate(pictures):

            def show(share: float, number: int = number) -> None:
                text = f"Picture {number + 1} of {len(pictures)}: " if several else ""
                work.show((number + share) / len(pictures), f"{text}finding and naming cells", at_once=several)

            cells = _located(detector, picture, show)
            if cells is None:
                wholes.append(picture)
            else:
                fields_.append(_named(entry, sample, picture, cells, show))
            unfinished.pop(0)
    return fields_, wholes


def _located(entry: Entry, picture: Picture, show: Callable[[float], None] | None = None) -> detection.Cells | None:
    """Cells of a picture by a detector; None where it is classified as a whole. `show` is called before a search."""
    known = _cache(FOUND, lambda cells: CELL_BYTES * (1 + len(cells.cells)))
    key = (str(entry.folder), str(entry.weights), picture.id)
    cells = known.get(key)
    if cells is None:
        read = gallery.read(picture.id, picture.data, picture.name)
        if isinstance(read, str):
            return None
        if show:
            show(0.0)
        cells = default_detector(entry).find(read.image, file_um_per_px=read.um_per_px)
        known.put(key, cells)
    return cells if cells.cells and fields.close_up(cells) is None else None


def _named(
    entry: Entry, sample: Sample, picture: Picture, cells: detection.Cells, show: Callable[[float], None]
) -> Examined:
    """A field with the answers for its white cells; `show` is told the share that is done."""
    known = _cache(NAMED, lambda answers: CELL_BYTES + PREDICTION_BYTES * sum(one is not None for one in answers))
    key = (str(entry.folder), str(entry.weights), picture.id)
    one = unanswered(picture, cells.size, cells)
    answers: Answers | None = known.get(key)
    if answers is None:
        show(0.0)
        named = fields.name_found(default_runtime(), entry, cells, one.image, sample, session.client(), show)
        answers = named.answers
        known.put(key, answers)
    predictions = {n: with_sample(entry, one, sample) for n, one in enumerate(answers, 1) if one is not None}
    return replace(one, cells=_cells(picture, cells, predictions), predictions=predictions)


def unanswered(picture: Picture, size: tuple[int, int], cells: detection.Cells | None) -> Examined:
    """A picture of `size` with its cells and without answers; as a whole where `cells` is None."""
    if cells is not None:
        return Examined(picture, size, _cells(picture, cells, {}), {}, cells)
    box = (0.0, 0.0, float(size[0]), float(size[1]))
    return Examined(picture, size, (Cell(picture.content, 1, box, WHOLE, None, 0.0),))


def whole(picture: Picture, prediction: Prediction) -> Examined | None:
    """A picture that was classified as a whole; None if it cannot be read any more."""
    size = size_of(picture)
    if size is None:
        return None
    one = unanswered(picture, size, None)
    cell = replace(
        one.cells[0],
        label=_label(prediction),
        confidence=prediction.confidence,
        probabilities=prediction.probabilities,
    )
    return replace(one, cells=(cell,), predictions={1: prediction})


def size_of(picture: Picture) -> tuple[int, int] | None:
    """Width and height of a picture; None if it cannot be read."""
    sizes: dict[str, tuple[int, int]] = st.session_state.setdefault(SIZES, {})
    if picture.id not in sizes:
        image = gallery.decoded(picture.id, picture.data, picture.name)
        if isinstance(image, str):
            return None
        sizes[picture.id] = image.size
    return sizes[picture.id]


def white_cells(pictures: Sequence[Picture]) -> dict[str, tuple[Picture, Examined, Cell]]:
    """White cells of all fields by id: as a picture named after its field, the field, and the cell in it."""
    found, located = {}, locate(pictures)
    for picture in pictures:
        cells = located.get(picture.id)
        one = unanswered(picture, cells.size, cells) if cells is not None else None
        for cell in one.cells if one else ():
            if one and cell.object == WHITE:
                identity, name = cell_id(picture, cell.number), f"Cell {cell.number} of {picture.name}"
                found[identity] = Picture(identity, name, picture.upload, picture.credit), one, cell
    return found


def _cells(picture: Picture, found: detection.Cells, predictions: Mapping[int, Prediction]) -> tuple[Cell, ...]:
    cells = []
    for number, one in enumerate(found.cells, 1):
        answer = predictions.get(number)
        cells.append(
            Cell(
                picture.content,
                number,
                one.box,
                one.object,
                None if answer is None else _label(answer),
                one.confidence if answer is None else answer.confidence,
                {} if answer is None else answer.probabilities,
                one.diameter_um,
                one.cut,
            )
        )
    return tuple(cells)


def _label(prediction: Prediction) -> str | None:
    counted = not prediction.warning or st.session_state.get(COUNT_UNKNOWN)
    return prediction.label if counted else None


def _cache(key: str, size: object) -> ByteCache:
    if key not in st.session_state:
        st.session_state[key] = ByteCache(lambda: ANSWERS_MB.bytes // 2, size)  # type: ignore[arg-type]
    return st.session_state[key]
