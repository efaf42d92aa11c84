"""A session's review: decisions with undo, the chosen cells, and the names of slide and reader.

All of it stands under one session key, which "Clear all" removes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import streamlit as st

from pages.parts.session import REVIEW
from pages.parts.wording import counted
from zoo.review.cells import MAX_NOTE, Cell, Decision, Journal, Key, Reviewed
from zoo.review.kinds import title_of


@dataclass(frozen=True)
class State:
    """Review of a session.

    Attributes:
        journal: Decisions.
        chosen: Ids of the chosen cells (`pages.parts.review.found.cell_id`), the active one last.
        slide, reader: As typed.
        told: Sentence on the last step.
        seen: Number of the last event of the board that was handled.
    """

    journal: Journal = field(default_factory=Journal)
    chosen: tuple[str, ...] = ()
    slide: str = ""
    reader: str = ""
    told: str = ""
    seen: int = 0


def state() -> State:
    """The session's review."""
    kept: State = st.session_state.setdefault(REVIEW, State())
    return kept


def change(**values: object) -> None:
    """Change parts of the review."""
    st.session_state[REVIEW] = replace(state(), **values)  # type: ignore[arg-type]


def choose(cells: Sequence[str]) -> None:
    """Choose cells; the last one is shown large."""
    change(chosen=tuple(cells))


def give(cells: Sequence[Cell], kind: str) -> None:
    """Give cells a kind. A decision's note stays."""
    _decide(cells, lambda cell: kind, f"{_cells(cells)} given: {title_of(kind)}.")


def approve(cells: Sequence[Reviewed]) -> None:
    """Approve the kinds that cells without a decision have."""
    open_cells = [one.cell for one in cells if one.decision is None and one.kind is not None]
    _decide(open_cells, lambda cell: cell.answer or "", f"{_cells(open_cells)} approved.")


def withdraw(cells: Sequence[Cell]) -> None:
    """Withdraw the decisions about cells: the model's answers count again."""
    _change({cell.key: None for cell in cells}, f"{_cells(cells)} as the model says.")


def annotate(cell: Cell, note: str) -> None:
    """Keep a note about a cell, with the kind it has now."""
    known = state().journal.matched([cell]).get(cell.key)
    kind = known.kind if known else cell.answer
    if kind is not None and note != (known.note if known else ""):
        _change({cell.key: _decision(cell, kind, note)}, "Note kept.")


def undo() -> None:
    """Take back the last step."""
    done = state().journal.done
    if done:
        change(journal=state().journal.undo(), told=f"Taken back: {done[-1].told}")


def redo() -> None:
    """Repeat the step that was taken back last."""
    undone = state().journal.undone
    if undone:
        change(journal=state().journal.redo(), told=f"Repeated: {undone[-1].told}")


def _decide(cells: Sequence[Cell], kind: Callable[[Cell], str], told: str) -> None:
    known = state().journal.matched(cells)
    notes = {key: decision.note for key, decision in known.items()}
    _change({cell.key: _decision(cell, kind(cell), notes.get(cell.key, "")) for cell in cells}, told)


def _decision(cell: Cell, kind: str, note: str) -> Decision:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Decision(kind, cell.answer, state().reader, now, note[:MAX_NOTE])


def _change(decided: Mapping[Key, Decision | None], told: str) -> None:
    if decided:
        change(journal=state().journal.decide(decided, told), told=told)


def _cells(cells: Sequence[Cell]) -> str:
    return counted(len(cells), "cells")
