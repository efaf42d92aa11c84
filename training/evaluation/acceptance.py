"""Choose the limits within which an entry's answers are accepted, by laboratories that it was not trained on.

The entry answers cells of every validation laboratory once; what its decisions rest on is kept in `acceptance.parquet`,
so that limits can be chosen again without pictures. Limits accept the largest share of cells of which on average over
laboratories at least `zoo.scores.acceptance.RIGHT` are right, over kinds, and few cells of kinds that the entry does
not know. How they hold is told by leaving laboratories out: temperature and limits are chosen by the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from training.prepare.dataset import TrainingDataError
from training.prepare.laboratories import read_pictures
from training.publish.card import renew_card
from zoo.benchmarks import laboratories_of
from zoo.data import Item
from zoo.data.registry import DataSetInfo, datasets
from zoo.entry import AcceptanceLimits, Entry, read_evidence
from zoo.entry.write import update_section, write_evidence
from zoo.scores.acceptance import RIGHT, Evidence, evidence
from zoo.scores.curves import calibration_bins
from zoo.scores.samples import samples
from zoo.scores.temperature import MIN_PROBABILITY
from zoo.serving.batch import classify_files
from zoo.serving.runtime import Runtime

MAX_CELLS = 250  # of each data set
MIN_CELLS = 5  # of a kind that counts in a laboratory
MIN_ACCEPTED = 3  # cells of a kind, for the share of them that is right to count
UNKNOWN_ACCEPTED = 0.05  # share of cells of kinds that the entry does not know that may be accepted
TEMPERATURES = np.geomspace(0.7, 4, 60)
CONFIDENCES = (0.0, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.84, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
NETWORKS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
DISTANCES = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.15, 1.35, 1.6, 2.0)

Log = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of one laboratory with the entry's answers.

    Attributes:
        laboratory: Its name.
        sample: Name of the sample that they are of; empty for the entry's usual one.
        truth: Class number of each cell, (n,); -1 for kinds that the entry does not know.
        kinds: The kind of each cell, (n,).
        network: The network's own probabilities, (n, K).
        distance: Out-of-distribution distances, (n,).
    """

    laboratory: str
    sample: str
    truth: np.ndarray
    kinds: np.ndarray
    network: np.ndarray
    distance: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Whether the entry knows the kind of each cell, bool (n,)."""
        return self.truth >= 0


@dataclass(frozen=True)
class Held:
    """Result in a laboratory that limits were chosen without; see `zoo.entry.schema.AcceptedCells`."""

    laboratory: str
    share: float
    right: float | None
    ece: float
    images: int
    unknown_kinds: dict[str, float]


@dataclass(frozen=True)
class ChosenLimits:
    """Limits and temperature by all laboratories, and how such limits hold in each one."""

    limits: AcceptanceLimits
    temperature: float
    held: list[Held]


def collect(entry: Entry, root: Path, runtime: Runtime, log: Log) -> None:
    """Classify cells of the validation laboratories below `root`, and keep the answers in the entry.

    Raises:
        TrainingDataError: There are fewer than two such laboratories.
    """
    parts = []
    for info in _foreign_sets(entry):
        if not (root / info.place).is_dir():
            log(f"{info.title} is not in {root}: left out.")
            continue
        items = _some(list(read_pictures(info, root)))
        results = classify_files(runtime, entry, ((item.file, item.source) for item in items))
        answers = [result.prediction for result in results]
        log(f"{entry.id}: {len(answers):,} cells of {info.title}")
        table = pd.DataFrame([one.network for one in answers if one], columns=entry.labels)
        table = table.add_prefix("n:").astype(np.float16)
        table.insert(0, "data", info.name)
        table.insert(1, "label", [str(item.label) for item in items])
        table.insert(2, "distance", np.array([one.distance for one in answers if one], np.float32))
        parts.append(table)
        write_evidence(entry.folder, pd.concat(parts, ignore_index=True))
    if len({_laboratory(str(part["data"].iloc[0])) for part in parts}) < 2:
        raise TrainingDataError(f"{entry.id}: at least two laboratories that it was not trained on are needed.")


def _foreign_sets(entry: Entry) -> list[DataSetInfo]:
    """Data sets of single cells of the validation laboratories, none of which the entry was trained on."""
    own = laboratories_of(entry)
    known = [one for one in datasets().values() if one.role == "validation" and one.laboratory not in own]
    return [one for one in known if one.readable and one.pictures == "cells"]


def _laboratory(data: str) -> str:
    known = datasets().get(data)
    return known.laboratory if known else data


def _some(items: list[Item]) -> list[Item]:
    chosen = np.random.default_rng(0).permutation(len(items))[:MAX_CELLS]
    return [items[row] for row in sorted(chosen.tolist())]


def stored_cells(entry: Entry) -> list[Cells]:
    """The cells of each laboratory whose answers an entry keeps. Raises EntryError if it keeps none."""
    table, known = read_evidence(entry), datasets()
    found = []
    table["laboratory"] = table["data"].map(_laboratory)
    for laboratory, rows in table.groupby("laboratory", sort=True):
        scored = {str(name): set(known[str(name)].scored) for name in set(rows["data"]) if str(name) in known}
        truth = pd.Index(entry.labels).get_indexer(pd.Index(rows["label"]))
        counts = rows["label"].value_counts()
        # kinds that a laboratory labels badly are neither known nor unknown
        usable = [
            number < 0 or (label in (scored.get(data) or {label}) and counts[label] >= MIN_CELLS)
            for number, label, data in zip(truth, rows["label"], rows["data"], strict=True)
        ]
        valid = np.array(usable, bool)
        kept = rows[valid]
        sample = next((known[str(name)].sample for name in set(rows["data"]) if known[str(name)].sample), "")
        found.append(
            Cells(
                str(laboratory),
                sample,
                truth[valid],
                kept["label"].to_numpy(),
                kept[[f"n:{label}" for label in entry.labels]].to_numpy(np.float64),
                kept["distance"].to_numpy(np.float64),
            )
        )
    return found


def choose(entry: Entry) -> ChosenLimits:
    """Choose limits by all laboratories whose answers an entry keeps, and leave each out to see how they hold.

    Raises:
        EntryError: It keeps none.
        TrainingDataError: There are fewer than two laboratories.
    """
    cells = stored_cells(entry)
    if len(cells) < 2:
        raise TrainingDataError(f"{entry.id}: at least two laboratories that it was not trained on are needed.")
    held = []
    for one in cells:
        others = [other for other in cells if other is not one]
        temperature = fit_temperature_there(entry, others)
        limits = best_limits(entry, others, temperature)
        held.append(_hold(entry, one, limits, temperature))
    temperature = fit_temperature_there(entry, cells)
    return ChosenLimits(best_limits(entry, cells, temperature), temperature, held)


def fit_temperature_there(entry: Entry, laboratories: Sequence[Cells]) -> float:
    """Temperature with the least log loss in some laboratories, asked with their samples.

    Laboratories weigh alike, and kinds alike within each.
    """
    losses = [np.mean([_log_loss(entry, one, t) for one in laboratories]) for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def best_limits(entry: Entry, laboratories: Sequence[Cells], temperature: float) -> AcceptanceLimits:
    """The limits that accept the largest share of cells, with enough right on average over laboratories.

    Where no limits do, those of which the most are right.
    """
    found = [_evidence(entry, one, temperature) for one in laboratories]
    best: tuple[tuple[float, float], AcceptanceLimits] | None = None
    for distance in DISTANCES:
        for network in NETWORKS:
            for confidence in CONFIDENCES:
                limits = AcceptanceLimits(confidence=confidence, network=network, distance=distance)
                shares, right, unknown = _outcome(laboratories, found, limits)
                enough = right >= RIGHT and unknown <= UNKNOWN_ACCEPTED
                rank = (1.0, shares) if enough else (min(right / RIGHT, 1.0) - max(unknown - UNKNOWN_ACCEPTED, 0), 0.0)
                if best is None or rank > best[0]:
                    best = rank, limits
    assert best is not None
    return best[1]


def _outcome(
    laboratories: Sequence[Cells], found: Sequence[Evidence], limits: AcceptanceLimits
) -> tuple[float, float, float]:
    """Mean share accepted, mean share right of these, and share of cells of unknown kinds accepted."""
    shares, right, strangers = [], [], []
    for cells, one in zip(laboratories, found, strict=True):
        accepted = one.accepts(limits)
        shares.append(accepted[cells.known].mean())
        part = right_of(cells, one, accepted)
        right.append(0.0 if part is None else part)
        strangers.append(accepted[~cells.known])
    unknown = np.concatenate(strangers)
    return float(np.mean(shares)), float(np.mean(right)), float(unknown.mean()) if len(unknown) else 0.0


def right_of(cells: Cells, found: Evidence, accepted: np.ndarray) -> float | None:
    """Share right of the accepted cells, mean over kinds with at least MIN_ACCEPTED of them; None where none has."""
    kept = accepted & cells.known
    counts = np.bincount(cells.truth[kept], minlength=cells.network.shape[1])
    right = np.bincount(cells.truth[kept], (found.best == cells.truth)[kept], minlength=len(counts))
    enough = counts >= MIN_ACCEPTED
    return float((right[enough] / counts[enough]).mean()) if enough.any() else None


def store(entry: Entry, chosen: ChosenLimits) -> None:
    """Write limits and how they hold into an entry."""
    laboratories = {
        one.laboratory: {"share": one.share, "right": one.right, "ece": one.ece, "images": one.images}
        for one in chosen.held
    }
    unknown = {kind: share for one in chosen.held for kind, share in one.unknown_kinds.items()}
    content = {
        "limits": chosen.limits.model_dump(mode="json"),
        "temperature": chosen.temperature,
        "laboratories": laboratories,
        "unknown_kinds": unknown,
    }
    update_section(entry.folder, "acceptance", content)
    renew_card(entry.folder)


def _hold(entry: Entry, cells: Cells, limits: AcceptanceLimits, temperature: float) -> Held:
    found = _evidence(entry, cells, temperature)
    accepted, known = found.accepts(limits), cells.known
    bins, gaps = calibration_bins(cells.truth[known], found.shares[known])
    ece = float(np.abs(np.bincount(bins, gaps)).sum() / len(bins))
    kinds = sorted(set(cells.kinds[~known]))
    unknown = {str(kind): float(accepted[cells.kinds == kind].mean()) for kind in kinds}
    part = right_of(cells, found, accepted)
    return Held(cells.laboratory, float(accepted[known].mean()), part, ece, int(known.sum()), unknown)


def _evidence(entry: Entry, cells: Cells, temperature: float) -> Evidence:
    sample = samples()[cells.sample] if cells.sample else entry.default_sample
    return evidence(entry, cells.network, cells.distance, sample, temperature)


def _log_loss(entry: Entry, cells: Cells, temperature: float) -> float:
    shares, known = _evidence(entry, cells, temperature).shares, cells.known
    truth = cells.truth[known]
    losses = -np.log(shares[known][np.arange(len(truth)), truth].clip(MIN_PROBABILITY))
    return float(np.mean([losses[truth == kind].mean() for kind in np.unique(truth)]))
