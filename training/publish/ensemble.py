"""Make an ensemble of entries from their stored predictions: weights from validation, scores on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from training.prepare.dataset import TrainingDataError
from training.publish.card import renew_card
from training.publish.export import entry_config
from training.publish.records import benchmark_name, split_record
from training.recipe import Recipe, RecipeError
from training.recipe.ensembles import Ensemble
from zoo.benchmarks import get_benchmark, published
from zoo.benchmarks.eligibility import refusal
from zoo.entry import Benchmark, Entry, as_stored, load_entry, read_predictions
from zoo.entry.write import ScoredBenchmark, create_entry, update_benchmark, write_config
from zoo.scores import label_mapping
from zoo.scores.averages import Mean, mean_probabilities
from zoo.scores.predictions import label_arrays
from zoo.scores.temperature import MIN_PROBABILITY, Scaling, fit_temperature

ROLES = ("validation", "test")
DEVICE = "stored predictions of its members"  # in the place of a device in the records


def fit_weights(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Weights of the members with the least log loss of their weighted mean.

    Args:
        truth: Class numbers (n,).
        probabilities: Probabilities (members, n, classes).

    Returns:
        Weights (members,), at least 0 and adding up to 1. The loss is convex in them, so the minimum is unique.
    """
    true_class = probabilities[:, np.arange(len(truth)), truth].clip(MIN_PROBABILITY, 1)  # (members, n)
    count = len(true_class)

    def loss(weights: np.ndarray) -> float:
        return float(-np.log(weights @ true_class).mean())

    def gradient(weights: np.ndarray) -> np.ndarray:
        return -(true_class / (weights @ true_class)).mean(1)

    result = minimize(  # type: ignore[call-overload]  # the stubs do not accept lambdas in a constraint
        loss,
        np.full(count, 1 / count),
        jac=gradient,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": lambda _: np.ones(count)},
    )
    weights = result.x.clip(0, 1).round(4)
    return weights / weights.sum()


def write_ensemble(out: Path, recipe: Recipe, members: Sequence[Entry]) -> Entry:
    """Write the entry of an ensemble, whole or not at all.

    Args:
        out: Folder of the entry.
        recipe: The ensemble's recipe.
        members: Its members.

    Returns:
        The new entry.

    Raises:
        RecipeError: The recipe is no ensemble's.
        TrainingDataError: A member may have been trained on the others' test pictures, or keeps no predictions.
    """
    if recipe.ensemble is None:
        raise RecipeError(f"{recipe.id} is no ensemble: it names no members.")
    merged, mean = recipe.ensemble.same, recipe.ensemble.mean
    labels = members[0].labels if merged is None else recipe.labels
    leaky = any(benchmark.leaky for member in members for benchmark in member.evaluation.benchmarks.values())
    names = {role: benchmark_name(recipe, role, leaky) for role in ROLES}
    if not _need_validation(recipe.ensemble) and any(
        names["validation"] not in member.evaluation.benchmarks for member in members
    ):
        del names["validation"]
    tables = {role: _member_tables(members, name, labels, merged) for role, name in names.items()}
    weights = _weights(recipe.ensemble, tables, labels)
    means = {role: average_tables(tables[role], labels, weights, mean) for role in names}
    network = {
        "architecture": "ensemble",
        "model_args": {},
        "pretrained_cfg": members[0].config.pretrained_cfg.model_dump(mode="json"),
        "zoo": {
            "members": [member.id for member in members],
            "member_weights": weights.tolist(),
            "member_mean": mean,
            "deciding_member": recipe.ensemble.deciding,
            "same": merged,
        },
    }
    split = f"Trained, validated and tested on the split of its members: {', '.join(member.id for member in members)}."
    scaling = _fit_scaling(means["validation"], labels) if "validation" in means else Scaling(1.0, None)
    with create_entry(out) as folder:
        write_config(folder, entry_config(recipe, labels, network, {"weights": weights.tolist()}, split))
        for role, name in names.items():
            record = split_record(means[role], recipe, _split_facts(members[0], name), role, DEVICE, scaling)
            update_benchmark(folder, name, ScoredBenchmark(record, means[role]))
        renew_card(folder)
    return load_entry(out)


