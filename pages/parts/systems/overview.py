"""Reported and honest figures of a published system, and the views that several systems share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from pages.parts import entries as zoo_entries
from pages.parts import plots
from pages.parts.comparison import scored
from pages.parts.comparison.matrices import show_matrices
from pages.parts.comparison.tabs import show_training_curves
from pages.parts.pictures import gallery
from pages.parts.tables import downloads
from pages.parts.wording import other_laboratories, percent, plain
from zoo.audits.reports import BUILTIN, ReportError, read_report
from zoo.benchmarks import get_benchmark
from zoo.benchmarks.thumbnails import thumbnail
from zoo.entry import Entry, EntryError, read_history, readable_entries
from zoo.entry.schema import Metric
from zoo.figures import audit as audit_figures
from zoo.figures import comparison as figures
from zoo.lazy import lazy_module
from zoo.review.kinds import kind_named, title_of
from zoo.scores.bootstrap import Interval
from zoo.sources.examples import bundled_examples
from zoo.systems import (
    SUMMARY,
    PublishedSystem,
    Reproduction,
    Wish,
    authors_scores,
    count,
    honest_rows,
    own_protocol,
    summary_scores,
    tested_on,
)

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

NOT_TRAINED = "not yet"
BASE = "compared with"
PICTURES_PER_ROW = 4
PICTURE_PIXELS = 160
SAMPLES = 8  # pictures of each class
SAMPLE_PIXELS = 72


@dataclass(frozen=True)
class Shown:
    """The chosen system with its reproductions."""

    system: PublishedSystem
    rows: Sequence[Reproduction]

    @property
    def titles(self) -> dict[str, str]:
        """Title of each entry by its id: the network, and the weights where these are not the published ones."""
        return {entry.id: row.title for row in self.rows for entry in (row.published, row.honest) if entry is not None}

    @property
    def published(self) -> list[Entry]:
        """Entries under the authors' protocol, one a model."""
        return own_protocol(self.rows)

    @property
    def honest(self) -> list[Entry]:
        """Entries under the leak-free protocol."""
        return [row.honest for row in self.rows if row.honest]

    @property
    def published_scores(self) -> dict[str, dict[str, Metric]]:
        """Scores under the authors' protocol, counted as they did, by title; one a model."""
        chosen = {entry.id for entry in self.published}
        return {row.title: _authors_scores(row) for row in self.rows if row.published and row.published.id in chosen}

    @property
    def honest_scores(self) -> dict[str, dict[str, Metric]]:
        """Scores under the leak-free protocol, by title."""
        return {row.title: summary_scores(row.honest) for row in self.rows if row.honest}


def show(shown: Shown) -> None:
    """Show what was reported beside our figures under both protocols."""
    system = shown.system
    st.markdown(system.about)
    if system.warning:
        st.warning(system.warning, icon=":material/report:")
    table = figures_table(shown.rows)
    st.dataframe(table, hide_index=True)
    st.caption(
        "Accuracy on test pictures with 95 % CI. Without leaks: all pictures of a cell are on one side of the split.",
        help="Their protocol: a split by image, as the authors made it; where the data set holds copies of a cell, it "
        "puts them on both sides. Other laboratories: balanced accuracy, mean and worst, never trained on. An entry "
        "from random weights says nothing about the pretrained network that was published.",
    )
    downloads(table, f"system-{system.letter}")
    st.caption(f"Of all five systems, {count(readable_entries(zoo_entries.entries())).sentence}")
    answered = honest_rows(shown.rows)
    if missing := {row.recipe: row.model.missing for row in shown.rows if row.model.id not in answered}:
        with st.expander(f"{len(missing)} without a figure yet", icon=":material/pending:"):
            for recipe, reason in missing.items():
                st.markdown(f"- `python -m training train {recipe} --data {system.data.upper()}`: {plain(reason)}.")


def figures_table(rows: Sequence[Reproduction]) -> pd.DataFrame:
    """One row a network and kind of start weights: reported, their protocol, without leaks, other laboratories."""
    return pd.DataFrame(
        [
            {
                "network": row.title,
                "reported": row.model.reported,
                "their protocol, here": authors_accuracy(row),
                "without leaks": accuracy(row.honest),
                "other laboratories": other_laboratories(row.honest) if row.honest else NOT_TRAINED,
            }
            for row in rows
        ]
    )


def accuracy(entry: Entry | None) -> str:
    """Accuracy of an entry on its test set, with its interval."""
    found = tested_on(entry)
    return percent(found[1].metrics["accuracy"]) if found else NOT_TRAINED


def authors_accuracy(row: Reproduction) -> str:
    """Accuracy under the authors' protocol, counted as they did."""
    scores = _authors_scores(row)
    counted = " subset accuracy" if row.model.one_hot else ""
    return percent(scores["accuracy"]) + counted if scores else NOT_TRAINED


