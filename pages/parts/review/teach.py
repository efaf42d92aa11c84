"""Cells that a reader decided about, for the Adapt page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from pages.parts import session
from pages.parts.review import found, state
from zoo.data.kinds import kind_of
from zoo.entry import Entry
from zoo.review.cells import review
from zoo.review.training_cells import labelled


@dataclass(frozen=True, eq=False)
class Taught:
    """A reviewed cell: its picture, its label as the model spells it, a file name, and the picture it was cut from."""

    image: Image.Image
    label: str
    name: str
    group: str


def reviewed_cells(entry: Entry) -> tuple[list[Taught], int]:
    """Reviewed cells of the session's pictures, and the number of those of kinds that the model does not have."""
    journal = state.state().journal
    decided = {picture for picture, _ in journal.decisions}
    known = {name: label for label in entry.labels for name in (label.lower(), kind_of(label)) if name}
    taught, left_out = [], 0
    for one in _examined(decided):
        for cell in labelled(review(one.cells, journal)):
            kind = str(cell.kind)
            label = known.get(kind.lower()) or known.get(kind_of(kind) or "")
            if label is None:
                left_out += 1
                continue
            name = f"{label}/{one.picture.stem}-{cell.cell.number}.png"
            taught.append(Taught(one.cut(cell.cell), label, name, one.picture.name))
    return taught, left_out


def _examined(decided: set[str]) -> Iterator[found.Examined]:
    """The session's pictures whose content is in `decided`, with their cells and without answers."""
    pictures = [picture for picture in session.pictures() if picture.content in decided]
    located = found.locate(pictures)
    for picture in pictures:
        size = found.size_of(picture)
        if size is not None:
            yield found.unanswered(picture, size, located.get(picture.id))
