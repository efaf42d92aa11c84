"""How does a recipe do in a laboratory it never saw? Trained without each of its laboratories in turn, judged there.

The leave-one-laboratory-out models are kept in a folder and gone on with; what they answer goes into an entry of the
same recipe, as a benchmark of its own and as the temperature that confidence follows out there: both tell of the
recipe, not of that entry's weights. Recipes are chosen by this figure: no laboratory that is kept for the end is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import Accelerator

from training.evaluation.crossval import tested
from training.fit.averaging import has_unfinished_run
from training.prepare.dataset import TrainingDataError
from training.prepare.laboratories import laboratories
from training.publish.card import renew_card
from training.publish.export import record
from training.recipe import Recipe
from training.run import TrainingJob, train
from zoo.benchmarks import LEFT_OUT, scoring
from zoo.data.registry import joins_of
from zoo.entry import EVALUATION, BrokenEntry, Entry, as_stored, read_entry
from zoo.entry.write import ScoredBenchmark, update_benchmark, update_section
from zoo.scores import label_mapping, metrics
from zoo.scores.calibration import scaling_of
from zoo.scores.predictions import label_arrays
from zoo.scores.temperature import AS_STORED, MIN_PROBABILITY, fit_temperature

Say = Callable[[object], None]


@dataclass(frozen=True)
class Found:
    """What the models answered in the laboratories left out of their training, and what follows.

    `table` is a prediction table among the `labels` that all laboratories know, `scores` the stored metrics of each
    laboratory's part, `temperature` what the answers have to be divided by (as logarithms) to be as sure as right.
    """

    table: pd.DataFrame
    labels: list[str]
    scores: dict[str, dict]
    temperature: float


def leave_out(recipe: Recipe, data: Path, place: Path, accelerator: Accelerator, say: Say) -> Found:
    """Train what is not there yet, one model a laboratory, and judge each where it never was.

    Raises TrainingDataError if the recipe mixes no laboratories, and whatever training raises.
    """
    places = laboratories(recipe.data.mix)
    if len(places) < 2:
        raise TrainingDataError(f"{recipe.id} trains on one laboratory: there is none to leave out.")
    tables = {}
    for name in places:
        out = place / f"without-{name}"
        if not (out / EVALUATION).exists():
            say(f"== {recipe.id} without {name}")
            own = recipe.model_copy(update={"data": recipe.data.model_copy(update={"left_out": name})})
            work = place / f"without-{name}.work"
            train(TrainingJob(own, data, out, work, resume=has_unfinished_run(work)), accelerator)
        entry = read_entry(out)
        if isinstance(entry, BrokenEntry):
            raise TrainingDataError(f"{out} cannot be read: {entry.reason} Delete it to train it again.")
        tables[name] = (entry, tested(entry))
    return judge([(name, entry.labels, table) for name, (entry, table) in tables.items()])


def judge(answers: Sequence[tuple[str, Sequence[str], pd.DataFrame]]) -> Found:
    """What (laboratory left out, labels, prediction table there) of several models tell together."""
    kinds = [set(label_mapping.map_labels(sorted(set(table["label"])), labels, {})) for _, labels, table in answers]
    wanted = sorted(set.intersection(*kinds))
    joins = joins_of(name for name, _, _ in answers)
    parts, scores = [], {}
    for name, labels, table in answers:
        kept = table[table["label"].isin(wanted)]
        shares = label_mapping.map_probabilities(kept[list(labels)].to_numpy(), labels, wanted, joins)
        part = pd.concat(
            [kept[["file", "cell", "label"]], pd.DataFrame(shares, index=kept.index, columns=wanted)], axis=1
        )
        scores[name] = metrics.as_dict(scoring.intervals(scoring.score(part, wanted, AS_STORED)))
        parts.append(part)
    whole = pd.concat(parts, ignore_index=True).sort_values("file", ignore_index=True)
    truth, shares = label_arrays(whole, wanted)
    logits = np.log(np.clip(shares, MIN_PROBABILITY, 1))
    return Found(whole, wanted, scores, fit_temperature(truth, logits, _weights(whole)))


def _weights(table: pd.DataFrame) -> np.ndarray:
    """How much each row counts (n,): copies of a cell as one, kinds alike, laboratories alike.

    Nobody knows how often which kind will be met elsewhere.
    """
    place = table["cell"].str.partition("/")[0]
    weights = 1 / table.groupby("cell")["cell"].transform("size")
    weights /= weights.groupby([place, table["label"]]).transform("sum")
    return (weights / weights.groupby(place).transform("sum")).to_numpy()


def add(entry: Entry, recipe: Recipe, found: Found, device: str) -> str:
    """Put what was found into an entry; returns the benchmark's name.

    Raises TrainingDataError if the entry was made by another recipe.
    """
    if entry.recipe.get("id") != recipe.id:
        raise TrainingDataError(f"{entry.id} was not made by {recipe.id}: this would tell nothing of it.")
    name = f"{recipe.data.name}{LEFT_OUT}"
    told = {
        "title": "Laboratories left out of training, each in turn",
        "role": "test",
        "data": recipe.data.credit,
        "split_hash": "",
        "leaky": False,
        "leak_share": 0.0,
        "notes": [
            f"Answers of {len(found.scores)} models of this recipe, each trained without the laboratory that it "
            f"answers for, for {recipe.epochs} epochs; they tell of the recipe, not of these very weights. It is what "
            "recipes are chosen by: a validation, no test."
        ],
        "seed": recipe.seed,
        "device": device,
    }
    stored = as_stored(found.table, found.labels)
    update_benchmark(entry.folder, name, ScoredBenchmark(record(stored, scaling_of(entry), told), found.table))
    balanced = {place: scores["balanced_accuracy"] for place, scores in found.scores.items()}
    update_section(entry.folder, "elsewhere", {"temperature": found.temperature, "balanced": balanced})
    renew_card(entry.folder)
    return name
