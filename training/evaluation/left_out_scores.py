"""Balanced accuracy of a recipe's models in laboratories that they were not trained on, over seeds.

Each training laboratory is scored by the models that were trained without it, each validation laboratory by all of
them. The kinds that count are those that a laboratory's TOML file calls good enough; a model is asked among all kinds
that it knows, once with all alike and once with a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from training.evaluation import benchmarks as evaluation
from training.evaluation.crossval import predictions_on_test
from training.evaluation.samples import widest_benchmarks
from zoo.benchmarks import BenchmarkSet
from zoo.benchmarks.eligibility import is_scored
from zoo.data.registry import datasets, joins_of
from zoo.entry import Entry, load_entry
from zoo.scores import label_mapping
from zoo.scores.metrics import balanced_accuracy
from zoo.scores.predictions import confusion
from zoo.scores.sample.samples import ALIKE, Sample, samples
from zoo.serving.runtime import Runtime

Log = Callable[[str], None]
Asked = Literal["alike", "with_sample"]
ASKED: tuple[Asked, Asked] = ("alike", "with_sample")


@dataclass(frozen=True)
class LeftOutModel:
    """A model that was trained without a laboratory."""

    seed: int
    laboratory: str
    entry: Entry


@dataclass(frozen=True)
class SeedScore:
    """Balanced accuracy (0..1) of a model in a laboratory, with all kinds alike and with the laboratory's sample."""

    seed: int
    without: str
    alike: float
    with_sample: float


@dataclass(frozen=True)
class LaboratoryScores:
    """Scores in one laboratory.

    Attributes:
        laboratory: Its name.
        role: Whether it was left out of training in turn, or is always out.
        sample: Name of the sample that models were asked with.
        kinds: The kinds that count.
        scores: One a model.
    """

    laboratory: str
    role: Literal["training", "validation"]
    sample: str
    kinds: list[str]
    scores: list[SeedScore]

    def by_seed(self, which: Asked) -> list[float]:
        """Mean over the models of each seed."""
        seeds = sorted({score.seed for score in self.scores})
        return [float(np.mean([getattr(one, which) for one in self.scores if one.seed == seed])) for seed in seeds]


@dataclass(frozen=True)
class Summary:
    """Mean over laboratories, the worst of them, and the standard deviation over seeds (nan for one seed)."""

    mean: float
    worst: float
    worst_laboratory: str
    spread: float


def summary(found: Sequence[LaboratoryScores], which: Asked) -> Summary:
    """Sum up the scores of all laboratories."""
    values = np.array([one.by_seed(which) for one in found])
    means = values.mean(1)
    spread = float(values.std(1, ddof=1).mean()) if values.shape[1] > 1 else float("nan")
    return Summary(float(means.mean()), float(means.min()), found[int(means.argmin())].laboratory, spread)


def as_record(found: Sequence[LaboratoryScores]) -> dict[str, Any]:
    """Convert scores to JSON: those of each laboratory, and their sum."""
    parts = {which: asdict(summary(found, which)) for which in ASKED}
    for part in parts.values():
        part["spread"] = None if np.isnan(part["spread"]) else part["spread"]
    return {"scores": [asdict(one) for one in found], "summary": parts}


def score_left_out(models: Sequence[LeftOutModel]) -> list[LaboratoryScores]:
    """Score each training laboratory by the models that were trained without it."""
    found = []
    for laboratory in dict.fromkeys(model.laboratory for model in models):
        own = [model for model in models if model.laboratory == laboratory]
        first = own[0].entry
        sample = _sample_of(laboratory) or first.default_sample
        kinds = _scored_kinds(laboratory, predictions_on_test(first))
        scores = [_seed_score(model, predictions_on_test(model.entry), kinds, sample) for model in own]
        found.append(LaboratoryScores(laboratory, "training", sample.name, kinds, scores))
    return found


def score_validation(models: Sequence[LeftOutModel], root: Path, runtime: Runtime, log: Log) -> list[LaboratoryScores]:
    """Score each validation laboratory whose pictures are below `root` by all models.

    The predictions are kept in the models' folders, so that an interrupted evaluation is resumed.

    Args:
        models: The models.
        root: Folder that holds the data sets.
        runtime: Runs the models.
        log: Called with a remark.

    Raises:
        DataError: A picture cannot be read.
    """
    found = []
    for benchmark in widest_benchmarks(models[0].entry):
        data = benchmark.data_set
        if not (root / data.place).is_dir():
            log(f"{data.title} is not in {root}: not scored there.")
            continue
        entries = [model.entry for model in models if not is_scored(model.entry, benchmark)]
        if entries:
            evaluation.evaluate(entries, benchmark, benchmark.pictures(root), runtime, log)
        scores = [_stored_score(model, benchmark) for model in models]
        sample = data.sample
        found.append(LaboratoryScores(data.laboratory, "validation", sample, benchmark.labels, scores))
    return found


def _stored_score(model: LeftOutModel, benchmark: BenchmarkSet) -> SeedScore:
    record = load_entry(model.entry.folder).evaluation.benchmarks[benchmark.name]
    alike = record.samples[ALIKE]["balanced_accuracy"].value
    return SeedScore(model.seed, model.laboratory, alike, record.metrics["balanced_accuracy"].value)


def _sample_of(laboratory: str) -> Sample | None:
    """The sample that a data set of a laboratory names; None where its pictures were chosen by kind."""
    named = next((one.sample for one in datasets().values() if one.laboratory == laboratory and one.sample), "")
    return samples().get(named)


def _scored_kinds(laboratory: str, table: pd.DataFrame) -> list[str]:
    """Kinds of a laboratory that occur in a table, and whose labels are good enough."""
    sets = [one for one in datasets().values() if one.laboratory == laboratory]
    good = {kind for one in sets for kind in one.scored} if all(one.scored for one in sets) else set()
    return sorted(kind for kind in set(table["label"]) if not good or kind in good)


def _seed_score(model: LeftOutModel, table: pd.DataFrame, kinds: Sequence[str], sample: Sample) -> SeedScore:
    entry, joins = model.entry, joins_of([model.laboratory])
    kept = table[table["label"].isin(kinds)]
    network = kept[entry.labels].to_numpy(np.float64)
    names = list(dict.fromkeys(joins.get(label, label) for label in entry.labels))
    truth = pd.Index(names).get_indexer(pd.Index([joins.get(label, label) for label in kept["label"]]))

    def score(answers: np.ndarray) -> float:
        mapped = label_mapping.map_probabilities(answers, entry.labels, names, joins)
        return float(balanced_accuracy(confusion(truth, mapped.argmax(1), len(names))))

    return SeedScore(model.seed, model.laboratory, score(network), score(entry.apply_sample(network, sample)))
