"""System D: transfer, then fine-tuning of the last block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from pages.parts import entries as zoo_entries
from pages.parts import plots
from pages.parts.systems.overview import Shown, show_classes, show_confusion, show_curves
from pages.parts.tables import downloads
from zoo.benchmarks.leaderboard import other_laboratories
from zoo.entry import Entry, readable_entries
from zoo.figures import systems as figures
from zoo.lazy import lazy_module
from zoo.sources.catalogue import MODEL
from zoo.systems import Reproduction

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

FROZEN, TUNED = "resnet50_head", "resnet50_finetuned"
AT_HOME, ON_SHIFTED, ELSEWHERE = "home test pictures", "shifted pictures", "other laboratories, mean"


def show(shown: Shown) -> None:
    """Show classes, curves before and after fine-tuning, the fall on shifted pictures, and confusion matrices."""
    show_fall(shown.system.data, shown.rows)
    stages = [row.published for row in shown.rows if row.published and row.model.id in (FROZEN, TUNED)]
    show_curves(stages, shown.titles)
    st.caption("Fine-tuning continues the frozen network's training; epochs are counted anew.")
    show_classes(shown.system)
    show_confusion(shown.published, shown.titles)


def show_fall(data: str, rows: Sequence[Reproduction]) -> None:
    """Show how far accuracy falls on shifted pictures: the authors' model, their networks without leaks, and ours."""
    st.subheader("Fall on shifted pictures", help="Their hidden set is not distributed; ours is our test set, shifted.")
    entries = {row.title: row.honest for row in rows if row.honest}
    ours = next((one for one in readable_entries(zoo_entries.entries()) if one.id == MODEL), None)
    if ours is not None:
        entries[f"ours: {ours.title}"] = ours
    reported = {row.model.network: row.model.shifted for row in rows if row.model.shifted}
    table = fall_table(reported, entries, f"{data}-test")
    plots.downloadable(figures.falls(table), "fall on shifted pictures")
    downloads(table, "fall-on-shifted-pictures")


def fall_table(reported: Mapping[str, Mapping[str, float]], entries: Mapping[str, Entry], home: str) -> pd.DataFrame:
    """Accuracy at home, on shifted pictures and in other laboratories (balanced): one row a model and set of pictures.

    Args:
        reported: What authors reported for validation and shifted pictures, by network.
        entries: Entries by their titles.
        home: Benchmark of the home test pictures; that of the shifted ones is named after it.
    """
    rows = []
    for network, shares in reported.items():
        name = f"reported: {network}"
        rows += [(name, AT_HOME, shares["validation"]), (name, ON_SHIFTED, shares["shifted"])]
    for title, entry in entries.items():
        for benchmark, pictures in ((home, AT_HOME), (f"{home}-shifted", ON_SHIFTED)):
            if benchmark in entry.evaluation.benchmarks:
                rows.append((title, pictures, entry.evaluation.benchmarks[benchmark].metrics["accuracy"].value))
        if away := other_laboratories(entry):
            rows.append((title, ELSEWHERE, away.mean.value))
    return pd.DataFrame(rows, columns=["model", "pictures", "accuracy"])
