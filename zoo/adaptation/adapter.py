"""Adapt a network to a laboratory: a new last layer and new batch-norm statistics.

All other weights stay, since a few cells per class cannot train more. Labelled cells give a last layer that stays near
the old one (Li, Grandvalet & Davoine 2018, arXiv:1802.01483). Cells with or without labels give the mean and variance
of batch norm (Schneider et al. 2020, arXiv:2006.16971). Where no cell has a label, the model's most confident answers
serve as labels (Lee 2013).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.adaptation.bounds import MAX_PICTURES, MIN_CELLS, MIN_UNLABELLED
from zoo.adaptation.result import (
    Adapted,
    Provenance,
    ScoredAnswers,
    asked_with,
    balanced_accuracy_gain,
    prediction_table,
    write_adapted,
)
from zoo.adaptation.selection import UNLABELLED, AdaptedNetwork, Progress, Selection
from zoo.adaptation.source import SourceNetwork
from zoo.entry import Entry, EntryError
from zoo.scores import metrics
from zoo.scores.sample.samples import Sample
from zoo.scores.temperature import fit_temperature

MAX_VIEWS = 4


def adapt(
    entry: Entry,
    images: Sequence[Image.Image],
    labels: Sequence[str | None],
    out: Path,
    laboratory: str,
    files: Sequence[str] | None = None,
    progress: Progress = lambda share, step: None,
    only_statistics: bool = False,
    sample: Sample | None = None,
    groups: Sequence[str | None] | None = None,
) -> Adapted:
    """Adapt an entry to a laboratory and write the result as a new entry.

    Args:
        entry: A network with a linear last layer.
        images: RGB pictures of single cells.
        labels: The entry's label for each picture; None where it is unknown.
        out: Folder of the new entry.
        laboratory: Name of the laboratory.
        files: Name of each picture in the stored predictions; by default its number.
        progress: Called with the share done (0..1) and the current step; whatever it raises stops the work, and
            nothing is written.
        only_statistics: Change batch-norm statistics only; labels are ignored.
        sample: What the laboratory's pictures are of. The scores are asked with it, and so is the new entry unless its
            user says otherwise. None: as the entry is asked.
        groups: Patient, slide or frame of each picture, None where it is unknown. The cross-validation keeps pictures
            of one group together, unless there is only one group.

    Returns:
        The new entry, and its cross-validated scores where there are labels.

    Raises:
        EntryError: The model cannot be adapted, or there are too few pictures.
        SampleError: The sample rules out every class of the entry.

    Example:
        >>> adapted = adapt(get_entry("champion8"), images, labels, Path("zoo/our-lab"), "our lab")
        >>> adapted.gain.value
    """
    source = SourceNetwork(entry)
    if only_statistics:
        labels = [None] * len(images)
        if not source.has_statistics:
            raise EntryError(f"{entry.id} has no batch norm, so there are no statistics to change.")
    _check_labels(entry, labels)
    if sample is not None:
        entry.prior_of(sample)  # raises before the work begins
    rows = _sample(labels)
    progress(0.0, "reading the pictures")
    inputs = [source.prepare.input(images[row]) for row in rows]
    numbers = np.array([_class_number(entry, labels[row]) for row in rows])
    kept = _group_numbers([groups[row] for row in rows]) if groups else None
    selection = Selection(source, inputs, numbers, max(1, min(MAX_VIEWS, MAX_PICTURES // len(rows))), progress, kept)
    provenance = Provenance(laboratory, len(rows), labels, sample)
    if not len(selection.labelled):
        return _adapt_without_labels(out, source, selection, provenance, only_statistics)
    names = [files[row] if files else str(row) for row in rows]
    return _adapt_by_labels(out, source, selection, provenance, names)


def _adapt_without_labels(
    out: Path, source: SourceNetwork, selection: Selection, provenance: Provenance, only_statistics: bool
) -> Adapted:
    """Adapt with unlabelled pictures and write."""
    choice = selection.default_choice(only_statistics)
    network = selection.apply(choice)
    selection.progress(0.97, "writing the entry")
    made = write_adapted(out, source, selection, choice, network, provenance, None)
    selection.progress(1.0, "done")
    return Adapted(made, choice, provenance.pictures, 0, None, None, None, network.agreement)


def _adapt_by_labels(
    out: Path, source: SourceNetwork, selection: Selection, provenance: Provenance, names: Sequence[str]
) -> Adapted:
    """Adapt with labelled pictures: choose by cross-validation, calibrate, score and write."""
    entry, rows = source.entry, selection.labelled
    truth = selection.numbers[rows]
    result = selection.cross_validate()
    network = selection.apply(result.choice)
    # out-of-fold answers give a temperature that is not too optimistic
    temperature = fit_temperature(truth, result.after)
    network = AdaptedNetwork(network.model, network.weight / temperature, network.bias / temperature, network.agreement)
    files = [names[row] for row in rows]
    sample = provenance.sample or entry.default_sample
    before = asked_with(entry, prediction_table(entry, files, truth, result.before), sample)
    own = prediction_table(entry, files, truth, result.after / temperature)
    after = asked_with(entry, own, sample)
    selection.progress(0.97, "writing the entry")
    made = write_adapted(out, source, selection, result.choice, network, provenance, ScoredAnswers(after, own, sample))
    selection.progress(1.0, "done")
    old, new = (metrics.evaluate(table, entry.labels)["balanced_accuracy"] for table in (before, after))
    gain = balanced_accuracy_gain(before, after, entry.labels)
    labelled = sum(label is not None for label in provenance.labels)
    together = 0 if selection.groups is None else len(np.unique(selection.groups[rows]))
    return Adapted(made, result.choice, provenance.pictures, labelled, old, new, gain, network.agreement, together)


def can_adapt(entry: Entry) -> bool:
    """Whether an entry is a single network with a last layer of its own.

    Whether that layer is linear is known only when the network is loaded.
    """
    return entry.usable and not (entry.config.zoo.members or entry.config.zoo.head)


def _class_number(entry: Entry, label: str | None) -> int:
    return UNLABELLED if label is None else entry.labels.index(label)


def _group_numbers(groups: Sequence[str | None]) -> np.ndarray | None:
    """Number of each picture's group, a group of its own where it is unknown; None if all are unknown."""
    if not any(group is not None for group in groups):
        return None
    names = [f"group {group}" if group is not None else f"picture {row}" for row, group in enumerate(groups)]
    return np.unique(names, return_inverse=True)[1]


