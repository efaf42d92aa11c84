"""Detectors of cells, and how well they find them, as the Models page lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from pages.parts import tables, wording
from zoo.detection.objects import OBJECTS
from zoo.entry import Entry
from zoo.lazy import lazy_module
from zoo.sources.catalogue import list_detectors

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

REFRESH_SECONDS = 60
COLUMNS = {"AP50": "average precision", "recall": "found", "precision": "right", "count error": "error of the count"}
HELP = (
    "Average precision at an overlap of 0.5; the others at the limits of confidence of the model. The error of counts "
    "is the median over fields. 95 % intervals over fields that training has not seen."
)


@st.cache_resource(ttl=REFRESH_SECONDS, show_spinner=False)
def _listed() -> list[Entry]:
    return list_detectors()


def show_detectors() -> None:
    """Show a table of scores for each detector; nothing where there is none."""
    for entry in _listed():
        st.subheader(wording.plain(entry.title), help=HELP)
        size = f", {entry.weights.bytes / 1e6:.1f} MB" if entry.weights else ""
        st.markdown(f"{wording.plain(entry.config.zoo.summary)} `{entry.id}`{size}")
        table = score_table(entry)
        if table.empty:
            st.info("This detector is not scored.")
            continue
        st.dataframe(table, hide_index=True)
        tables.csv_button("Scores as CSV", table, f"{entry.id}-scores.csv")


def score_table(entry: Entry) -> pd.DataFrame:
    """One row an evaluation set and object, with scores in words."""
    from zoo.detection.benchmarks import field_benchmarks  # noqa: PLC0415 (reads tables)

    titles = {name: one.definition.title for name, one in field_benchmarks().items()}
    rows = []
    for name, scores in entry.evaluation.fields.items():
        for kind in OBJECTS:
            found = {title: scores.get(f"{kind}: {key}") for key, title in COLUMNS.items()}
            if any(found.values()):
                words = {title: wording.percent(metric) if metric else "–" for title, metric in found.items()}
                rows.append({"fields": titles.get(name, name), "cells": kind, **words})
    return pd.DataFrame(rows)
