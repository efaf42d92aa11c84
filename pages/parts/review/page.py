"""The review as one part of the Classify page: board, chosen cell, table, counts and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig

from pages.parts import samples, tables, wording
from pages.parts.pictures import gallery
from pages.parts.review import alike, board, counts, files, kept, panel, second, state
from pages.parts.review.found import Examined, cell_id
from zoo.entry import Entry
from zoo.lazy import lazy_module
from zoo.review.cells import Reviewed, review
from zoo.review.kinds import title_of
from zoo.scores.sample.samples import Sample

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

MIN_COLUMN_PIXELS, PADDING_PIXELS, LETTER_PIXELS = 80, 36, 7  # of a table column
ROW_PIXELS, MAX_TABLE_PIXELS = 44, 420

Reviews = Sequence[Sequence[Reviewed]]


def reviews(examined: Sequence[Examined]) -> list[list[Reviewed]]:
    """Cells of each picture with their decisions."""
    journal = state.state().journal
    return [review(one.cells, journal) for one in examined]


@st.fragment
def show(entry: Entry, sample: Sample, examined: Sequence[Examined]) -> None:
    """Show the review of several cells; what happens in it draws only this part of the page again."""
    reviewed = reviews(examined)
    found = counts.count(entry, examined, all_cells(reviewed))
    show_rest = None
    if any(reviewed):
        left, right = st.columns([13, 7], gap="medium")
        with left:
            board.show(examined, reviewed)
        with right, st.container(key="chosen_cell"):
            show_rest = panel.show(entry, examined, reviewed)
        _show_table(entry, examined, reviewed)
    counts.show(entry, sample, examined, found)
    files.show(entry, sample, examined, reviewed, found)
    second.show(examined)
    kept.save(entry, sample)
    st.caption(kept.told())
    if show_rest:
        show_rest()


@st.fragment
def show_single(entry: Entry, sample: Sample, one: Examined) -> None:
    """Show corrections and files of one picture's answer."""
    reviewed = reviews([one])
    first = reviewed[0][0]
    if first.corrected:
        model = board.kind_title(first.cell.answer)
        text = f"✎ Corrected to {board.kind_title(first.kind)}; the model says {model}."
        st.markdown(wording.plain(text))
    elif first.decision:
        st.markdown("✓ Approved.")
    with st.expander("Correct this answer", icon=":material/edit:"):
        panel.correct([one], reviewed)
    show_rest = alike.offer(entry, one, first)
    st.caption(samples.about(sample.name, entry))
    files.show(entry, sample, [one], reviewed, counts.count(entry, [one], all_cells(reviewed)))
    kept.save(entry, sample)
    show_rest()


def all_cells(reviewed: Reviews) -> list[Reviewed]:
    """All cells in one list."""
    return [one for cells in reviewed for one in cells]


def _show_table(entry: Entry, examined: Sequence[Examined], reviewed: Reviews) -> None:
    """Show a row a cell; a selected row chooses the cell."""
    with st.expander("Table of cells", icon=":material/table_rows:"):
        everything = any(one.found is not None for one in examined) and st.toggle(
            "Red cells and platelets too", key="table of all cells"
        )
        listed = [
            (seen, one)
            for seen, cells in zip(examined, reviewed, strict=True)
            for one in cells
            if everything or board.in_gallery(one)
        ]
        listed.sort(key=lambda pair: not _for_review(*pair))  # those for review first
        if not listed:
            st.caption("No white cell was found.")
            return
        table = _table(entry, listed)
        key = f"table {entry.id} {len(table)}"

        def choose() -> None:
            chosen = [listed[row] for row in tables.selected_rows(key) if row < len(listed)]
            state.choose([cell_id(seen.picture, one.cell.number) for seen, one in chosen])

        st.dataframe(
            table,
            hide_index=True,
            on_select=choose,
            selection_mode=tables.SEVERAL_ROWS,
            key=key,
            row_height=ROW_PIXELS,
            height=min(ROW_PIXELS * len(table) + 40, MAX_TABLE_PIXELS),
            column_order=[name for name in table.columns if name != "label"],
            column_config=_columns(entry),
        )


def _table(entry: Entry, listed: Sequence[tuple[Examined, Reviewed]]) -> pd.DataFrame:
    rows = []
    for seen, one in listed:
        cell, prediction = one.cell, seen.predictions.get(one.cell.number)
        answered = prediction is not None and not prediction.warning
        row: dict[str, Any] = {
            "picture": gallery.thumbnail(seen.picture.id, seen.picture.data, seen.picture.name)
            if seen.found is None
            else None,
            "file": seen.picture.name,
            "cell": cell.number if seen.found is not None else None,
            "kind": board.kind_title(one.kind) if one.kind else None,
            "decision": _decision(seen, one),
            "label": one.kind if one.corrected else cell.label or one.kind,
            "model": title_of(cell.answer) if one.corrected and cell.answer else None,
            "confidence": cell.confidence if answered or prediction is None else None,
            "elsewhere": prediction.unseen_confidence if prediction is not None and answered else None,
            "familiarity": prediction.familiarity if prediction is not None else None,
            "diameter": cell.diameter_um,
        }
        rows.append(row | dict(cell.probabilities))
    table = pd.DataFrame(
        rows, columns=[*rows[0], *(label for label in entry.labels if label not in rows[0])] if rows else None
    )
    empty = [
        name
        for name in ("picture", "cell", "model", "elsewhere", "familiarity", "diameter")
        if table[name].isna().all()
    ]
    return table.drop(columns=empty)


def _for_review(seen: Examined, one: Reviewed) -> bool:
    return one.decision is None and bool(board.reasons(one.cell, seen.predictions.get(one.cell.number)))


def _decision(seen: Examined, one: Reviewed) -> str | None:
    """Decision about a cell, by the reader or by the limits of the model; None where nothing was asked."""
    if one.decision is not None:
        return "corrected" if one.corrected else "approved"
    prediction = seen.predictions.get(one.cell.number)
    if prediction is None:
        return None
    reason = board.reasons(one.cell, prediction)
    return f"for review: {reason}" if reason else "accepted"


def _columns(entry: Entry) -> dict[str, ColumnConfig]:
    return {
        "picture": st.column_config.ImageColumn(width="small"),
        "cell": st.column_config.NumberColumn("cell", width="small"),
        "model": st.column_config.TextColumn("model alone", help="Answer of the model where it was corrected."),
        "confidence": _share("confidence"),
        "elsewhere": _share("new laboratory", "Expected confidence if the slide comes from a new laboratory."),
        "familiarity": st.column_config.TextColumn(help=wording.FAMILIARITY_HELP),
        "diameter": st.column_config.NumberColumn("µm across", format="%.1f"),
        **{label: _share(name) for label, name in entry.class_names.items()},
    }


def _share(title: str, help_text: str | None = None) -> ColumnConfig:
    """A column of bars from 0 to 1, wide enough for its title."""
    width = max(MIN_COLUMN_PIXELS, PADDING_PIXELS + LETTER_PIXELS * len(title))
    return st.column_config.ProgressColumn(
        title, format="percent", min_value=0, max_value=1, width=width, help=help_text
    )
