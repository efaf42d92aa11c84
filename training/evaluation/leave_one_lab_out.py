"""Leave-one-laboratory-out evaluation of a recipe.

For each of the recipe's laboratories, and for each of some seeds, a model is trained without it and scored on it, and
on the validation laboratories, which no model is trained on (`training.evaluation.left_out_scores`). The models are
kept in a folder, so that an interrupted evaluation can be resumed. The predictions of the first seed go into an entry
of the same recipe as a benchmark of their own, together with the temperature that confidence needs in an unseen
laboratory; both describe the recipe, not that entry's weights. Recipes are chosen by these scores: laboratories that
are reserved for the final test take no part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import Accelerator

from training.evaluation.crossval import predictions_on_test
from training.evaluation.left_out_scores import LeftOutModel
from training.fit.averaging import has_unfinished_run
from training.prepare.dataset import TrainingDataError
from training.prepare.laboratories import laboratories
from training.publish.card import renew_card
from training.publish.records import benchmark_record
from training.recipe import Recipe
from training.run import TrainingJob, train
from zoo.benchmarks import LEFT_OUT, scoring
from zoo.data.registry import joins_of
from zoo.entry import EVALUATION, Entry, EntryError, as_stored, load_entry
from zoo.entry.write import ScoredBenchmark, update_benchmark, update_section
from zoo.scores import label_mapping, metrics
from zoo.scores.calibration import scaling_of
from zoo.scores.predictions import label_arrays
from zoo.scores.temperature import AS_STORED, MIN_PROBABILITY, fit_temperature

Log = Callable[[str], None]
LaboratoryPredictions = tuple[str, Sequence[str], pd.DataFrame]  # laboratory, the model's labels, its predictions there


@dataclass(frozen=True)
class UnseenLaboratories:
    """Result of a leave-one-laboratory-out evaluation.

    Attributes:
        table: Predictions on all laboratories, in `labels`.
        labels: The labels that all laboratories have.
        scores: Laboratory → scores there, as evaluation.json keeps them.
        temperature: Temperature that the answers need in an unseen laboratory to be calibrated.
    """

    table: pd.DataFrame
    labels: list[str]
    scores: dict[str, dict[str, dict[str, float]]]
    temperature: float


def leave_one_laboratory_out(
    recipe: Recipe, data: Path, place: Path, accelerator: Accelerator, log: Log, seeds: int = 1
) -> list[LeftOutModel]:
    """Train the models that do not exist yet.

    Args:
        recipe: A recipe that mixes several laboratories.
        data: Folder that holds the laboratories' data sets.
        place: Folder that holds one entry a laboratory, and a folder of such entries for each further seed.
        accelerator: Where to train.
        log: Called with a line for each model that is trained.
        seeds: Number of models a laboratory: the recipe's own seed and the ones after it.

    Returns:
        One model a seed and laboratory.

    Raises:
        TrainingDataError: The recipe mixes no laboratories, a model cannot be read, or training refuses the data.
    """
    names = laboratories(recipe.data.mix)
    if len(names) < 2:
        raise TrainingDataError(f"{recipe.id} trains on one laboratory: leaving it out would leave no data.")
    models = []
    for seed in range(recipe.seed, recipe.seed + seeds):
        folder = place if seed == recipe.seed else place / f"seed-{seed}"
        for name in names:
            out, work = folder / f"without-{name}", folder / f"without-{name}.work"
            if not (out / EVALUATION).exists():
                log(f"== {recipe.id} without {name}, seed {seed}")
                reduced = recipe.data.model_copy(update={"left_out": name})
                changed = recipe.model_copy(update={"data": reduced, "seed": seed})
                train(TrainingJob(changed, data, out, work, resume=has_unfinished_run(work)), accelerator)
            try:
                models.append(LeftOutModel(seed, name, load_entry(out)))
            except EntryError as error:
                raise TrainingDataError(f"{out} cannot be read: {error} Delete it to train it again.") from error
    return models


def predictions_of(models: Sequence[LeftOutModel]) -> list[LaboratoryPredictions]:
    """The predictions of the models of the first seed, each on the laboratory that it was trained without."""
    first = [model for model in models if model.seed == models[0].seed]
    return [(model.laboratory, model.entry.labels, predictions_on_test(model.entry)) for model in first]


def score_unseen_laboratories(predictions: Sequence[LaboratoryPredictions]) -> UnseenLaboratories:
    """Score predictions on unseen laboratories, each in its own labels, and join them in the labels that all have.

    Args:
        predictions: For each laboratory its name, the labels of the model that was trained without it, and that
            model's predictions there.

    Returns:
        The joint result.
    """
    label_sets = [
        set(label_mapping.map_labels(sorted(set(table["label"])), labels, {})) for _, labels, table in predictions
    ]
    shared = sorted(set.intersection(*label_sets))
    joins = joins_of(name for name, _, _ in predictions)
    parts, scores = [], {}
    for name, labels, table in predictions:
        known = sorted(set(label_mapping.map_labels(sorted(set(table["label"])), labels, {})))
        own = _in_labels(table, labels, known, joins)
        scores[name] = metrics.as_dict(scoring.intervals(scoring.score(own, known, AS_STORED)))
        parts.append(_in_labels(table, labels, shared, joins))
    table = pd.concat(parts, ignore_index=True).sort_values("file", ignore_index=True)
    truth, probabilities = label_arrays(table, shared)
    logits = np.log(np.clip(probabilities, MIN_PROBABILITY, 1))
    return UnseenLaboratories(table, shared, scores, fit_temperature(truth, logits, _row_weights(table)))


def _in_labels(
    table: pd.DataFrame, labels: Sequence[str], wanted: Sequence[str], joins: Mapping[str, str]
) -> pd.DataFrame:
    """The rows of a model's predictions that have some labels, answered among these."""
    kept = table[table["label"].isin(wanted)]
    mapped = label_mapping.map_probabilities(kept[list(labels)].to_numpy(), labels, wanted, joins)
    return pd.concat(
        [kept[["file", "cell", "label"]], pd.DataFrame(mapped, index=kept.index, columns=list(wanted))], axis=1
    )


