"""Leaderboard: one row a model, at home, in other laboratories, under corruption, calibration, size and speed.

Values are those that evaluation.json keeps. What is best is marked only where its lead over every other model is
significant: paired bootstrap over source cells, p-values adjusted after Holm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.benchmarks import CORRUPTED, laboratories_of, published
from zoo.benchmarks.eligibility import NOT_SCORED
from zoo.benchmarks.scoring import rows_hash
from zoo.data.registry import laboratories
from zoo.entry import Entry, EntryError, Metric, is_on_frames, read_predictions
from zoo.lazy import lazy_module
from zoo.scores import metrics, significance
from zoo.scores.bootstrap import BootstrapEstimate
from zoo.scores.calibration import is_scaled, scaling_on
from zoo.scores.samples import ALIKE

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard, its values shares of one; `missing` is shown of a model without a value."""

    title: str
    help: str
    lower_is_better: bool = False
    ranked: bool = True
    missing: str = NOT_SCORED


COLUMNS = {
    "home": Column("at home", "Balanced accuracy on test pictures of the laboratory that the model was trained on."),
    "away": Column(
        "other labs, mean",
        "Mean balanced accuracy in validation laboratories: no model was trained on them, but choices were made by "
        "them. Asked with the sample that fits each laboratory.",
    ),
    "worst": Column("other labs, worst", "Balanced accuracy in the worst of these laboratories.", ranked=False),
    "corrupted": Column("corrupted", "Balanced accuracy in the mean over 11 corruptions at 5 severities, at home."),
    "calibration": Column(
        "calibration error", "Expected calibration error at home: how far its confidence is off.", lower_is_better=True
    ),
    "maps": Column(
        "maps on the cell",
        "Share of maps on whole smear frames that point into the white cell's box, by the entry's usual method.",
        ranked=False,
        missing="not measured",
    ),
}


@dataclass(frozen=True)
class Cell:
    """A value of the leaderboard, with the benchmarks and the stored metric that it comes from.

    A value of several benchmarks is the mean of theirs.
    """

    value: float
    low: float
    high: float
    benchmarks: tuple[str, ...]
    metric: str

    @property
    def benchmark(self) -> str:
        """Names of the benchmarks, for people."""
        return ", ".join(self.benchmarks)


@dataclass(frozen=True)
class LaboratoryScore:
    """Balanced accuracy in one laboratory that a model was not trained on.

    Attributes:
        benchmark: Name of the benchmark.
        laboratory: The laboratory's name for people.
        sample: Sample that the figure was asked with; empty where it is not stated.
        score: The balanced accuracy.
        alike: The same asked with all kinds alike; None where it is not stored.
    """

    benchmark: str
    laboratory: str
    sample: str
    score: Metric
    alike: Metric | None


@dataclass(frozen=True)
class OtherLaboratoryScores:
    """Balanced accuracy in the validation laboratories: mean and worst are given together, never the best alone.

    Attributes:
        laboratories: One score a laboratory.
        missing: Names of the laboratories on which the model is not scored; its mean cannot be compared then.
    """

    laboratories: tuple[LaboratoryScore, ...]
    missing: tuple[str, ...] = ()

    @property
    def mean(self) -> Metric:
        """Mean over the laboratories."""
        return _mean([one.score for one in self.laboratories])

    @property
    def mean_alike(self) -> Metric | None:
        """The same asked with all kinds alike; None where it is not stored for each."""
        scores = [one.alike for one in self.laboratories if one.alike is not None]
        return _mean(scores) if len(scores) == len(self.laboratories) else None

    @property
    def worst(self) -> LaboratoryScore:
        """The laboratory with the lowest score."""
        return min(self.laboratories, key=lambda one: one.score.value)


def _mean(scores: Sequence[Metric]) -> Metric:
    """Mean of scores on independent pictures; its interval joins theirs as independent errors do."""
    value = float(np.mean([score.value for score in scores]))
    low, high = (
        float(np.sqrt(sum((score.value - (score.value if end is None else end)) ** 2 for score, end in ends)))
        / len(scores)
        for ends in ([(s, s.low) for s in scores], [(s, s.high) for s in scores])
    )
    return Metric(value=value, low=value - low, high=min(1.0, value + high))


