"""Choose the limits within which an entry's answers are accepted, by laboratories that it was not trained on.

The entry answers cells of every validation laboratory once; what its decisions rest on is kept in `acceptance.parquet`,
so that limits can be chosen again without pictures. Limits accept the largest share of cells of which in each
laboratory at least `zoo.scores.acceptance.RIGHT` are right, over kinds, and few cells of kinds that the entry does not
know. How they hold is told by leaving laboratories out: temperature and limits are chosen by the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from training.evaluation.limits import Cells, best_limits, evidence_of, right_of
from training.prepare.dataset import TrainingDataError
from training.prepare.laboratories import read_pictures
from training.publish.card import renew_card
from zoo.benchmarks import laboratories_of
from zoo.data import Item
from zoo.data.registry import DataSetInfo, datasets
from zoo.entry import DECIDING, AcceptanceLimits, Entry, read_evidence
from zoo.entry.write import update_section, write_evidence
from zoo.scores.curves import calibration_bins
from zoo.scores.temperature import MIN_PROBABILITY
from zoo.serving.batch import classify_files
from zoo.serving.runtime import Runtime

MAX_CELLS = 250  # of each data set
MIN_CELLS = 5  # of a kind that counts in a laboratory
TEMPERATURES = np.geomspace(0.7, 4, 60)

Log = Callable[[str], None]


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
    """Limits and temperature by all laboratories.

    `held` tells how limits hold in laboratories that they are chosen without, `own` how these hold where they are from.
    """

    limits: AcceptanceLimits
    temperature: float
    held: list[Held]
    own: list[Held]


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
        known = [one for one in answers if one]
        table = pd.DataFrame([one.network for one in known], columns=entry.labels).add_prefix("n:")
        if entry.deciding_member is not None:
            decides = pd.DataFrame([one.deciding for one in known], columns=entry.labels)
            table = pd.concat([table, decides.add_prefix(DECIDING)], axis=1)
        table = table.astype(np.float16)
        table.insert(0, "data", info.name)
        table.insert(1, "label", [str(item.label) for item in items])
        table.insert(2, "distance", np.array([one.distance for one in known], np.float32))
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
    found, decides = [], [DECIDING + label for label in entry.labels]
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
                None if entry.deciding_member is None else kept[decides].to_numpy(np.float64),
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
    limits = best_limits(entry, cells, temperature)
    return ChosenLimits(limits, temperature, held, [_hold(entry, one, limits, temperature) for one in cells])


def fit_temperature_there(entry: Entry, laboratories: Sequence[Cells]) -> float:
    """Temperature with the least log loss in some laboratories, asked with their samples.

    Laboratories weigh alike, and kinds alike within each.
    """
    losses = [np.mean([_log_loss(entry, one, t) for one in laboratories]) for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def store(entry: Entry, chosen: ChosenLimits) -> None:
    """Write limits and how they hold into an entry."""
    content: dict[str, object] = {
        "limits": chosen.limits.model_dump(mode="json"),
        "temperature": chosen.temperature,
    }
    for name, kinds, results in (
        ("laboratories", "unknown_kinds", chosen.held),
        ("chosen_by", "unknown_chosen_by", chosen.own),
    ):
        content[name] = {
            one.laboratory: {"share": one.share, "right": one.right, "ece": one.ece, "images": one.images}
            for one in results
        }
        content[kinds] = {kind: share for one in results for kind, share in one.unknown_kinds.items()}
    update_section(entry.folder, "acceptance", content)
    renew_card(entry.folder)


def _hold(entry: Entry, cells: Cells, limits: AcceptanceLimits, temperature: float) -> Held:
    found = evidence_of(entry, cells, temperature)
    accepted, known = found.accepts(limits, entry.labels), cells.known
    bins, gaps = calibration_bins(cells.truth[known], found.shares[known])
    ece = float(np.abs(np.bincount(bins, gaps)).sum() / len(bins))
    kinds = sorted(set(cells.kinds[~known]))
    unknown = {str(kind): float(accepted[cells.kinds == kind].mean()) for kind in kinds}
    part = right_of(cells, found, accepted)
    return Held(cells.laboratory, float(accepted[known].mean()), part, ece, int(known.sum()), unknown)


def _log_loss(entry: Entry, cells: Cells, temperature: float) -> float:
    shares, known = evidence_of(entry, cells, temperature).shares, cells.known
    truth = cells.truth[known]
    losses = -np.log(shares[known][np.arange(len(truth)), truth].clip(MIN_PROBABILITY))
    return float(np.mean([losses[truth == kind].mean() for kind in np.unique(truth)]))
