"""Leave-one-laboratory-out evaluation of a recipe.

For each of the recipe's laboratories a model is trained without it and scored on it. The models are kept in a folder,
so that an interrupted evaluation can be resumed. The predictions go into an entry of the same recipe as a benchmark of
their own, together with the temperature that confidence needs in an unseen laboratory; both describe the recipe, not
that entry's weights. Recipes are chosen by these scores: laboratories that are reserved for the final test take no
part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import Accelerator

from training.evaluation.crossval import predictions_on_test
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
    recipe: Recipe, data: Path, place: Path, accelerator: Accelerator, log: Log
) -> UnseenLaboratories:
    """Train the models that do not exist yet, and score each on the laboratory that it was trained without.

    Args:
        recipe: A recipe that mixes several laboratories.
        data: Folder that holds the laboratories' data sets.
        place: Folder that holds one entry a laboratory.
        accelerator: Where to train.
        log: Called with a line for each model that is trained.

    Returns:
        The joint result.

    Raises:
        TrainingDataError: The recipe mixes no laboratories, a model cannot be read, or training refuses the data.
    """
    names = laboratories(recipe.data.mix)
    if len(names) < 2:
        raise TrainingDataError(f"{recipe.id} trains on one laboratory: leaving it out would leave no data.")
    predictions: list[LaboratoryPredictions] = []
    for name in names:
        out, work = place / f"without-{name}", place / f"without-{name}.work"
        if not (out / EVALUATION).exists():
            log(f"== {recipe.id} without {name}")
            reduced = recipe.model_copy(update={"data": recipe.data.model_copy(update={"left_out": name})})
            train(TrainingJob(reduced, data, out, work, resume=has_unfinished_run(work)), accelerator)
        try:
            entry = load_entry(out)
        except EntryError as error:
            raise TrainingDataError(f"{out} cannot be read: {error} Delete it to train it again.") from error
        predictions.append((name, entry.labels, predictions_on_test(entry)))
    return score_unseen_laboratories(predictions)


def score_unseen_laboratories(predictions: Sequence[LaboratoryPredictions]) -> UnseenLaboratories:
    """Score predictions on unseen laboratories in the labels that all of them have.

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
        kept = table[table["label"].isin(shared)]
        mapped = label_mapping.map_probabilities(kept[list(labels)].to_numpy(), labels, shared, joins)
        columns = [kept[["file", "cell", "label"]], pd.DataFrame(mapped, index=kept.index, columns=shared)]
        part = pd.concat(columns, axis=1)
        scores[name] = metrics.as_dict(scoring.intervals(scoring.score(part, shared, AS_STORED)))
        parts.append(part)
    table = pd.concat(parts, ignore_index=True).sort_values("file", ignore_index=True)
    truth, probabilities = label_arrays(table, shared)
    logits = np.log(np.clip(probabilities, MIN_PROBABILITY, 1))
    return UnseenLaboratories(table, shared, scores, fit_temperature(truth, logits, _row_weights(table)))


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
