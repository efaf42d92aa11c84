"""Counts on the page: the differential by model and reader, and whole-field statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from pages.parts import plots, samples, tables
from pages.parts.review.found import Examined
from pages.parts.wording import counted, plain
from zoo.entry import Entry
from zoo.figures import prediction as figures
from zoo.lazy import lazy_module
from zoo.review import report as reports
from zoo.review.cells import Reviewed
from zoo.review.differential import Differential, differential
from zoo.scores.sample.samples import BLOOD, Sample

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

TARGETS = (100, 200, 500)  # white cells of a differential
MAX_POOR = 8  # fields whose quality is told


def count(entry: Entry, examined: Sequence[Examined], reviewed: Sequence[Reviewed]) -> Differential:
    """Both counts of the cells of all pictures."""
    return differential(reviewed, {one.picture.content: one.size for one in examined}, entry.count_error)


def show(entry: Entry, sample: Sample, examined: Sequence[Examined], found: Differential) -> None:
    """Show the differential with its chart, table and download, then what else was counted."""
    total = found.corrected.white_cells
    if total:
        _show_differential(sample, found)
    fields = [one for one in examined if one.found is not None]
    if fields:
        st.subheader(
            "Whole fields",
            help="Cells cut by the right or bottom edge are not counted; those at the left and "
            "top edge are, as in a counting chamber.",
        )
        table = pd.DataFrame(found.statistics(), columns=["", "model", "corrected"])
        st.dataframe(table, hide_index=True, width="content")
        _show_scales(fields)
        _show_quality(fields)
    predictions = [prediction for one in examined for prediction in one.predictions.values()]
    st.caption(samples.about(sample.name, entry, predictions))


def _show_differential(sample: Sample, found: Differential) -> None:
    total = found.corrected.white_cells
    st.subheader("Differential count")
    table = found.table(reference=sample.name == BLOOD)
    chart, numbers = st.columns([2, 3])
    with chart:
        shown = pd.DataFrame(
            {"label": table["kind"], "count": table["corrected"], "share": table["corrected_share"]}
        ).assign(low=table["low"], high=table["high"])
        plots.chart(figures.differential_count(shown))
    digits = reports.share_digits(total)
    words = pd.DataFrame(
        {
            "kind": table["kind"],
            "count": table["corrected"],
            "share": [f"{100 * value:.{digits}f} %" for value in table["corrected_share"]],
            "interval": [
                f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %"
                for low, high in zip(table["low"], table["high"], strict=True)
            ],
            "model": [
                f"{n:,} ({100 * share:.{digits}f} %)" if math.isfinite(share) else "0"
                for n, share in zip(table["model"], table["model_share"], strict=True)
            ],
        }
    )
    if table["normal"].any():
        words.insert(3, "normal", (table["normal"] + " " + table["flag"]).str.strip())
    config = {"interval": "95 % interval", "count": "cells", "model": "model alone"}
    numbers.dataframe(words, hide_index=True, column_config=config)
    with numbers:
        target = next((one for one in TARGETS if total < one), TARGETS[-1])
        st.progress(min(1.0, total / target), f"{counted(total, 'white cells')} counted; aim: {target}")
        tables.csv_button("Count as CSV", table.assign(sample=sample.name), "differential-count.csv")
    st.caption(
        f"{counted(total, 'cells')}. Count at least {TARGETS[0]} for a differential.",
        help=(
            "Intervals show variation by chance; errors of the model come on top. "
            if found.error is None
            else "Intervals hold variation by chance, and the model's errors in cells that nobody decided about, as "
            "measured in laboratories that it was not trained on. "
        ),
    )
    if table["normal"].any():
        st.caption(
            f"Normal: {plain(found.reference_sources)}.",
            help="↓ low or ↑ high stands where the whole 95 % interval lies outside of it. Laboratories have their own "
            "ranges: name yours in a file of kinds (HEMAZOO_REVIEW_KINDS).",
        )


def _show_quality(fields: Sequence[Examined]) -> None:
    """Faults of the fields, a line a field."""
    poor = [(one.picture.name, one.found.quality) for one in fields if one.found is not None and one.found.quality]
    if not poor:
        return
    lines = [
        f"**{plain(name)}**: {' '.join(quality)}" if len(fields) > 1 else " ".join(quality) for name, quality in poor
    ]
    st.warning("\n\n".join(lines[:MAX_POOR]), icon=":material/visibility_off:")
    if len(lines) > MAX_POOR:
        st.caption(f"{len(lines) - MAX_POOR} more fields are poor: see `python -m zoo cells`.")


def _show_scales(fields: Sequence[Examined]) -> None:
    """Micrometres a pixel of each field, with its interval and where it comes from."""
    known = [(one, one.found.scale) for one in fields if one.found is not None and one.found.scale is not None]
    if len(known) < len(fields):
        none = f"{len(fields) - len(known)} of {len(fields)} fields have" if len(fields) > 1 else "This field has"
        st.caption(f"{none} no scale: too few well-shaped red cells.")
    if len(known) == 1:
        _, scale = known[0]
        text = f"Scale: {scale.um_per_px:.4f} µm a pixel ({scale.low:.4f} to {scale.high:.4f}), from {scale.source}."
        st.caption(
            text,
            help="Red cells are 7.2 µm across, 6.2 to 8.2 in healthy adults: small or large red cells shift "
            "the scale by up to 14 %.",
        )
    elif known:
        rows = [(one.picture.name, scale.um_per_px, scale.low, scale.high, scale.source) for one, scale in known]
        with st.expander("Scales of the fields", icon=":material/straighten:"):
            st.dataframe(
                pd.DataFrame(rows, columns=["file", "µm a pixel", "low", "high", "from"]).round(4), hide_index=True
            )
    for one, scale in known:
        if scale.contradicts is not None:
            st.warning(
                f"{plain(one.picture.name)}: its file says {scale.um_per_px:.3f} µm a pixel, its red cells "
                f"{scale.contradicts:.3f}."
            )
