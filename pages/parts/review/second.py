"""A second reader: another person's saved review of the same pictures beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import streamlit as st

from pages.parts import tables
from pages.parts.review import state
from pages.parts.review.found import Examined, cell_id
from pages.parts.session import SECOND
from pages.parts.wording import plain
from zoo.lazy import lazy_module
from zoo.review.agreement import Agreement, agreement
from zoo.review.cells import WHOLE
from zoo.review.kinds import title_of
from zoo.review.session_file import Review, ReviewFileError, read_review

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

FEW = 20  # cells decided by both: with fewer, kappa says little
UPLOADER = "second reader's review"  # key of the uploader


def show(examined: Sequence[Examined]) -> None:
    """Open another person's review of the same pictures, and show where it agrees with this one."""
    with st.expander("Compare with a second reader", icon=":material/group:"):
        st.file_uploader(
            "Another person's saved review of the same pictures",
            type=["zip"],
            key=UPLOADER,
            on_change=_take,
            help="A file from “Save review”. Pictures are recognised by their content. Nothing of yours changes.",
        )
        if problem := st.session_state.get(f"{UPLOADER} error"):
            st.error(plain(problem))
        other: Review | None = st.session_state.get(SECOND)
        if other is None:
            return
        cells = [cell for one in examined for cell in one.cells]
        _show(agreement(cells, state.state().journal, other.journal().decisions), other, examined)


def _take() -> None:
    file = st.session_state[UPLOADER]
    for key in (SECOND, f"{UPLOADER} error"):
        st.session_state.pop(key, None)
    if file is None:
        return
    try:
        st.session_state[SECOND], _ = read_review(file.getvalue())
    except ReviewFileError as error:
        st.session_state[f"{UPLOADER} error"] = str(error)


def _show(found: Agreement, other: Review, examined: Sequence[Examined]) -> None:
    """Show the agreement, its table, and the cells in dispute."""
    name = other.reader or "The second reader"
    if not found.pairs:
        pictures = {one.picture for one in other.decisions} & {one.picture.content for one in examined}
        st.info(
            "No cell was decided by both. Decide about cells here, too."
            if pictures
            else f"{plain(name)} decided about none of these pictures. Open the same pictures first."
        )
        return
    share = 100 * found.same / len(found.pairs)
    text = f"**{found.same} of {len(found.pairs)} cells agree** ({share:.0f} %)."
    if found.kappa is not None:
        kappa = found.kappa
        text += f" Cohen's kappa {kappa.value:.2f} (95 %: {kappa.low:.2f} to {kappa.high:.2f})."
        if len(found.pairs) < FEW:
            text += f" Fewer than {FEW} cells: it says little."
    st.markdown(text, help="Kappa is the agreement beyond chance: 1 for all cells, 0 for what chance gives.")
    st.dataframe(found.table().rename_axis(f"you ↓, {name} →"))
    if not found.disputed:
        return
    rows, ids = [], []
    by_content = {one.picture.content: one.picture for one in examined}
    for pair in found.disputed:
        picture = by_content[pair.cell.picture]
        ids.append(cell_id(picture, pair.cell.number))
        rows.append(
            {
                "file": picture.name,
                "cell": None if pair.cell.object == WHOLE else pair.cell.number,
                "you": title_of(pair.first.kind),
                "when": _when(pair.first.time),
                name: title_of(pair.second.kind),
                f"when, {name}": _when(pair.second.time),
                "note": pair.second.note,
            }
        )
    key = f"disputed {len(rows)}"

    def choose() -> None:
        state.choose([ids[row] for row in tables.selected_rows(key) if row < len(ids)])

    st.markdown(f"**{len(rows)} in dispute.** Choose a row to see the cell.")
    table = pd.DataFrame(rows)
    st.dataframe(table, hide_index=True, key=key, on_select=choose, selection_mode=tables.SEVERAL_ROWS)
    tables.csv_button("Dispute as CSV", table, "dispute.csv")


def _when(time: str) -> str:
    """A decision's time to the minute, in UTC; unchanged where it is no ISO time."""
    try:
        return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return time
