"""Score an adapted model and write it as a new entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from zoo.adaptation.selection import AdaptedNetwork, Choice, Selection, softmax
from zoo.adaptation.source import SourceNetwork
from zoo.entry import WEIGHTS, Entry, as_stored, load_entry
from zoo.entry.write import (
    SCHEMA_VERSION,
    ScoredBenchmark,
    create_entry,
    update_benchmark,
    write_card,
    write_config,
    write_evaluation,
    write_weights,
)
from zoo.scores import metrics
from zoo.scores.bootstrap import Interval
from zoo.scores.predictions import table_confusion
from zoo.scores.sample.samples import Sample
from zoo.serving.ood import read_ood_detector, widen, write_ood_detector

MAX_TITLE, MAX_SUMMARY = 200, 1000  # characters, as the schema of config.json allows


@dataclass(frozen=True)
class Adapted:
    """An adapted model and what the adaptation gained.

    Attributes:
        entry: The new entry.
        choice: What was changed.
        pictures: Number of pictures used.
        labelled: Number of pictures given with a label.
        before: Cross-validated balanced accuracy of the old model; None without labels.
        after: The same of the adapted model: each cell is scored by a model that was made without it.
        gain: `after` less `before`, with its paired interval.
        agreement: Share of the pictures (0..1) whose answer stayed the same.
        groups: Number of patients, slides or frames that the cross-validation kept together; 0 where none is known, 1
            where all pictures are of one.
    """

    entry: Entry
    choice: Choice
    pictures: int
    labelled: int
    before: Interval | None
    after: Interval | None
    gain: Interval | None
    agreement: float
    groups: int = 0

    @property
    def folds_told(self) -> str:
        """Independence of the scores, in words."""
        if self.groups == 1:
            return "all pictures are of one patient or slide, so others may score lower"
        if self.groups:
            return f"no patient, slide or frame is in two folds ({self.groups} in all)"
        return "nothing tells patients apart: if cells of one patient are in two folds, the score is too high"


@dataclass(frozen=True)
class Provenance:
    """Provenance of an adapted entry: laboratory, number of pictures, labels given (None where unknown) and sample."""

    laboratory: str
    pictures: int
    labels: Sequence[str | None]
    sample: Sample | None = None

    def record(self, entry: Entry, choice: Choice) -> dict[str, Any]:
        """Provenance as the new entry's config stores it."""
        return {
            "from": entry.id,
            "laboratory": self.laboratory,
            "pictures": self.pictures,
            "labelled": dict(Counter(label for label in self.labels if label is not None)),
            "changed": str(choice),
        }


@dataclass(frozen=True, eq=False)
class ScoredAnswers:
    """Cross-validated answers with a sample, and the adapted network's own probabilities of the same cells."""

    answers: pd.DataFrame
    network: pd.DataFrame
    sample: Sample


def asked_with(entry: Entry, table: pd.DataFrame, sample: Sample) -> pd.DataFrame:
    """A prediction table with the network's probabilities as answers with a sample, rounded as they are stored."""
    asked = entry.apply_sample(table[entry.labels].to_numpy(np.float64), sample)
    return as_stored(table.assign(**dict(zip(entry.labels, asked.T, strict=True))), entry.labels)


