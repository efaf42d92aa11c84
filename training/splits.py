"""Which pictures train, which validate, which test? All copies of one source cell stay on one side."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from training.data import Sample, TrainingDataError

SIDES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Row numbers a side, source cell of each row, rows left out by reason, and a hash of all of it."""

    rows: Mapping[str, np.ndarray]
    cells: tuple[str, ...]
    left_out: Mapping[str, int]
    hash: str


def pixel_cells(samples: Sequence[Sample]) -> list[str]:
    """Source cell of each sample where nothing but pixel-identical duplicates is known: the pixels' hash."""
    return [sample.pixels[:16] for sample in samples]


def conflicting(samples: Sequence[Sample], cells: Sequence[str]) -> set[str]:
    """Source cells that carry more than one label; nobody knows which is right, so they are left out."""
    labels = defaultdict(set)
    for sample, cell in zip(samples, cells, strict=True):
        labels[cell].add(sample.label)
    return {cell for cell, names in labels.items() if len(names) > 1}


def stratified_split(samples: Sequence[Sample], val: float, test: float, seed: int) -> Split:
    """Stratified by label, grouped by pixels: `val` and `test` are shares of all images."""
    cells = pixel_cells(samples)
    bad = conflicting(samples, cells)
    rows = np.array([i for i, cell in enumerate(cells) if cell not in bad])
    rest, tested = _cut(samples, cells, rows, test, seed)
    trained, validated = _cut(samples, cells, rest, val / (1 - test), seed + 1)
    left = {"identical pixels under different labels": len(samples) - len(rows)}
    return _split(samples, cells, {"train": trained, "val": validated, "test": tested}, left)


def official_split(samples: Sequence[Sample], frames: Sequence[str | None], val: float, seed: int) -> Split:
    """TEST is the test set; `val` of TRAIN validates, grouped by source frame.

    `frames` names each sample's source frame, None where it is unknown. A TRAIN picture of unknown frame, or of a frame
    that is also in TEST, could leak and is left out. A TEST picture of unknown frame stays, as a cell of its own.
    """
    cells = [frame or f"unknown-{sample.pixels[:12]}" for sample, frame in zip(samples, frames, strict=True)]
    is_test = np.array([sample.part == "TEST" for sample in samples])
    tested = {frame for frame, test in zip(frames, is_test, strict=True) if test and frame}
    bad = conflicting(samples, cells)
    unknown = np.array([frame is None for frame in frames]) & ~is_test
    shared = np.array([frame in tested for frame in frames]) & ~is_test
    clash = np.array([cell in bad for cell in cells]) & ~is_test
    rows = np.flatnonzero(~is_test & ~unknown & ~shared & ~clash)
    trained, validated = _cut(samples, cells, rows, val, seed)
    left = {
        "source frame unknown": int(unknown.sum()),
        "source frame also in TEST": int(shared.sum()),
        "source frame under different labels": int((clash & ~shared).sum()),
    }
    return _split(samples, cells, {"train": trained, "val": validated, "test": np.flatnonzero(is_test)}, left)


def _cut(
    samples: Sequence[Sample], cells: Sequence[str], rows: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in two parts, the second about `share` of them, whole cells, stratified by label."""
    labels = np.array([samples[i].label for i in rows])
    groups = np.array([cells[i] for i in rows])
    folds = max(2, round(1 / share))
    fewest = min(Counter(dict(zip(groups, labels, strict=True)).values()).values(), default=0)
    if fewest < 2:
        raise TrainingDataError("A class has fewer than two independent cells; it cannot be split. Add more pictures.")
    cutter = StratifiedGroupKFold(min(folds, fewest), shuffle=True, random_state=seed)
    first, second = next(cutter.split(rows, labels, groups))
    return rows[first], rows[second]


def _split(samples: Sequence[Sample], cells: list[str], rows: dict[str, np.ndarray], left: dict[str, int]) -> Split:
    for side in SIDES:
        others = {cells[i] for name in SIDES if name != side for i in rows[name]}
        if others & {cells[i] for i in rows[side]}:
            raise TrainingDataError("A source cell is on two sides of the split. Please report this with the data set.")
    table = sorted((samples[i].file, samples[i].pixels, side) for side in SIDES for i in rows[side])
    digest = hashlib.sha256(json.dumps(table).encode()).hexdigest()
    return Split(rows, tuple(cells), {reason: n for reason, n in left.items() if n}, digest)
