"""System C: features of a small CNN, judged by classical classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from pages.parts import plots
from pages.parts.audit.audits import audit_table, features_table
from pages.parts.comparison.scored import Stamp, stamp
from pages.parts.systems.overview import Shown, show_confusion, show_curves, show_scores, show_wishes
from pages.parts.tables import csv_button, downloads
from pages.parts.wording import plain
from zoo.audits.reports import BUILTIN, Audit, ReportError, at_features, read_report
from zoo.entry import HEAD, Entry, EntryError
from zoo.figures import systems as figures
from zoo.lazy import lazy_module
from zoo.systems.features import feature_importance

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

FEATURES = "cnn60_knn"  # the entry that the stored features were computed with
PARTS = ("train", "test")
SHOWN_FEATURES = 200  # rows of the table


def show(shown: Shown) -> None:
    """Show the data checks, the features, their importance, and the heads side by side."""
    try:
        audit = read_report(BUILTIN / shown.system.data)
        show_checks(audit)
        pictures = audit_table(audit)
        show_features(features_table(audit.features[FEATURES]), pictures, shown)
    except (ReportError, OSError, KeyError) as error:
        st.info(f"The features are not stored here: {plain(error)}")
    st.subheader("CNN and classical heads side by side", help="Without leaks, on the data set's own test side.")
    show_scores(shown.honest_scores, "classical heads")
    show_curves(shown.published, shown.titles)
    show_confusion(shown.honest, shown.titles)
    show_wishes(shown.system)


def show_checks(audit: Audit) -> None:
    """Show the authors' data checks with what they find."""
    report = audit.report
    copies = report.duplicates
    checks = [
        ("duplicates, equal in every pixel", f"{sum(map(len, copies.pixel)):,}"),
        ("copies of a cell, changed", f"{sum(map(len, copies.near)):,}"),
        ("null records: unreadable, blank or without a label", _nulls(audit)),
        *((f"records of {name}", f"{sum(counts.values()):,}") for name, counts in report.splits.items()),
    ]
    st.subheader("Data checks", help="An empty data set is refused with an error. The Data page has the whole audit.")
    table = pd.DataFrame(checks, columns=["check", "pictures"])
    st.dataframe(table, hide_index=True)
    downloads(table, "data-checks")


def _nulls(audit: Audit) -> str:
    report = audit.report
    return f"{len(report.unreadable) + len(report.blank) + len(report.unlabelled):,}"


def show_features(features: pd.DataFrame, pictures: pd.DataFrame, shown: Shown) -> None:
    """Show the five features: in space, by importance, and as numbers."""
    st.subheader("First three features", help="Of the small CNN without leaks; at most 1,200 pictures in a panel.")
    placed = at_features(pictures, features)
    placed["label"] = placed["label"].str.lower()
    plots.downloadable(figures.feature_space(placed, PARTS), "feature space")
    with st.expander("The features as numbers", icon=":material/table:"):
        st.dataframe(features.head(SHOWN_FEATURES), hide_index=True)
        csv_button("All features as CSV", features, "features.csv")
    tested = features[features["file"].isin(pictures.loc[pictures["split"] == "test", "file"])]
    tested = tested.assign(label=tested["label"].str.lower())
    heads = [entry for entry in shown.honest if (entry.folder / HEAD).is_file()]
    falls = {}
    for entry in heads:
        try:
            falls[shown.titles[entry.id]] = importance(entry, tested)
        except (EntryError, ValueError) as error:
            st.caption(plain(error))
    if falls:
        st.subheader(
            "Importance of each feature", help="Fall in test accuracy when the feature is shuffled among pictures."
        )
        plots.downloadable(figures.importance(falls), "feature importance")
        downloads(pd.concat([table.assign(head=title) for title, table in falls.items()]), "feature-importance")


def importance(entry: Entry, features: pd.DataFrame) -> pd.DataFrame:
    """Importance of each feature for a head, computed once."""
    return _importance(entry, features, stamp(entry))


@st.cache_data(max_entries=8, show_spinner="Shuffling features …")
def _importance(_entry: Entry, _features: pd.DataFrame, key: Stamp) -> pd.DataFrame:
    return feature_importance(_entry, _features)