def _authors_scores(row: Reproduction) -> dict[str, Metric]:
    try:
        return authors_scores(row)
    except EntryError as error:
        st.caption(plain(error))
        return {}


def show_curves(entries: Sequence[Entry], titles: Mapping[str, str]) -> None:
    """Show training curves side by side, and a table of all epochs behind a fold."""
    st.subheader("Training curves")
    show_training_curves(entries, titles)
    histories = [read_history(entry).assign(network=titles[entry.id]) for entry in entries]
    histories = [history for history in histories if "epoch" in history]
    if not histories:
        return
    with st.expander("Epoch by epoch", icon=":material/table:"):
        table = pd.concat(histories)
        st.dataframe(table[["network", *table.columns.drop("network")]], hide_index=True)


def show_confusion(entries: Sequence[Entry], titles: Mapping[str, str]) -> None:
    """Show confusion matrices of the entries that were scored on the first one's test set."""
    names = [found[0] for entry in entries if (found := tested_on(entry))]
    if not names:
        return
    same = [entry for entry in entries if names[0] in entry.evaluation.benchmarks]
    models = scored.load_models(same, names[0], titles)
    if models:
        show_matrices(models, models[0].benchmark.labels)


def show_scores(found: Mapping[str, Mapping[str, Metric]], key: str) -> None:
    """Show accuracy, precision, recall and F1 of models on their test sets, by title."""
    scores = {title: {name: _interval(one[name]) for name in SUMMARY} for title, one in found.items() if one}
    if not scores:
        return
    plots.downloadable(figures.bars(scores, SUMMARY), key)
    rows = [{"network": title, **{name: metrics[name].value for name in SUMMARY}} for title, metrics in scores.items()]
    downloads(pd.DataFrame(rows), key.replace(" ", "-"))


def _interval(metric: Metric) -> Interval:
    low, high = (math.nan if limit is None else limit for limit in (metric.low, metric.high))
    return Interval(metric.value, low, high)


def show_classes(system: PublishedSystem) -> None:
    """Show how many pictures each class of the system's data has, and some of them."""
    st.subheader("Pictures of each class")
    show_samples(system.pictures)
    try:
        report = read_report(BUILTIN / system.data).report
    except ReportError as error:
        st.info(plain(error))
        return
    plots.downloadable(audit_figures.class_counts(report), f"classes {system.data}")
    downloads(pd.DataFrame({"class": report.classes.keys(), "pictures": report.classes.values()}), "class-counts")


def show_samples(benchmark: str) -> None:
    """Show some pictures of each class of a benchmark that comes with its thumbnails."""
    known = get_benchmark(benchmark)
    for label in known.labels:
        files = known.rows.loc[known.rows["label"] == label, "file"]
        spread = files.iloc[np.linspace(0, len(files) - 1, min(len(files), SAMPLES)).astype(int)]
        pictures = [picture for file in spread if (picture := thumbnail(benchmark, file))]
        if pictures:
            st.markdown(f"**{plain(title_of(label))}**")
            st.image(pictures, width=SAMPLE_PIXELS)
    st.caption(plain(known.credit))


def show_wishes(system: PublishedSystem) -> None:
    """Show what the authors wished for or named as an alternative, with our results."""
    entries = {entry.id: entry for entry in readable_entries(zoo_entries.entries())}
    table = wishes_table(system.wishes, entries)
    if table.empty:
        return
    st.subheader("What the authors wished for", help="Recipes of ours, without leaks; the authors give no figure.")
    st.dataframe(table, hide_index=True)
    downloads(table, f"wishes-{system.letter}")


def wishes_table(wishes: Sequence[Wish], entries: Mapping[str, Entry]) -> pd.DataFrame:
    """One row a wish: its recipe, its accuracy without leaks, that of what it is to improve on, other laboratories."""
    return pd.DataFrame(
        [
            {
                "wish": wish.wish,
                "recipe": wish.id,
                "without leaks": accuracy(found) if (found := entries.get(wish.id)) else f"not yet: {wish.missing}",
                BASE: f"{wish.base}: {accuracy(entries.get(wish.base))}",
                "other laboratories": other_laboratories(found) if found else NOT_TRAINED,
            }
            for wish in wishes
        ]
    )


def show_kinds(labels: Sequence[str]) -> None:
    """Show a picture and a description of each kind of cell."""
    if not labels:
        return
    st.subheader("One picture of each kind")
    pictures = {example.label: example for example in bundled_examples()}
    for part in gallery.chunks(labels, PICTURES_PER_ROW):
        for column, label in zip(st.columns(PICTURES_PER_ROW), part, strict=False):
            title = title_of(label)
            with column:
                if (example := pictures.get(title)) and example.path:
                    st.image(str(example.path), width=PICTURE_PIXELS, alt=f"Example: {title}")
                st.markdown(f"**{plain(title)}**")
                st.caption(plain(kind_named(label).description))
    titles = {title_of(label) for label in labels}
    st.caption(plain(next(example.credit for example in pictures.values() if example.label in titles)))