def _row_weights(table: pd.DataFrame) -> np.ndarray:
    """Weight of each row (n,): copies of a cell count as one, and cell kinds and laboratories alike.

    How often each kind occurs in an unseen laboratory is not known.
    """
    laboratory = table["cell"].str.partition("/")[0]
    weights = 1 / table.groupby("cell")["cell"].transform("size")
    weights /= weights.groupby([laboratory, table["label"]]).transform("sum")
    return (weights / weights.groupby(laboratory).transform("sum")).to_numpy()


def add_to_entry(entry: Entry, recipe: Recipe, result: UnseenLaboratories, device: str) -> str:
    """Write a leave-one-laboratory-out result into an entry.

    Args:
        entry: An entry of the same recipe.
        recipe: The recipe.
        result: Predictions, scores and temperature.
        device: Name of the device that computed them.

    Returns:
        Name of the benchmark.

    Raises:
        TrainingDataError: The entry was made by another recipe.
    """
    if entry.recipe.get("id") != recipe.id:
        raise TrainingDataError(f"{entry.id} was not made by {recipe.id}: this result does not describe it.")
    name = f"{recipe.data.name}{LEFT_OUT}"
    description = {
        "title": "Laboratories left out of training, each in turn",
        "role": "test",
        "data": recipe.data.credit,
        "split_hash": "",
        "leaky": False,
        "leak_share": 0.0,
        "notes": [
            f"Predictions of {len(result.scores)} models of this recipe, each trained without the laboratory that it "
            f"predicts, for {recipe.epochs} epochs. They describe the recipe, not these weights. Recipes are chosen by "
            "this score: it is a validation, not a test."
        ],
        "seed": recipe.seed,
        "device": device,
    }
    stored = as_stored(result.table, result.labels)
    scored = ScoredBenchmark(benchmark_record(stored, scaling_of(entry), description), result.table)
    update_benchmark(entry.folder, name, scored)
    balanced = {laboratory: scores["balanced_accuracy"] for laboratory, scores in result.scores.items()}
    update_section(entry.folder, "elsewhere", {"temperature": result.temperature, "balanced": balanced})
    renew_card(entry.folder)
    return name
