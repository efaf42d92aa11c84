"""Detectors of cells and how well they find them, as the pages Models and Compare show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from pages.parts import plots, tables, wording
from zoo.detection.objects import OBJECTS
from zoo.entry import Entry, EntryError
from zoo.lazy import lazy_module
from zoo.sources.catalogue import list_detectors

if TYPE_CHECKING:
    import pandas as pd

    from zoo.detection import benchmarks
    from zoo.figures import fields as figures
else:
    pd = lazy_module("pandas")
    benchmarks = lazy_module("zoo.detection.benchmarks")
    figures = lazy_module("zoo.figures.fields")

REFRESH_SECONDS = 60
COLUMNS = {"AP50": "average precision", "recall": "found", "precision": "right", "count error": "error of the count"}
HELP = (
    "Average precision at an overlap of 0.5; the others at the limits of confidence of the model. The error of counts "
    "is the median over fields. 95 % intervals over fields that training has not seen."
)
PLOT_HELP = (
    "Bland–Altman: a point is a field. Solid: mean difference; dashed: limits that 95 % of the differences lie within."
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
        tables.csv_button("Scores as CSV", all_scores([entry]), f"{entry.id}-scores.csv")
        with st.expander("Counts found and marked", icon=":material/scatter_plot:"):
            _show_counts([entry], _pick_fields([entry], f"fields {entry.id}"), entry.id)


def show_comparison() -> None:
    """Show the scores of all detectors on one set of fields side by side; nothing where none is scored."""
    scored = [entry for entry in _listed() if entry.evaluation.fields]
    if not scored:
        return
    st.header("Detectors of cells", help=HELP)
    name = _pick_fields(scored, "fields")
    shown = [entry for entry in scored if name in entry.evaluation.fields]
    bars, counts = st.columns([2, 3], gap="large")
    with bars:
        st.markdown("**Average precision**")
        scores = {wording.plain(entry.title): entry.evaluation.fields[name] for entry in shown}
        plots.downloadable(figures.precision_bars(scores), f"{name} average precision")
    with counts:
        _show_counts(shown, name, "compared")
    tables.csv_button("Scores as CSV", all_scores(shown, name), f"{name}-scores.csv")


def _pick_fields(entries: Sequence[Entry], key: str) -> str:
    """Choose a set of fields that any of the detectors was scored on."""
    known = dict.fromkeys(name for entry in entries for name in entry.evaluation.fields)
    titles = _titles()
    return st.selectbox("Fields", list(known), format_func=lambda name: titles.get(name, name), key=key)


def _show_counts(entries: Sequence[Entry], name: str, key: str) -> None:
    """Plot the counts of detectors against the marked ones, and offer them as CSV."""
    counts = {}
    for entry in entries:
        try:
            counts[entry.title] = counts_of(entry, name)
        except EntryError as error:
            st.info(wording.plain(error))
    if not counts:
        return
    st.markdown("**Counts found and marked**", help=PLOT_HELP)
    plots.downloadable(figures.bland_altman(counts), f"{name} counts {key}")
    table = pd.concat([one.assign(model=title) for title, one in counts.items()])
    tables.csv_button("Counts as CSV", table, f"{name}-counts.csv", key=f"counts {name} {key}")


def counts_of(entry: Entry, name: str) -> pd.DataFrame:
    """Cells marked and found in each field of a set, from what is stored. Raises EntryError if nothing is."""
    return _counts_of(entry, name, (str(entry.folder), str(entry.weights)))


@st.cache_data(max_entries=32, ttl=REFRESH_SECONDS, show_spinner=False)
def _counts_of(_entry: Entry, name: str, key: tuple[str, str]) -> pd.DataFrame:
    from zoo.detection.scoring import count_table  # noqa: PLC0415 (reads tables)

    detector = _entry.config.zoo.detector
    return count_table(benchmarks.read_found(_entry, name), detector.limits if detector else {})


def score_table(entry: Entry) -> pd.DataFrame:
    """One row an evaluation set and object, with scores in words."""
    titles, rows = _titles(), []
    for name, scores in entry.evaluation.fields.items():
        for kind in OBJECTS:
            found = {title: scores.get(f"{kind}: {key}") for key, title in COLUMNS.items()}
            if any(found.values()):
                words = {title: wording.percent(metric) if metric else "–" for title, metric in found.items()}
                rows.append({"fields": titles.get(name, name), "cells": kind, **words})
    return pd.DataFrame(rows)


def all_scores(entries: Sequence[Entry], only: str = "") -> pd.DataFrame:
    """Every score with its interval, of all sets of fields or of one: model, fields, cells, score, value, low, high."""
    rows = []
    for entry in entries:
        for name, scores in entry.evaluation.fields.items():
            for key, metric in scores.items() if not only or name == only else ():
                kind, _, score = key.partition(": ")
                rows.append((entry.id, name, kind, score, metric.value, metric.low, metric.high))
    return pd.DataFrame(rows, columns=["model", "fields", "cells", "score", "value", "low", "high"])


def _titles() -> Mapping[str, str]:
    return {name: one.definition.title for name, one in benchmarks.field_benchmarks().items()}
