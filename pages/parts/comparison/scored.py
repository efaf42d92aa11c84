"""Models on one benchmark: predictions and scores, computed once for all sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import streamlit as st

from pages.parts.wording import plain
from zoo.benchmarks import benchmark_title, get_benchmark, leaderboard, published, robustness, scoring
from zoo.benchmarks.asking import ask
from zoo.benchmarks.comparison import joint_labels, paired_difference, with_labels
from zoo.entry import Benchmark, Entry, EntryError, keeps_network, read_network_predictions, read_predictions
from zoo.lazy import lazy_module
from zoo.scores import significance
from zoo.scores.bootstrap import Interval
from zoo.scores.calibration import sample_called, scaling_of
from zoo.scores.sample.samples import ONLY, samples

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

Stamp = tuple[str, str, float]  # id, folder, and time of the last change of an entry: part of every cache key


@dataclass(frozen=True)
class ScoredModel:
    """A model on a benchmark: its stored predictions, and what the entry says about the benchmark.

    Attributes:
        entry: The model.
        title: Its title, unique on the page.
        name: Name of the benchmark.
        benchmark: The entry's record of it.
        table: Prediction table, with a column for each label that any of the compared models has.
        sample: Sample that it was asked with in place of the reported one; empty for that.
    """

    entry: Entry
    title: str
    name: str
    benchmark: Benchmark
    table: pd.DataFrame
    sample: str = ""

    @property
    def scores(self) -> Mapping[str, Interval]:
        """Every score, computed at the first use and then kept for all sessions."""
        return _scores(self.entry, self.name, self.sample, stamp(self.entry))[0]

    def classes(self, areas: bool) -> pd.DataFrame:
        """Scores by class, one row a label; those under curves, which take longest, only where `areas` are wanted."""
        compute = _scores if areas else _classes
        return compute(self.entry, self.name, self.sample, stamp(self.entry))[1]


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


@st.cache_data(max_entries=256, show_spinner=False)
def _answers(_entry: Entry, benchmark: str, sample: str, key: Stamp) -> tuple[pd.DataFrame, list[str], str]:
    """Prediction table, its labels and a hash of its pictures: as reported, or asked with a sample."""
    record = _entry.evaluation.benchmarks[benchmark]
    if not sample:
        table, rows = _load(_entry, benchmark, key)
        return table, record.labels, rows
    network = read_network_predictions(_entry, benchmark)
    found = ask(_entry, get_benchmark(benchmark), network, None if sample == ONLY else samples()[sample])
    return found.table, found.labels, scoring.rows_hash(found.table)


@st.cache_data(max_entries=256, show_spinner="Computing intervals …")
def _scores(_entry: Entry, benchmark: str, sample: str, key: Stamp) -> tuple[dict[str, Interval], pd.DataFrame]:
    table, labels, _ = _answers(_entry, benchmark, sample, key)
    asked = sample or _entry.evaluation.benchmarks[benchmark].sample
    report = scoring.score(table, labels, scaling_of(_entry, sample_called(_entry, asked)))
    return scoring.intervals(report), report.classes


@st.cache_data(max_entries=256, show_spinner="Computing intervals …")
def _classes(_entry: Entry, benchmark: str, sample: str, key: Stamp) -> tuple[None, pd.DataFrame]:
    table, labels, _ = _answers(_entry, benchmark, sample, key)
    return None, scoring.classes(table, labels)


def pairs(models: Sequence[ScoredModel], labels: Sequence[str]) -> pd.DataFrame:
    """Every two models compared, one row a pair. Raises ValueError if two share no picture."""
    key = tuple((stamp(model.entry), model.name, model.sample) for model in models)
    return _pairs({model.title: model.table for model in models}, labels, key)


@st.cache_data(max_entries=64, show_spinner="Comparing models …")
def _pairs(_tables: Mapping[str, pd.DataFrame], labels: Sequence[str], key: tuple[object, ...]) -> pd.DataFrame:
    return significance.compare_pairs(_tables, labels)


def difference(
    first: ScoredModel, second: ScoredModel, labels: Sequence[str]
) -> tuple[Interval, significance.McNemar] | None:
    """Difference of two models in accuracy, and McNemar's test; None if they share no picture."""
    key = tuple((stamp(model.entry), model.name, model.sample) for model in (first, second))
    return _difference(first.table, second.table, list(labels), key)


@st.cache_data(max_entries=64, show_spinner=False)
def _difference(
    _first: pd.DataFrame, _second: pd.DataFrame, labels: Sequence[str], key: tuple[object, ...]
) -> tuple[Interval, significance.McNemar] | None:
    return paired_difference(_first, _second, labels)


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


def sample_choices(entries: Sequence[Entry], name: str) -> list[str]:
    """Samples that models can be asked with on a benchmark; none where no network's own probabilities are stored."""
    return list(samples()) if name in published() and any(keeps_network(entry, name) for entry in entries) else []


def load_models(entries: Sequence[Entry], name: str, titles: Mapping[str, str], sample: str = "") -> list[ScoredModel]:
    """The models that can be compared on a benchmark, with messages about the others and about leaks.

    Their tables get the same labels: a label that a model does not know has probability 0.

    Args:
        entries: The models.
        name: Name of the benchmark.
        titles: The models' titles by id.
        sample: Sample to ask with; empty: as reported.
    """
    models: list[ScoredModel] = []
    by_hash: dict[str, list[str]] = {}
    for entry in entries:
        benchmark, title = entry.evaluation.benchmarks[name], titles[entry.id]
        try:
            table, known, rows = _answers(entry, name, sample, stamp(entry))
        except (EntryError, OSError) as error:
            st.error(f"{title} is left out on {name}: {error}")
            continue
        if models and set(table["label"]) != set(models[0].table["label"]):
            st.error(f"{plain(title)} is left out: it names other classes on {name} than {plain(models[0].title)}.")
            continue
        by_hash.setdefault(rows, []).append(title)
        asked = benchmark.model_copy(update={"labels": known, "sample": sample or benchmark.sample})
        models.append(ScoredModel(entry, title, name, asked, table, sample))
    if len(by_hash) > 1:
        groups = "".join(f"\n- {plain('; '.join(group))}" for group in by_hash.values())
        shown = plain(benchmark_title(name, models[0].benchmark))
        st.warning(f"Scored on different versions of “{shown}”, so compare with care:\n{groups}")
    for model in models:
        _show_leak(model)
    return _with_same_labels(models)


def _with_same_labels(models: Sequence[ScoredModel]) -> list[ScoredModel]:
    """The models with the labels of all of them, in one order."""
    labels = joint_labels([model.benchmark.labels for model in models])
    return [
        replace(
            model,
            table=with_labels(model.table, labels),
            benchmark=model.benchmark.model_copy(update={"labels": labels}),
        )
        for model in models
    ]


def _show_leak(model: ScoredModel) -> None:
    benchmark = model.benchmark
    leak = f"{100 * benchmark.leak_share:.1f} % of test images show a cell that training pictures also show"
    if benchmark.leaky:
        st.warning(
            f"**Leaky split**, {plain(model.title)}: {leak}. Use these figures only to reproduce published ones."
        )
    elif benchmark.leak_share:
        st.caption(f":material/info: {plain(model.title)}: {leak}.", help="The model's card says what that changes.")
