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
    """

    entry: Entry
    choice: Choice
    pictures: int
    labelled: int
    before: Interval | None
    after: Interval | None
    gain: Interval | None
    agreement: float


@dataclass(frozen=True)
class Provenance:
    """Provenance of an adapted entry: laboratory, number of pictures, and labels given (None where unknown)."""

    laboratory: str
    pictures: int
    labels: Sequence[str | None]

    def record(self, entry: Entry, choice: Choice) -> dict[str, Any]:
        """Provenance as the new entry's config stores it."""
        return {
            "from": entry.id,
            "laboratory": self.laboratory,
            "pictures": self.pictures,
            "labelled": dict(Counter(label for label in self.labels if label is not None)),
            "changed": str(choice),
        }


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
    table: pd.DataFrame | None,
) -> Entry:
    """Write the new entry, whole or not at all.

    Args:
        out: Folder of the new entry.
        source: The network that was adapted.
        selection: The pictures that it was adapted with.
        choice: What was changed.
        network: The adapted network.
        provenance: Where it comes from.
        table: Cross-validated predictions; None without labels.

    Returns:
        The new entry.
    """
    entry = source.entry
    record = provenance.record(entry, choice)
    detector = read_ood_detector(entry.folder, len(entry.labels))
    with create_entry(out) as folder:
        write_weights(folder, _tensors(source, choice, network))
        write_config(folder, _config(entry, record, calibrated=table is not None))
        # scores of the old model do not hold for the new one
        write_evaluation(folder, {"schema_version": SCHEMA_VERSION, "benchmarks": {}})
        if table is not None:
            scored = ScoredBenchmark(_benchmark(provenance.laboratory, table, entry.labels), table)
            update_benchmark(folder, f"{provenance.laboratory}-crossval", scored)
        # with other statistics the network's embeddings differ from those that the detector was fitted on
        if detector is not None and not choice.statistics:
            vectors = selection.old_vectors[:, 0].float()
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


def _config(entry: Entry, record: dict[str, Any], calibrated: bool) -> dict[str, Any]:
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
    return content


def _benchmark(laboratory: str, table: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """The record of the cross-validation for `evaluation.json`."""
    return {
        "title": f"{laboratory}, cross-validated",
        "role": "test",
        "labels": list(labels),
        "confusion": table_confusion(table, labels).tolist(),
        "metrics": metrics.as_dict(metrics.evaluate(table, labels)),
        "n_images": len(table),
        "n_cells": int(table["cell"].nunique()),
        "notes": ["Each cell was classified by a model that was adapted without it."],
    }


def _card(entry: Entry, record: dict[str, Any]) -> str:
    labelled = ", ".join(f"{count} {label}" for label, count in record["labelled"].items()) or "none with a label"
    return (
        f"---\nlibrary_name: timm\nlicense: other\ntags:\n- hemazoo\n---\n\n# {entry.title}, adapted\n\n"
        f"{entry.id}, adapted to {record['laboratory']} with {record['pictures']} pictures ({labelled}). Changed: "
        f"{record['changed']}.\n\nScores are cross-validated on these pictures alone. Not a medical device.\n"
    )