def _check_labels(entry: Entry, labels: Sequence[str | None]) -> None:
    """Raise EntryError if a label is unknown, or there are too few pictures or classes."""
    counts = Counter(label for label in labels if label is not None)
    unknown = sorted(set(counts) - set(entry.labels))
    if unknown:
        raise EntryError(f"{entry.id} has no class {unknown[0]!r}. Its classes: {', '.join(entry.labels)}.")
    few = [f"{label} ({number})" for label, number in counts.items() if number < MIN_CELLS]
    if few:
        raise EntryError(f"There are too few cells of {', '.join(few)}: give {MIN_CELLS} of a class, or none of it.")
    if len(counts) == 1:
        raise EntryError(
            f"All labelled cells are of one class, {next(iter(counts))}. Give {MIN_CELLS} cells of two classes at "
            "least."
        )
    if not counts and len(labels) < MIN_UNLABELLED:
        raise EntryError(f"There are {len(labels)} pictures without labels; {MIN_UNLABELLED} are needed at least.")


def _sample(labels: Sequence[str | None]) -> list[int]:
    """Rows to use: all, or at most MAX_PICTURES drawn at random, as evenly over the labels as possible."""
    if len(labels) <= MAX_PICTURES:
        return list(range(len(labels)))
    random = np.random.default_rng(0)
    turns: Counter[str | None] = Counter()
    ranked = []
    for row in random.permutation(len(labels)).tolist():
        turns[labels[row]] += 1
        ranked.append((turns[labels[row]], row))
    return sorted(row for _, row in sorted(ranked)[:MAX_PICTURES])