def average_tables(
    tables: Sequence[pd.DataFrame], labels: Sequence[str], weights: np.ndarray, mean: Mean = "arithmetic"
) -> pd.DataFrame:
    """Average prediction tables of the same pictures.

    Args:
        tables: One table per member, with the columns file, cell, label, and one per label.
        labels: The labels.
        weights: Weight of each member.
        mean: How they are averaged.

    Returns:
        A table of the same columns, in half precision as it is stored.
    """
    names = list(labels)
    table = tables[0][["file", "cell", "label"]].copy()
    table[names] = mean_probabilities([one[names].to_numpy(np.float64) for one in tables], weights, mean)
    return as_stored(table, names)


def _need_validation(ensemble: Ensemble) -> bool:
    return ensemble.weights == "fitted"


def _weights(ensemble: Ensemble, tables: Mapping[str, Sequence[pd.DataFrame]], labels: list[str]) -> np.ndarray:
    """Weights of the members: fitted on their validation tables, given by the recipe, or equal."""
    count = len(ensemble.members)
    if not _need_validation(ensemble):
        return np.full(count, 1 / count) if ensemble.weights == "equal" else np.array(ensemble.weights)
    known = tables["validation"]
    truth, _ = label_arrays(known[0], labels)
    return fit_weights(truth, np.stack([table[labels].to_numpy(np.float64) for table in known]))


def _fit_scaling(table: pd.DataFrame, labels: list[str]) -> Scaling:
    """Temperature scaling that fits the ensemble's answers on validation; the stored answers are without it."""
    truth, probabilities = label_arrays(table, labels)
    return Scaling(1.0, 1 / fit_temperature(truth, np.log(np.clip(probabilities, MIN_PROBABILITY, 1))))


def _split_facts(member: Entry, name: str) -> dict[str, Any]:
    """Facts about the split in a member's record of a benchmark."""
    record = _benchmark(member, name)
    return {"split_hash": record.split_hash, "leaky": record.leaky, "leak_share": record.leak_share}


def _benchmark(member: Entry, name: str) -> Benchmark:
    benchmark = member.evaluation.benchmarks.get(name)
    if benchmark is None:
        raise TrainingDataError(f"{member.id} was never scored on {name}; train it, then make the ensemble.")
    return benchmark


def _member_tables(
    members: Sequence[Entry], name: str, labels: Sequence[str], merged: Mapping[str, str] | None
) -> list[pd.DataFrame]:
    """The members' predictions on one benchmark in the ensemble's labels; row by row the same pictures."""
    tables = [read_predictions(member, name).sort_values("file", ignore_index=True) for member in members]
    same_files = all(table["file"].equals(tables[0]["file"]) for table in tables)
    if (
        not _unseen(members, name)
        or not same_files
        or not all(_labels_fit(member, labels, merged) for member in members)
    ):
        raise TrainingDataError(
            f"The members were not trained and tested on one split of {name}: the test pictures of one may be the "
            "training pictures of another. Train them with the same --split."
        )
    pairs = zip(tables, members, strict=True)
    return [_in_labels(table, member.labels, labels, merged or {}) for table, member in pairs]


def _unseen(members: Sequence[Entry], name: str) -> bool:
    """Whether no member was trained on pictures of a benchmark: all have one split, or it is known of each."""
    if len({_benchmark(member, name).split_hash for member in members}) == 1:
        return True
    return name in published() and all(refusal(member, get_benchmark(name)) is None for member in members)


def _labels_fit(member: Entry, labels: Sequence[str], merged: Mapping[str, str] | None) -> bool:
    """Whether a member's labels, merged as the recipe says, are the ensemble's."""
    if merged is None:
        return set(member.labels) == set(labels)
    return set(label_mapping.map_labels(member.labels, labels, merged).values()) == set(labels)


def _in_labels(
    table: pd.DataFrame, known: Sequence[str], labels: Sequence[str], merged: Mapping[str, str]
) -> pd.DataFrame:
    """A member's table in the ensemble's labels, without pictures of other classes."""
    names = label_mapping.map_labels(known, labels, merged)
    kept = table[table["label"].isin(names)]
    probabilities = label_mapping.map_probabilities(kept[list(known)].to_numpy(np.float64), known, labels, merged)
    facts = kept[["file", "cell", "label"]].assign(label=kept["label"].map(names)).reset_index(drop=True)
    return pd.concat([facts, pd.DataFrame(probabilities, columns=list(labels))], axis=1)