def home_benchmark(entry: Entry) -> str | None:
    """The benchmark that measures an entry in its own laboratory.

    It is a published one without corruptions, of the entry's own data sets if possible; else the first it was tested on
    that is not published.
    """
    tests = [name for name, b in entry.evaluation.benchmarks.items() if b.role == "test"]
    known = published()
    plain = [name for name in tests if name in known and not known[name].corruptions]
    places = laboratories([*entry.data_sets, *(known[name].data for name in plain)])
    own = {places[name] for name in entry.data_sets}
    at_home = [name for name in plain if places[known[name].data] in own]
    order = [*entry.data_sets, *(known[name].data for name in at_home)]
    at_home.sort(key=lambda name: order.index(known[name].data))
    unpublished = [name for name in tests if name not in known]
    return next(iter([*at_home, *unpublished]), None)


def unseen_laboratories() -> list[str]:
    """Benchmarks of validation laboratories, which no model is trained on, for the leaderboard."""
    return [name for name, definition in published().items() if definition.leaderboard]


def other_laboratories(entry: Entry) -> OtherLaboratoryScores | None:
    """The entry's scores in the validation laboratories that are not its own; None if it was scored in none."""
    found, missing, own = [], [], laboratories_of(entry)
    for name in unseen_laboratories():
        data = published()[name].data_set
        if data.laboratory in own:
            continue
        record = entry.evaluation.benchmarks.get(name)
        if record is None or "balanced_accuracy" not in record.metrics:
            missing.append(data.title)
            continue
        alike = record.samples.get(ALIKE, {}).get("balanced_accuracy")
        score = record.metrics["balanced_accuracy"]
        found.append(LaboratoryScore(name, data.title, record.sample, score, alike))
    return OtherLaboratoryScores(tuple(found), tuple(missing)) if found else None


def cells(entry: Entry) -> dict[str, Cell]:
    """The entry's values by column; what was not measured is left out."""
    found: dict[str, Cell] = {}
    home = home_benchmark(entry)
    if home:
        _put(found, "home", entry, home, "balanced_accuracy")
        _put(found, "calibration", entry, home, "ece_calibrated" if is_scaled(entry) else "ece")
        _put(found, "corrupted", entry, f"{home}{CORRUPTED}", "corruption_error")
    away = other_laboratories(entry)
    if away is not None:
        mean, worst, names = away.mean, away.worst, tuple(one.benchmark for one in away.laboratories)
        found["away"] = _cell(mean, names, "balanced_accuracy")
        found["worst"] = _cell(worst.score, (worst.benchmark,), "balanced_accuracy")
    quality = next(iter(entry.evaluation.explanations.values()), None)
    for name, measured in quality.localisation.items() if quality else ():
        if is_on_frames(name):
            share = measured.pointing
            found["maps"] = Cell(share.value, share.low or 0.0, share.high or 1.0, (name,), "pointing")
    return found


def images_per_second(entry: Entry) -> float | None:
    """Measured speed of classification, None where it was not measured."""
    speed = (entry.evaluation.model_extra or {}).get("speed")
    value = speed.get("images_per_second") if isinstance(speed, dict) else None
    return float(value) if isinstance(value, int | float) else None


def table(entries: Sequence[Entry]) -> pd.DataFrame:
    """One row a model: id, model, COLUMNS with _low and _high, megabytes, parameters, images_per_second, leaky."""
    rows = []
    for entry in entries:
        row: dict[str, object] = {"id": entry.id, "model": entry.title}
        found = cells(entry)
        for name in COLUMNS:
            cell = found.get(name)
            for end in ("", "_low", "_high"):
                row[name + end] = getattr(cell, end.removeprefix("_") or "value") if cell else np.nan
            row[f"{name}_benchmark"] = cell.benchmark if cell else ""
        home = entry.evaluation.benchmarks.get(home_benchmark(entry) or "")
        rows.append(
            row
            | {
                "megabytes": entry.weights.bytes / 1e6 if entry.weights else np.nan,
                "parameters": entry.weights.parameters if entry.weights and entry.weights.parameters else np.nan,
                "images_per_second": images_per_second(entry) or np.nan,
                "leaky": bool(home and home.leaky),
            }
        )
    return pd.DataFrame(rows)


