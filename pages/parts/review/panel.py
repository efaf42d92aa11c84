"""The chosen cell: large picture, answers, and the widgets that correct it; everything works without the board."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from pages.parts import plots, samples, wording
from pages.parts.pictures import gallery
from pages.parts.review import alike, board, state
from pages.parts.review.found import Examined, cell_id
from pages.parts.wording import plain
from zoo.entry import Entry
from zoo.figures import prediction as figures
from zoo.review.cells import MAX_NOTE, WHOLE, Reviewed
from zoo.review.kinds import kind_named, kinds, title_of
from zoo.serving.results import Prediction

MANY = 2  # cells from which buttons say how many


def show(entry: Entry, examined: Sequence[Examined], reviewed: Sequence[Sequence[Reviewed]]) -> Callable[[], None]:
    """Show the active cell and the corrections of all chosen ones.

    Returns:
        What shows the rest, which may take seconds: to be called at the end of the page.
    """
    active = board.active_cell(examined, reviewed)
    if active is None:
        st.info("No cell to show.")
        return lambda: None
    seen, one = active
    prediction = seen.predictions.get(one.cell.number)
    _show_answer(entry, seen, one, prediction)
    correct(examined, reviewed)
    if prediction is not None:
        with st.expander("Probabilities and details", icon=":material/bar_chart:"):
            _show_details(entry, seen, one, prediction)
    return alike.offer(entry, seen, one)


def correct(examined: Sequence[Examined], reviewed: Sequence[Sequence[Reviewed]]) -> None:
    """Widgets that give the chosen cells a kind, approve, undo and redo."""
    chosen = board.chosen_cells(examined, reviewed)
    if not chosen:
        return
    cells = [one.cell for one in chosen]
    names = list(kinds())
    number = f" {len(cells)} cells" if len(cells) >= MANY else ""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    kind = left.selectbox(
        f"Kind of {len(cells)} chosen cells" if number else "Correct to",
        names,
        index=names.index(chosen[-1].kind) if chosen[-1].kind in names else None,
        format_func=lambda name: (
            f"{title_of(name)} ({kinds()[name].key.upper()})" if kinds()[name].key else title_of(name)
        ),
        placeholder="Choose a kind",
        key=f"give {cells[-1].key} {chosen[-1].kind}",
        help="On the board: a letter gives the kind, arrows move, Shift or Ctrl chooses several, Enter approves.",
    )
    right.button(
        f"Correct{number}",
        on_click=state.give,
        args=(cells, kind),
        disabled=kind is None or all(one.kind == kind for one in chosen),
        width="stretch",
        type="primary",
    )
    review = state.state()
    with st.container(horizontal=True):
        st.button(f"Approve{number}", on_click=state.approve, args=(chosen,), icon=":material/check:")
        st.button("Undo", on_click=state.undo, icon=":material/undo:", disabled=not review.journal.done)
        st.button("Redo", on_click=state.redo, icon=":material/redo:", disabled=not review.journal.undone)
        if any(one.decision for one in chosen):
            st.button("As the model says", on_click=state.withdraw, args=(cells,), icon=":material/restart_alt:")
    if len(cells) < MANY:
        _note(chosen[0])


def _note(one: Reviewed) -> None:
    key = f"note {one.cell.key}"
    st.session_state[key] = one.decision.note if one.decision else ""

    def keep() -> None:
        state.annotate(one.cell, st.session_state[key])

    st.text_input("Note", key=key, on_change=keep, max_chars=MAX_NOTE, placeholder="For the report")


def _show_answer(entry: Entry, seen: Examined, one: Reviewed, prediction: Prediction | None) -> None:
    """Picture and kind of one cell, with both answers where a reader corrected the model's."""
    cell = one.cell
    left, right = st.columns([2, 3])
    left.image(
        seen.cut(cell), width="stretch", caption=_caption(seen, one), alt=f"Cut-out: {board.kind_title(one.kind)}"
    )
    with right:
        sure = board.confidence(cell)
        shown = f" · {sure}" if sure and one.decision is None else ""
        st.markdown(f"#### {wording.plain(board.kind_title(one.kind)).capitalize()}{shown}")
        if one.kind and (text := kind_named(one.kind).description):
            st.caption(plain(text))
        if one.corrected:
            told = f" ({sure})" if sure else ""
            st.markdown(f"✎ Corrected; the model says **{plain(board.kind_title(cell.answer))}**{told}.")
        elif one.decision:
            st.markdown("✓ Approved.")
        elif prediction is not None and (reason := board.reasons(cell, prediction)):
            st.markdown(f":material/flag: Check: {reason}.")
        if cell.diameter_um is not None:
            st.caption(f"{cell.diameter_um:.1f} µm across")
        if cell.cut:
            st.caption("Cut by the picture's edge.")
        if prediction is not None:
            _explain_link(seen, one)


def _explain_link(seen: Examined, one: Reviewed) -> None:
    if st.button("See why", icon=":material/center_focus_strong:", type="tertiary"):
        state.choose([cell_id(seen.picture, one.cell.number)])
        st.switch_page("pages/explain.py")


def _caption(seen: Examined, one: Reviewed) -> str:
    if one.cell.object == WHOLE:
        return f"{seen.picture.name}, {seen.size[0]}×{seen.size[1]}"
    return f"Cell {one.cell.number} of {seen.picture.name}"


def _show_details(entry: Entry, seen: Examined, one: Reviewed, prediction: Prediction) -> None:
    names = entry.class_names
    plots.chart(figures.probability_bars(prediction.probabilities, prediction.label, names), key=f"bars {one.cell.key}")
    wording.warn_if_unfamiliar(entry, prediction)
    if not prediction.warning:
        if text := samples.difference(entry, prediction):
            st.markdown(plain(text))
        wording.show_unseen_confidence(entry, prediction)
    found = gallery.read(seen.picture.id, seen.picture.data, seen.picture.name)
    if not isinstance(found, str) and found.notes:
        notes = "; ".join(found.notes)
        st.caption(plain(f"{notes[0].upper()}{notes[1:]}."))
    answered = f"answered in {1000 * prediction.seconds:.0f} ms"
    st.caption(plain(f"{answered} by {prediction.backend}" if prediction.backend else answered))
    if seen.picture.credit:
        st.caption(plain(seen.picture.credit))
