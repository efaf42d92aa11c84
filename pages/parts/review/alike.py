"""Known cells beside the chosen one: those that the model finds most like it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from pages.parts import session
from pages.parts.review import board
from pages.parts.review.found import Examined, cell_id
from pages.parts.wording import plain
from zoo.api import default_runtime
from zoo.data import DataError
from zoo.entry import Entry, EntryError
from zoo.lazy import lazy_module
from zoo.review.cells import Reviewed
from zoo.review.kinds import title_of
from zoo.serving.requests import BusyError

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from zoo.review import alike as known
else:  # it imports the engine
    known = lazy_module("zoo.review.alike")

SHOWN = 5  # known cells
OPEN = "known cells"  # session key of the fold
NEAREST = "nearest known cells"  # session key: cells found, by model and cell
MAX_KEPT = 500
WAIT_SECONDS = 0.2  # between two looks at the first computation of a model
FAILURES = (EntryError, BusyError, DataError)


def offer(entry: Entry, seen: Examined, one: Reviewed) -> Callable[[], None]:
    """A fold for the known cells most like a cell.

    Returns:
        What fills it: to be called at the end of the page, which then does not wait for it.
    """
    fold = st.expander("Known cells most like this one", icon=":material/compare:", key=OPEN, on_change="rerun")
    if not fold.open:
        return lambda: None
    place = fold.empty()
    found = _kept().get(_key(entry, seen, one))
    if found is not None:
        _show(place, found, one)
        return lambda: None
    return lambda: _fill(place, entry, seen, one)


def _fill(place: DeltaGenerator, entry: Entry, seen: Examined, one: Reviewed) -> None:
    """Find the cells and show them. The first time with a model the known cells are read, for every visitor."""
    try:
        ticket = known.known_vectors(default_runtime(), entry)
        while not ticket.done():
            place.progress(ticket.progress, "Reading the known cells with this model, once …")
            time.sleep(WAIT_SECONDS)
        found = known.most_alike(default_runtime(), entry, seen.cut(one.cell), ticket.result(), SHOWN, session.client())
    except FAILURES as error:
        place.info(plain(f"This model cannot compare cells. {error}"))
        return
    kept = _kept()
    while len(kept) >= MAX_KEPT:
        kept.pop(next(iter(kept)))
    kept[_key(entry, seen, one)] = found
    _show(place, found, one)


def _show(place: DeltaGenerator, found: Sequence[known.KnownCell], one: Reviewed) -> None:
    if not found:
        place.info("No known cells come with this program.")
        return
    with place.container():
        for column, cell in zip(st.columns(len(found), gap="small"), found, strict=True):
            column.image(cell.image, width="stretch", alt=f"Known cell: {title_of(cell.kind)}")
            column.caption(title_of(cell.kind))
        kind, count = Counter(cell.kind for cell in found).most_common(1)[0]
        st.markdown(f"{count} of {len(found)}: **{plain(title_of(kind))}**{_against(kind, one)}.")
        sources = " and ".join(dict.fromkeys(cell.source for cell in found))
        st.caption(
            f"Test cells of {plain(sources)}.",
            help="Their kinds were given by people. They are those whose features in this model are nearest to this "
            "cell's. Alike is no proof: in another laboratory's pictures stain, camera and size count too.",
        )


def _against(kind: str, one: Reviewed) -> str:
    """Comparison of the known cells' kind with the cell's, in words."""
    if not one.kind:
        return ""
    own = board.kind_title(one.kind)
    return ", as this cell" if own == title_of(kind) else f"; this cell is called {plain(own)}"


def _kept() -> dict[tuple[object, ...], list[known.KnownCell]]:
    return st.session_state.setdefault(NEAREST, {})


def _key(entry: Entry, seen: Examined, one: Reviewed) -> tuple[object, ...]:
    return entry.folder, entry.weights, cell_id(seen.picture, one.cell.number), one.cell.box