def best(entries: Sequence[Entry], column: str) -> str | None:
    """The entry that is significantly best in a column.

    Only models without a leaky split are ranked, and only where all were scored on the same pictures.

    Args:
        entries: The models.
        column: A key of COLUMNS.

    Returns:
        Id of the entry whose lead over every other one is significant: p-values of paired bootstraps, adjusted after
        Holm, below 0.05. None where there is no such entry.
    """
    if not COLUMNS[column].ranked:
        return None
    scored = {entry.id: (entry, cell) for entry in entries if (cell := cells(entry).get(column))}
    honest = {
        k: (entry, cell)
        for k, (entry, cell) in scored.items()
        if not any(entry.evaluation.benchmarks[name].leaky for name in cell.benchmarks)
    }
    if len(honest) < 2 or len({cell.benchmarks for _, cell in honest.values()}) > 1:
        return None
    sign = -1 if COLUMNS[column].lower_is_better else 1
    ranked = sorted(honest.values(), key=lambda item: -sign * item[1].value)
    try:
        lead = _estimate(*ranked[0])
        p_values = []
        for entry, cell in ranked[1:]:
            other = _estimate(entry, cell)
            if other[1] != lead[1]:
                return None
            p_values.append(_p_value(lead[0], other[0]))
            if p_values[-1] >= significance.SIGNIFICANCE_LEVEL:
                return None  # no need to compare the others; most columns end here
    except (EntryError, ValueError):
        return None
    return ranked[0][0].id if (significance.holm(p_values) < significance.SIGNIFICANCE_LEVEL).all() else None


def _estimate(entry: Entry, cell: Cell) -> tuple[BootstrapEstimate, str]:
    """Bootstrap draws of a stored value, and the pictures that it is about."""
    estimates, hashes = [], []
    for seed, name in enumerate(cell.benchmarks):
        predictions = read_predictions(entry, name).sort_values("file", ignore_index=True)
        labels, scaling = sorted(entry.evaluation.benchmarks[name].labels), scaling_on(entry, name)
        # a seed each: laboratories are drawn independently of each other, and alike for every model
        estimates.append(metrics.estimate(predictions, labels, cell.metric, scaling, seed))
        hashes.append(rows_hash(predictions))
    value = float(np.mean([one.value for one in estimates]))
    return BootstrapEstimate(value, np.mean([one.draws for one in estimates], axis=0)), " ".join(hashes)


def _p_value(first: BootstrapEstimate, second: BootstrapEstimate) -> float:
    """Two-sided bootstrap p-value of a paired difference (Efron & Tibshirani 1993, chapter 16)."""
    gap = first.draws - second.draws
    return float(min(1.0, 2 * max(min((gap <= 0).mean(), (gap >= 0).mean()), 1 / len(gap))))


def _put(found: dict[str, Cell], column: str, entry: Entry, benchmark: str, metric: str) -> None:
    record = entry.evaluation.benchmarks.get(benchmark)
    value: Metric | None = record.metrics.get(metric) if record else None
    if value is None:
        return
    cell = _cell(value, (benchmark,), metric)
    if column == "corrupted":  # an error is stored, an accuracy shown
        cell = Cell(1 - cell.value, 1 - cell.high, 1 - cell.low, cell.benchmarks, metric)
    found[column] = cell


def _cell(value: Metric, benchmarks: tuple[str, ...], metric: str) -> Cell:
    low = value.low if value.low is not None else value.value
    high = value.high if value.high is not None else value.value
    return Cell(value.value, low, high, benchmarks, metric)


def markdown(rows: pd.DataFrame) -> str:
    """A table of texts and numbers as Markdown."""
    texts = rows.map(lambda v: "–" if isinstance(v, float) and np.isnan(v) else str(v).replace("|", "\\|"))
    lines = ["| " + " | ".join(map(str, texts.columns)) + " |", "|" + "---|" * len(texts.columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in texts.itertuples(index=False))])


def in_words(rows: pd.DataFrame, leaders: Mapping[str, str | None]) -> pd.DataFrame:
    """The leaderboard in words: percent with intervals, the leaders in bold."""
    table = pd.DataFrame({"model": rows["model"]})
    for name, column in COLUMNS.items():
        texts = [
            column.missing if np.isnan(v) else f"{100 * v:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            for v, low, high in zip(rows[name], rows[f"{name}_low"], rows[f"{name}_high"], strict=True)
        ]
        table[column.title] = [
            f"**{t}**" if i == leaders.get(name) else t for t, i in zip(texts, rows["id"], strict=True)
        ]
    table["MB"] = [f"{v:.1f}" if np.isfinite(v) else "–" for v in rows["megabytes"]]
    table["images a second"] = [f"{v:,.0f}" if np.isfinite(v) else "–" for v in rows["images_per_second"]]
    return table
