"""How is an ensemble made of entries? From their stored predictions alone: weights on validation, scores on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from training.prepare.dataset import TrainingDataError
from training.publish.card import renew_card
from training.publish.export import benchmark_name, config, judge
from training.recipe import Recipe
from zoo.entry import Benchmark, Entry, load_entry, read_predictions
from zoo.entry.write import ScoredBenchmark, create_entry, update_benchmark, write_config
from zoo.scores import label_mapping
from zoo.scores.predictions import label_arrays
from zoo.scores.temperature import MIN_PROBABILITY, Scaling, fit_temperature


def fit_weights(truth: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Weights (m,), at least 0 and adding up to 1, of least log loss of the mean of `shares` (m, n, classes).

    `truth` are label numbers (n,). The loss is convex in the weights, so there is but one least.
    """
    chosen = shares[:, np.arange(len(truth)), truth].clip(MIN_PROBABILITY, 1)  # (m, n)
    count = len(chosen)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = weights @ chosen
        return float(-np.log(mixed).mean()), -(chosen / mixed).mean(1)

    found = minimize(
        loss,
        np.full(count, 1 / count),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": lambda _: np.ones(count)},
    )
    weights = found.x.clip(0, 1).round(4)
    return weights / weights.sum()


def write_ensemble(out: Path, recipe: Recipe, members: Sequence[Entry]) -> Entry:
    """Write the entry folder of an ensemble of `members`, whole or not at all.

    Raises TrainingDataError if they were not trained and tested on one split, or keep no predictions.
    """
    leaky = any(b.leaky for member in members for b in member.evaluation.benchmarks.values())
    names = {role: benchmark_name(recipe, role, leaky) for role in ("validation", "test")}
    records = {role: [_record(member, name) for member in members] for role, name in names.items()}
    same = recipe.ensemble.same if recipe.ensemble else None
    labels = members[0].labels if same is None else recipe.labels
    tables = {role: _tables(members, name, labels, same) for role, name in names.items()}
    truth, _ = label_arrays(tables["validation"][0], labels)
    shares = np.stack([table[labels].to_numpy(np.float64) for table in tables["validation"]])
    fitted = recipe.ensemble is not None and recipe.ensemble.weights == "fitted"
    weights = fit_weights(truth, shares) if fitted else np.full(len(members), 1 / len(members))
    judged = {}
    both = {role: mixed(tables[role], labels, weights) for role in names}
    truth, shares = label_arrays(both["validation"], labels)
    scaling = Scaling(1.0, 1 / fit_temperature(truth, np.log(np.clip(shares, MIN_PROBABILITY, 1))))
    for role, name in names.items():
        table = both[role]
        first = records[role][0]
        facts = {"split_hash": first.split_hash, "leaky": first.leaky, "leak_share": first.leak_share}
        judged[name] = ScoredBenchmark(
            judge(table, recipe, facts, role, "stored predictions of its members", scaling), table
        )
    network = {
        "architecture": "ensemble",
        "model_args": {},
        "pretrained_cfg": members[0].config.pretrained_cfg.model_dump(mode="json"),
        "zoo": {"members": [member.id for member in members], "member_weights": weights.tolist(), "same": same},
    }
    with create_entry(out) as place:
        told = f"Trained, validated and tested on the split of its members: {', '.join(m.id for m in members)}."
        write_config(place, config(recipe, labels, network, {"weights": weights.tolist()}, told))
        for name, scored in judged.items():
            update_benchmark(place, name, scored)
        renew_card(place)
    return load_entry(out)


def mixed(tables: Sequence[pd.DataFrame], labels: Sequence[str], weights: np.ndarray) -> pd.DataFrame:
    """The prediction table of an ensemble, in half precision as it is stored, of its members' tables in its labels."""
    mean = np.average([table[list(labels)].to_numpy(np.float64) for table in tables], axis=0, weights=weights)
    table = tables[0][["file", "cell", "label"]].copy()
    table[list(labels)] = mean.astype(np.float16).astype(np.float32)
    return table


def _record(member: Entry, name: str) -> Benchmark:
    found = member.evaluation.benchmarks.get(name)
    if found is None:
        raise TrainingDataError(f"{member.id} was never scored on {name}; train it, then make the ensemble.")
    return found


def _tables(
    members: Sequence[Entry], name: str, labels: Sequence[str], same: Mapping[str, str] | None
) -> list[pd.DataFrame]:
    """The members' predictions on one benchmark among `labels`, row by row the same pictures."""
    hashes = {_record(member, name).split_hash for member in members}
    tables = [read_predictions(member, name).sort_values("file", ignore_index=True) for member in members]
    alike = all(table["file"].equals(tables[0]["file"]) for table in tables)
    known = [set(label_mapping.map_labels(member.labels, labels, same or {}).values()) for member in members]
    strange = any(found != set(labels) for found in known) or (
        same is None and any(set(member.labels) != set(labels) for member in members)
    )
    if len(hashes) > 1 or not alike or strange:
        raise TrainingDataError(
            f"The members were not trained and tested on one split of {name}: the test pictures of one may be the "
            "training pictures of another. Train them with the same --split."
        )
    return [_among(table, member.labels, labels, same or {}) for table, member in zip(tables, members, strict=True)]


def _among(table: pd.DataFrame, known: Sequence[str], labels: Sequence[str], same: Mapping[str, str]) -> pd.DataFrame:
    """A member's table among `labels`; pictures of other kinds are no question that it can be asked."""
    names = label_mapping.map_labels(known, labels, same)
    kept = table[table["label"].isin(names)]
    shares = label_mapping.map_probabilities(kept[list(known)].to_numpy(np.float64), known, labels, same)
    told = kept[["file", "cell", "label"]].assign(label=kept["label"].map(names)).reset_index(drop=True)
    return pd.concat([told, pd.DataFrame(shares, columns=list(labels))], axis=1)
