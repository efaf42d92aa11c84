"""Scores of a detector on fields, from one table of marked and found cells, with intervals over fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from zoo.detection.found import Found
from zoo.detection.matching import Matches, average_precision, iou, match, recall_at
from zoo.detection.objects import OBJECTS
from zoo.entry.schema import Metric
from zoo.scores.bootstrap import percentile_interval

COLUMNS = ("file", "marked", "object", "left", "top", "right", "bottom", "confidence")
BOX = ["left", "top", "right", "bottom"]
PRECISION = 0.97  # at which recall is stated
RESAMPLES = 500  # of fields, for 95 % intervals
SEED = 0
SPREAD = 1.96  # standard deviations that 95 % of the differences lie within
AGREEING = 0.5  # overlap from which a found box is that of a marked cell


@dataclass(frozen=True)
class FieldResult:
    """One field: matches by object, and at the detector's limits the counts and the relative errors of diameters.

    Attributes:
        matches: By number of the object.
        found: Number of each object whose confidence reaches its limit.
        marked: Number of each object that is marked.
        diameters: Relative errors of the mean of a box's sides, of matched cells, by number of the object.
    """

    matches: tuple[Matches, ...]
    found: tuple[int, ...]
    marked: tuple[int, ...]
    diameters: tuple[np.ndarray, ...]


def field_results(table: pd.DataFrame, limits: Mapping[str, float]) -> list[FieldResult]:
    """Results of each file of a table with `COLUMNS`; a field without any cell has a row without a box."""
    return [_field(rows, limits) for _, rows in table.groupby("file", sort=True)]


def score_fields(table: pd.DataFrame, limits: Mapping[str, float]) -> dict[str, Metric]:
    """Scores with 95 % intervals over fields.

    Args:
        table: Marked and found cells, with `COLUMNS`.
        limits: Confidence from which each object counts.

    Returns:
        For each object "white cell: AP50" (average precision at an overlap of 0.5), "AP50:95", "recall" and "precision"
        at its limit, "recall at precision 0.97", "count error" (median of the absolute relative errors of fields),
        "mean count error", "count bias" and "count spread" (Bland–Altman: mean difference and 1.96 standard deviations,
        in cells), "exact counts" and "too high counts" (shares of fields), "diameter error" (median). "mean: AP50" is
        the mean over objects.
    """
    fields = field_results(table, limits)
    random = np.random.default_rng(SEED)
    draws = [random.integers(len(fields), size=len(fields)) for _ in range(RESAMPLES)]
    values = _scores(fields, limits)
    resampled = [_scores([fields[n] for n in draw], limits) for draw in draws]
    scored = {}
    for name, value in values.items():
        interval = percentile_interval(value, np.array([one[name] for one in resampled]))
        if np.isfinite(value):
            scored[name] = Metric(value=value, low=interval.low, high=interval.high)
    return scored


def count_table(table: pd.DataFrame, limits: Mapping[str, float]) -> pd.DataFrame:
    """Numbers of each object in each field of a table with `COLUMNS`.

    Returns:
        A row a field and object: file, object, marked, and found at the limits.
    """
    counted = table["marked"] | (table["confidence"] >= table["object"].map(dict(limits)))
    cells = table[counted & table["object"].isin(OBJECTS)]
    sizes = cells.groupby(["file", "object", "marked"]).size().unstack(fill_value=0)
    every = pd.MultiIndex.from_product([sorted(table["file"].unique()), OBJECTS], names=["file", "object"])
    counts = sizes.reindex(every, fill_value=0).reindex(columns=[True, False], fill_value=0)
    return counts.set_axis(["marked", "found"], axis=1).reset_index()


def agreement(differences: np.ndarray) -> tuple[float, float]:
    """Bland–Altman: mean difference of two counts of each field, and half the width of its 95 % limits."""
    return float(differences.mean()), SPREAD * float(differences.std())


def _field(rows: pd.DataFrame, limits: Mapping[str, float]) -> FieldResult:
    rows = rows[rows["object"].isin(OBJECTS)]
    numbers = rows["object"].map(OBJECTS.index).to_numpy(np.int64)
    boxes, confidences = rows[BOX].to_numpy(np.float32), rows["confidence"].to_numpy(np.float32)
    is_marked = rows["marked"].to_numpy(bool)
    order = np.flatnonzero(~is_marked)[np.argsort(-confidences[~is_marked], kind="stable")]
    found = Found(boxes[order], confidences[order], numbers[order])
    wanted, wanted_numbers = boxes[is_marked], numbers[is_marked]
    matches, counts, marked, diameters = [], [], [], []
    for number, name in enumerate(OBJECTS):
        matches.append(match(found, wanted, wanted_numbers, number))
        counted = (found.numbers == number) & (found.confidences >= limits[name])
        counts.append(int(counted.sum()))
        marked.append(int((wanted_numbers == number).sum()))
        diameters.append(_diameter_errors(found.boxes[counted], wanted[wanted_numbers == number]))
    return FieldResult(tuple(matches), tuple(counts), tuple(marked), tuple(diameters))


def _diameter_errors(found: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Relative errors of the diameters of found boxes that overlap a marked one."""
    if not len(found) or not len(marked):
        return np.zeros(0)
    overlap = iou(found, marked)
    best = overlap.argmax(axis=1)
    rows = overlap.max(axis=1) >= AGREEING
    sides = [(box[:, 2:] - box[:, :2]).mean(axis=1) for box in (found[rows], marked[best[rows]])]
    return np.asarray(sides[0] / np.maximum(sides[1], 1e-6) - 1)


def _scores(fields: Sequence[FieldResult], limits: Mapping[str, float]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for number, name in enumerate(OBJECTS):
        scores |= {f"{name}: {key}": value for key, value in _of_object(fields, number, limits[name]).items()}
    precisions = [scores[key] for name in OBJECTS if np.isfinite(scores[key := f"{name}: AP50"])]
    scores["mean: AP50"] = float(np.mean(precisions)) if precisions else np.nan
    return scores


def _of_object(fields: Sequence[FieldResult], number: int, limit: float) -> dict[str, float]:
    matches = [field.matches[number] for field in fields]
    levels = average_precision(matches)
    hits = sum(int(one.correct[0][one.confidences >= limit].sum()) for one in matches)
    found = np.array([field.found[number] for field in fields])
    marked = np.array([field.marked[number] for field in fields])
    errors = np.abs(found - marked)[marked > 0] / marked[marked > 0]
    differences = found - marked
    bias, spread = agreement(differences)
    diameters = np.abs(np.concatenate([field.diameters[number] for field in fields]))
    return {
        "AP50": float(levels[0]),
        "AP50:95": float(levels.mean()),
        "recall": hits / marked.sum() if marked.sum() else np.nan,
        "precision": hits / found.sum() if found.sum() else np.nan,
        "recall at precision 0.97": recall_at(matches, PRECISION)[0] if marked.sum() else np.nan,
        "count error": _of(np.median, errors),
        "mean count error": _of(np.mean, errors),
        "count bias": bias,
        "count spread": spread,
        "exact counts": float((differences == 0).mean()),
        "too high counts": float((differences > 0).mean()),
        "diameter error": _of(np.median, diameters),
    }


def _of(reduce: Callable[[np.ndarray], np.floating], values: np.ndarray) -> float:
    return float(reduce(values)) if len(values) else float("nan")
