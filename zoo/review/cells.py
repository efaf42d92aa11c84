"""Cells as a reader sees them, and what the reader decided about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from zoo.detection.matching import iou
from zoo.review.kinds import kind_named, kind_of_object

Box = tuple[float, float, float, float]
Key = tuple[str, Box]  # hash of a picture's content, and the box of a cell in it

WHOLE = "picture"  # object of a picture that is classified as a whole
SAME_BOX = 0.5  # IoU from which a decision on a box holds for a cell found again
MAX_STEPS = 500  # changes that can be undone
MAX_NOTE = 500  # characters


@dataclass(frozen=True)
class Cell:
    """A cell of a picture.

    Attributes:
        picture: Hash of the picture's content.
        number: Its number in its picture, from 1, as `zoo cells` lists them.
        box: left, top, right, bottom in pixels.
        object: One of `zoo.detection.objects.OBJECTS`, or WHOLE.
        label: Class that the classifier answered; None where it was not asked, or recognised no cell.
        confidence: Of the class, else of the object, 0..1.
        probabilities: Probability of each class.
        diameter_um: In micrometres, None without a scale.
        cut: Whether the picture's edge cuts it.
    """

    picture: str
    number: int
    box: Box
    object: str
    label: str | None
    confidence: float
    probabilities: Mapping[str, float] = field(default_factory=dict)
    diameter_um: float | None = None
    cut: bool = False

    @property
    def key(self) -> Key:
        """The cell's identity for decisions; it does not depend on the classifier."""
        return self.picture, self.box

    @property
    def answer(self) -> str | None:
        """Kind that the models give it: that of the class, or of the object where no class is asked for."""
        return kind_named(self.label).name if self.label else kind_of_object(self.object)


@dataclass(frozen=True)
class Decision:
    """A reader's decision about a cell.

    Attributes:
        kind: Kind that the reader gave; the model's where it was approved.
        model: Kind that the models gave when it was decided.
        reader: Who decided, as typed.
        time: Moment, ISO 8601 in UTC.
        note: The reader's note.
    """

    kind: str
    model: str | None = None
    reader: str = ""
    time: str = ""
    note: str = ""

    @property
    def corrects(self) -> bool:
        """Whether it differs from the model's answer."""
        return self.kind != self.model


@dataclass(frozen=True)
class Change:
    """One step that can be undone: decisions before and after it, None where there is none."""

    told: str
    before: Mapping[Key, Decision | None]
    after: Mapping[Key, Decision | None]


@dataclass(frozen=True)
class Journal:
    """Decisions with the steps that led to them. Methods return a new journal."""

    decisions: Mapping[Key, Decision] = field(default_factory=dict)
    done: tuple[Change, ...] = ()
    undone: tuple[Change, ...] = ()

    def decide(self, decided: Mapping[Key, Decision | None], told: str) -> Journal:
        """Take decisions, None to withdraw one, as one step that is told as `told`."""
        before = {key: self.decisions.get(key) for key in decided}
        if not decided or before == dict(decided):
            return self
        change = Change(told, before, dict(decided))
        return Journal(_with(self.decisions, change.after), (*self.done, change)[-MAX_STEPS:])

    def undo(self) -> Journal:
        """Take back the last step."""
        if not self.done:
            return self
        change = self.done[-1]
        return Journal(_with(self.decisions, change.before), self.done[:-1], (*self.undone, change))

    def redo(self) -> Journal:
        """Repeat the step that was taken back last."""
        if not self.undone:
            return self
        change = self.undone[-1]
        return Journal(_with(self.decisions, change.after), (*self.done, change), self.undone[:-1])

    def matched(self, cells: Sequence[Cell]) -> dict[Key, Decision]:
        """Decisions by key of the cells they hold for; a box found again a little differently keeps its decision."""
        found = {cell.key: self.decisions[cell.key] for cell in cells if cell.key in self.decisions}
        loose: dict[str, list[Box]] = {}
        for picture, box in self.decisions:
            if (picture, box) not in found:
                loose.setdefault(picture, []).append(box)
        for picture, boxes in loose.items():
            free = [cell for cell in cells if cell.picture == picture and cell.key not in found]
            if not free:
                continue
            overlap = iou(np.array(boxes, float), np.array([cell.box for cell in free], float))
            for box, row in zip(boxes, overlap, strict=True):
                best = int(row.argmax())
                if row[best] >= SAME_BOX:
                    found.setdefault(free[best].key, self.decisions[picture, box])
        return found


def _with(decisions: Mapping[Key, Decision], change: Mapping[Key, Decision | None]) -> dict[Key, Decision]:
    return {key: decision for key, decision in {**decisions, **change}.items() if decision is not None}


@dataclass(frozen=True)
class Reviewed:
    """A cell with the reader's decision, if there is one."""

    cell: Cell
    decision: Decision | None = None

    @property
    def kind(self) -> str | None:
        """Kind that counts: the reader's, else the model's."""
        return self.decision.kind if self.decision else self.cell.answer

    @property
    def corrected(self) -> bool:
        """Whether the reader gave another kind than the model."""
        return self.decision is not None and self.decision.kind != self.cell.answer


def review(cells: Iterable[Cell], journal: Journal) -> list[Reviewed]:
    """Join cells with the decisions about them."""
    listed = list(cells)
    decisions = journal.matched(listed)
    return [Reviewed(cell, decisions.get(cell.key)) for cell in listed]
