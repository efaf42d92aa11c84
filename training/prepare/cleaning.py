"""Cleaning of training pictures and balancing of classes, as options of a recipe; each reports what it did.

Only training pictures are touched: a test set that was cleaned by the same rules as training would flatter the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.prepare.splits import Split
from training.recipe import Balance, Clean

LEAST_SHARE = 1e-4  # of a label in training: a prior is divided by it


@dataclass(frozen=True)
class Suspects:
    """Rows that an audit doubts: `outliers`, likely `label_errors`, and `contradictory`, whose cell has two labels."""

    outliers: frozenset[int]
    label_errors: frozenset[int]
    contradictory: frozenset[int]


def clean(
    split: Split, rules: Clean, subjects: Sequence[str], pixels: Sequence[str], suspects: Suspects | None
) -> Split:
    """The split with training rows taken out as the rules say; what each rule took is in `left_out`.

    `subjects` names what each row shows. Raises ValueError if a rule needs an audit and there is none.
    """
    rows = split.rows["train"]
    told = dict(split.left_out)
    steps: list[tuple[str, np.ndarray]] = []
    if rules.duplicates != "keep":
        keys = pixels if rules.duplicates == "pixel" else subjects
        named = {"pixel": "identical pixels", "near": "copy of another picture"}[rules.duplicates]
        steps.append((named, _repeated(rows, keys)))
    if rules.needs_audit and suspects is None:
        raise ValueError("The rules on outliers, label errors and contradictory labels need an audit.")
    if suspects is not None:
        for wanted, name, found in (
            (rules.outliers, "outlier", suspects.outliers),
            (rules.label_errors, "likely label error", suspects.label_errors),
            (rules.contradictory, "contradictory label", suspects.contradictory),
        ):
            if wanted:
                steps.append((name, np.isin(rows, sorted(found))))
    gone = np.zeros(len(rows), bool)
    for name, hit in steps:
        count = int((hit & ~gone).sum())
        if count:
            told[f"training: {name}"] = count
        gone |= hit
    return replace(split, rows={**split.rows, "train": rows[~gone]}, left_out=told)


def _repeated(rows: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    """Mask of the `rows` that repeat the key of an earlier one, bool (n,)."""
    _, first = np.unique([keys[row] for row in rows], return_index=True)
    again = np.ones(len(rows), bool)
    again[first] = False
    return again


def resample(split: Split, balance: Balance, labels: np.ndarray, seed: int) -> Split:
    """Training rows with as many of each class as the recipe's [balance] says; `seed` is of what is drawn."""
    rows = split.rows["train"]
    counts = {label: int((labels[rows] == label).sum()) for label in np.unique(labels[rows])}
    if balance.resample == "none" or not counts:
        return split
    fewest, most = balance.class_sizes or (1, len(rows))
    targets = {
        "downsample": dict.fromkeys(counts, min(counts.values())),
        "oversample": dict.fromkeys(counts, max(counts.values())),
        "within": {label: min(max(count, fewest), most) for label, count in counts.items()},
        "bootstrap": counts,
    }[balance.resample]
    random = np.random.default_rng([seed, 0])
    parts = []
    for label in counts:
        own, target = rows[labels[rows] == label], targets[label]
        if balance.resample == "bootstrap":
            parts.append(random.choice(own, target))
            continue
        whole = np.tile(own, target // len(own))
        parts.append(np.concatenate([whole, random.permutation(own)[: target - len(whole)]]))
    chosen = np.sort(np.concatenate(parts))
    told = dict(split.left_out)
    if balance.resample == "downsample":
        told["training: downsampled to the rarest class"] = len(rows) - len(chosen)
    return replace(split, rows={**split.rows, "train": chosen}, left_out=told)


def trained_shares(rules: Balance, split: Split, labels: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Share of each label in the loss of training: what a network's probabilities take for granted.

    Args:
        rules: How the recipe balances.
        split: The split that is trained on, resampled where the recipe says so.
        labels: The label of each row.
        names: The labels to answer for.

    Returns:
        Shares that sum to 1; a label without a training picture has the least that is allowed, not 0.
    """
    known = np.array(labels)
    weights, rows = row_weights(rules, split, known, split.cells), split.rows["train"]
    sums = np.array([weights[rows[known[rows] == name]].sum() for name in names])
    sums = sums.clip(LEAST_SHARE * sums.sum())
    return dict(zip(names, (sums / sums.sum()).round(6).tolist(), strict=True))


def row_weights(rules: Balance, split: Split, labels: np.ndarray, subjects: Sequence[str]) -> np.ndarray:
    """Weight of each row's loss (n,), 1 on average over training: by class, source cell and laboratory."""
    weights = np.ones(len(labels))
    rows = split.rows["train"]
    if rules.sample_weights:
        _, place, sizes = np.unique([subjects[row] for row in rows], return_inverse=True, return_counts=True)
        weights[rows] /= sizes[place]
    if rules.laboratories:
        # a mixed data set's cells are named after their laboratory: see training.prepare.laboratories
        places = np.array([subjects[row].partition("/")[0] for row in rows])
        for place in np.unique(places):
            own = rows[places == place]
            weights[own] /= weights[own].sum() ** rules.laboratories
    if rules.class_weights:
        # inverse to frequency, counted in what each picture already weighs
        for label in np.unique(labels[rows]):
            own = rows[labels[rows] == label]
            weights[own] /= weights[own].sum()
    return weights / weights[rows].mean()