def prediction_table(entry: Entry, files: Sequence[str], truth: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    """The prediction table of pictures, each of a cell of its own.

    Args:
        entry: The entry whose labels are meant.
        files: Name of each picture.
        truth: Class number (n,) of each.
        logits: Array (n, classes).
    """
    table = as_stored(pd.DataFrame(softmax(logits), columns=entry.labels), entry.labels)
    table.insert(0, "file", list(files))
    table.insert(1, "cell", list(files))
    table.insert(2, "label", [entry.labels[number] for number in truth])
    return table


def balanced_accuracy_gain(before: pd.DataFrame, after: pd.DataFrame, labels: Sequence[str]) -> Interval:
    """Balanced accuracy after less that before, with the paired 95 % bootstrap interval over cells."""
    old, new = (metrics.estimate(table, labels, "balanced_accuracy") for table in (before, after))
    low, high = np.nanpercentile(new.draws - old.draws, [2.5, 97.5])
    return Interval(new.value - old.value, float(low), float(high))


def write_adapted(
    out: Path,
    source: SourceNetwork,
    selection: Selection,
    choice: Choice,
    network: AdaptedNetwork,
    provenance: Provenance,
    scored: ScoredAnswers | None,
) -> Entry:
    """Write the new entry, whole or not at all.

    Args:
        out: Folder of the new entry.
        source: The network that was adapted.
        selection: The pictures that it was adapted with.
        choice: What was changed.
        network: The adapted network.
        provenance: Where it comes from.
        scored: Cross-validated answers; None without labels.

    Returns:
        The new entry.
    """
    entry = source.entry
    record = provenance.record(entry, choice)
    detector = read_ood_detector(entry.folder, len(entry.labels))
    with create_entry(out) as folder:
        write_weights(folder, _tensors(source, choice, network))
        write_config(folder, _config(entry, record, provenance.sample, calibrated=scored is not None))
        # scores of the old model do not hold for the new one
        write_evaluation(folder, {"schema_version": SCHEMA_VERSION, "benchmarks": {}})
        if scored is not None:
            about = _benchmark(provenance.laboratory, scored, entry.labels)
            stored = ScoredBenchmark(about, scored.answers, scored.network[entry.labels])
            update_benchmark(folder, f"{provenance.laboratory}-crossval", stored)
        # with other statistics the network's embeddings differ from those that the detector was fitted on
        if detector is not None and not choice.statistics:
            vectors = selection.old_vectors[:, 0].float().numpy()
            write_ood_detector(folder, widen(detector, vectors, selection.confidence))
        write_card(folder, _card(entry, record))
    return load_entry(out)


def _tensors(source: SourceNetwork, choice: Choice, network: AdaptedNetwork) -> dict[str, Any]:
    """The entry's tensors with those replaced that were changed, in the precision of the old ones."""
    tensors = load_file(str(source.entry.folder / WEIGHTS))
    changed = {f"{source.last_layer}.weight": network.weight, f"{source.last_layer}.bias": network.bias}
    if choice.statistics:
        state = network.model.state_dict()
        changed |= {name: state[name] for name in tensors if name.endswith(("running_mean", "running_var"))}
    return tensors | {name: value.to(tensors[name].dtype) for name, value in changed.items()}


def _config(entry: Entry, record: dict[str, Any], sample: Sample | None, calibrated: bool) -> dict[str, Any]:
    """Content of `config.json`; the temperature is already divided into the last layer."""
    content = entry.config.as_written()
    title, summary = entry.config.zoo.title, entry.config.zoo.summary
    laboratory, pictures = record["laboratory"], record["pictures"]
    content["zoo"] |= {
        "title": f"{title}, adapted to {laboratory}"[:MAX_TITLE],
        "summary": f"{summary} Adapted to {laboratory} with {pictures} of its pictures."[:MAX_SUMMARY],
        "temperature": 1.0,
        "fitted_temperature": 1.0 if calibrated else None,
        "adapted": record,
    }
    if sample is not None and not sample.as_trained:
        content["zoo"]["sample"] = {"name": sample.name, "weights": dict(sample.weights), "other": sample.other}
    return content


def _benchmark(laboratory: str, scored: ScoredAnswers, labels: Sequence[str]) -> dict[str, Any]:
    """The record of the cross-validation for `evaluation.json`."""
    table = scored.answers
    return {
        "title": f"{laboratory}, cross-validated",
        "role": "test",
        "labels": list(labels),
        "confusion": table_confusion(table, labels).tolist(),
        "metrics": metrics.as_dict(metrics.evaluate(table, labels)),
        "n_images": len(table),
        "n_cells": int(table["cell"].nunique()),
        "notes": ["Each cell was classified by a model that was adapted without it."],
        "sample": scored.sample.name,
        "network_labels": list(labels),
    }


def _card(entry: Entry, record: dict[str, Any]) -> str:
    labelled = ", ".join(f"{count} {label}" for label, count in record["labelled"].items()) or "none with a label"
    return (
        f"---\nlibrary_name: timm\nlicense: other\ntags:\n- hemazoo\n---\n\n# {entry.title}, adapted\n\n"
        f"{entry.id}, adapted to {record['laboratory']} with {record['pictures']} pictures ({labelled}). Changed: "
        f"{record['changed']}.\n\nScores are cross-validated on these pictures alone. Not a medical device.\n"
    )
