"""Models on one benchmark: predictions and scores, computed once for all sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from pages.parts.wording import plain
from zoo.benchmarks import leaderboard, robustness, scoring
from zoo.entry import Benchmark, Entry, EntryError, read_predictions
from zoo.scores import significance
from zoo.scores.bootstrap import Interval
from zoo.scores.calibration import scaling_of

Stamp = tuple[str, str, float]  # id, folder, and time of the last change of an entry: part of every cache key


@dataclass(frozen=True)
class ScoredModel:
    """A model on a benchmark: its stored predictions, and what the entry says about the benchmark.

    Attributes:
        entry: The model.
        title: Its title, unique on the page.
        name: Name of the benchmark.
        benchmark: The entry's record of it.
        table: Prediction table.
    """

    entry: Entry
    title: str
    name: str
    benchmark: Benchmark
    table: pd.DataFrame

    @property
    def scores(self) -> Mapping[str, Interval]:
        """Every score, computed at the first use and then kept for all sessions."""
        return _scores(self.entry, self.name, stamp(self.entry))[0]

    @property
    def classes(self) -> pd.DataFrame:
        """Scores by class, one row a label."""
        return _scores(self.entry, self.name, stamp(self.entry))[1]


def stamp(entry: Entry) -> Stamp:
    """Identity of an entry's evaluation on disk."""
    return entry.id, str(entry.folder), (entry.folder / "evaluation.json").stat().st_mtime


def load(entry: Entry, benchmark: str) -> tuple[pd.DataFrame, str]:
    """Stored predictions, and a hash of the files and labels that they are about. Raises EntryError or OSError."""
    return _load(entry, benchmark, stamp(entry))


@st.cache_data(max_entries=256, show_spinner=False)
def _load(_entry: Entry, benchmark: str, key: Stamp) -> tuple[pd.DataFrame, str]:
    table = read_predictions(_entry, benchmark)
    return table, scoring.rows_hash(table)


@st.cache_data(max_entries=256, show_spinner="Computing intervals …")
def _scores(_entry: Entry, benchmark: str, key: Stamp) -> tuple[dict[str, Interval], pd.DataFrame]:
    table, _ = _load(_entry, benchmark, key)
    report = scoring.score(table, _entry.evaluation.benchmarks[benchmark].labels, scaling_of(_entry))
    return scoring.intervals(report), report.classes


def pairs(models: Sequence[ScoredModel], labels: Sequence[str]) -> pd.DataFrame:
    """Every two models compared, one row a pair. Raises ValueError if two share no picture."""
    key = tuple((stamp(model.entry), model.name) for model in models)
    return _pairs({model.title: model.table for model in models}, labels, key)


@st.cache_data(max_entries=64, show_spinner="Comparing models …")
def _pairs(_tables: Mapping[str, pd.DataFrame], labels: Sequence[str], key: tuple[object, ...]) -> pd.DataFrame:
    return significance.compare_pairs(_tables, labels)


def corruption_errors(entry: Entry, benchmark: str) -> pd.DataFrame | None:
    """Error by kind and severity of corruption; None if its pictures are not corrupted ones.

    Raises:
        EntryError, OSError: If there are no predictions.
    """
    table, _ = load(entry, benchmark)
    if not robustness.is_corrupted(table):
        return None
    labels = entry.evaluation.benchmarks[benchmark].labels
    return _corruption_errors(table, labels, (stamp(entry), benchmark))


@st.cache_data(max_entries=64, show_spinner=False)
def _corruption_errors(_table: pd.DataFrame, labels: Sequence[str], key: tuple[object, ...]) -> pd.DataFrame:
    return robustness.by_kind(robustness.errors(_table, labels))


def leaders(entries: Sequence[Entry]) -> dict[str, str | None]:
    """Id of the significantly best entry in each column of the leaderboard; None where there is none."""
    return _leaders(entries, tuple(stamp(entry) for entry in entries))


@st.cache_data(max_entries=64, show_spinner="Testing significance …")
def _leaders(_entries: Sequence[Entry], key: tuple[Stamp, ...]) -> dict[str, str | None]:
    return {name: leaderboard.best(_entries, name) for name in leaderboard.COLUMNS}


def load_models(entries: Sequence[Entry], name: str, titles: Mapping[str, str]) -> list[ScoredModel]:
    """The models that can be compared on a benchmark, with messages about the others and about leaks."""
    models: list[ScoredModel] = []
    by_hash: dict[str, list[str]] = {}
    for entry in entries:
        benchmark, title = entry.evaluation.benchmarks[name], titles[entry.id]
        try:
            table, rows = load(entry, name)
        except (EntryError, OSError) as error:
            st.error(f"{title} is left out on {name}: {error}")
            continue
        if models and set(benchmark.labels) != set(models[0].benchmark.labels):
            st.error(f"{plain(title)} is left out: it names other classes on {name} than {plain(models[0].title)}.")
            continue
        by_hash.setdefault(rows, []).append(title)
        models.append(ScoredModel(entry, title, name, benchmark, table))
    if len(by_hash) > 1:
        groups = "; ".join(", ".join(group) for group in by_hash.values())
        st.warning(f"These models were scored on different versions of {name}, so compare with care: {groups}.")
    for model in models:
        _show_leak(model)
    return models


def _show_leak(model: ScoredModel) -> None:
    benchmark = model.benchmark
    leak = f"{100 * benchmark.leak_share:.1f} % of test images show a cell that training pictures also show"
    if benchmark.leaky:
        st.warning(
            f"**Leaky split**, {plain(model.title)}: {leak}. Use these figures only to reproduce published ones."
        )
    elif benchmark.leak_share:
        st.caption(f":material/info: {plain(model.title)}: {leak}.", help="The model's card says what that changes.")
