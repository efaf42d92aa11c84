"""Limits within which answers are accepted, chosen by laboratories that an entry was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from zoo.entry import AcceptanceLimits, Entry
from zoo.scores.acceptance import NEVER, RIGHT, Evidence, evidence
from zoo.scores.sample.samples import samples

MIN_ACCEPTED = 3  # cells of a kind, for the share of them that is right to count
UNKNOWN_ACCEPTED = 0.03  # share of cells of unknown kinds that may be accepted; the aim elsewhere is 0.05
# no class is accepted below the first: laboratories without unknown kinds would allow too much
CONFIDENCES = (1 - np.geomspace(0.02, 0.0005, 16)).round(4)
NETWORKS = (0.0, 0.1, 0.3)
DISTANCES = (0.8, 0.9, 1.0, 1.15, 1.35, 2.0)
COSTS_WRONG = np.geomspace(1, 60, 14)  # of a wrong answer that is accepted, in right ones; kinds weigh alike
COSTS_UNKNOWN = np.geomspace(0.3, 60, 14)  # of a cell of an unknown kind that is accepted


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
        deciding: Probabilities of an ensemble's deciding member, (n, K); None where `network` decide.
    """

    laboratory: str
    sample: str
    truth: np.ndarray
    kinds: np.ndarray
    network: np.ndarray
    distance: np.ndarray
    deciding: np.ndarray | None = None

    @property
    def known(self) -> np.ndarray:
        """Whether the entry knows the kind of each cell, bool (n,)."""
        return self.truth >= 0


def evidence_of(entry: Entry, cells: Cells, temperature: float) -> Evidence:
    """Evidence that decisions on a laboratory's cells rest on, asked with its sample."""
    sample = samples()[cells.sample] if cells.sample else entry.default_sample
    return evidence(entry, cells.network, cells.distance, sample, temperature, cells.deciding)


def best_limits(entry: Entry, laboratories: Sequence[Cells], temperature: float) -> AcceptanceLimits:
    """The limits that accept the largest share of cells, with enough right in each laboratory.

    Each class has its own limit of confidence, because kinds that are confused, or that unknown kinds are taken for,
    need more of it. What a wrong answer and a cell of an unknown kind cost decides the limits of all classes at once;
    of all pairs of costs the best is taken. Where none is good enough, the limits of which the most are right.
    """
    found = [evidence_of(entry, one, temperature) for one in laboratories]
    unknown = any((~one.known).any() for one in laboratories)
    best: tuple[tuple[float, float], AcceptanceLimits] | None = None
    for distance, network in product(DISTANCES, NETWORKS):
        open_to_all = AcceptanceLimits(confidence=0, network=network, distance=distance)
        gains = _gains(laboratories, found, [one.accepts(open_to_all, entry.labels) for one in found])
        for wrong in COSTS_WRONG:
            for stranger in COSTS_UNKNOWN if unknown else (0.0,):
                value = gains @ np.array([1.0, -wrong, -stranger])
                # of equal values the strictest
                row = len(CONFIDENCES) - 1 - value[:, ::-1].argmax(axis=1)
                chosen = np.where(value.max(axis=1) > 0, CONFIDENCES[row], NEVER)
                limits = AcceptanceLimits(
                    confidence=NEVER,
                    network=network,
                    distance=distance,
                    classes=dict(zip(entry.labels, chosen.tolist(), strict=True)),
                )
                rank = _rank(laboratories, found, limits, entry.labels)
                if best is None or rank > best[0]:
                    best = rank, limits
    assert best is not None
    return best[1]


def _gains(laboratories: Sequence[Cells], found: Sequence[Evidence], allowed: Sequence[np.ndarray]) -> np.ndarray:
    """Shares accepted by each class's answers at each of CONFIDENCES, (K, len(CONFIDENCES), 3).

    They are those of all cells, of wrong answers (kinds weigh alike), and of cells of unknown kinds; of cells that are
    `allowed` by the other limits.
    """
    classes = found[0].shares.shape[1]
    gains = np.zeros((classes, len(CONFIDENCES), 3))
    strangers = sum(int((~one.known).sum()) for one in laboratories)
    for cells, one, near in zip(laboratories, found, allowed, strict=True):
        known = cells.known
        counts = np.bincount(cells.truth[known], minlength=classes)
        of_kind = np.zeros(len(known))
        of_kind[known] = 1 / counts[cells.truth[known]] / (counts > 0).sum() / len(laboratories)
        weights = np.stack(
            [
                known / max(1, known.sum()) / len(laboratories),
                np.where(known & (one.best != cells.truth), of_kind, 0),
                ~known / max(1, strangers),
            ],
            axis=1,
        )
        kept = one.deciding_confidence[:, None] >= CONFIDENCES
        for number in range(classes):
            mine = near & (one.best == number)
            gains[number] += kept[mine].T.astype(float) @ weights[mine]
    return gains


def _rank(
    laboratories: Sequence[Cells], found: Sequence[Evidence], limits: AcceptanceLimits, labels: Sequence[str]
) -> tuple[float, float]:
    """Rank of limits: whether enough is right in each laboratory and few unknown cells accepted, then the share."""
    shares, right, strangers = [], [], []
    for cells, one in zip(laboratories, found, strict=True):
        accepted = one.accepts(limits, labels)
        shares.append(accepted[cells.known].mean())
        part = right_of(cells, one, accepted)
        right.append(0.0 if part is None else part)
        strangers.append(accepted[~cells.known])
    unknown = float(np.concatenate(strangers).mean()) if sum(map(len, strangers)) else 0.0
    if min(right) >= RIGHT and unknown <= UNKNOWN_ACCEPTED:
        return 1.0, float(np.mean(shares))
    return min(min(right) / RIGHT, 1.0) - max(unknown - UNKNOWN_ACCEPTED, 0), 0.0


def right_of(cells: Cells, found: Evidence, accepted: np.ndarray) -> float | None:
    """Share right of the accepted cells, mean over kinds with at least MIN_ACCEPTED of them; None where none has."""
    kept = accepted & cells.known
    counts = np.bincount(cells.truth[kept], minlength=cells.network.shape[1])
    right = np.bincount(cells.truth[kept], (found.best == cells.truth)[kept], minlength=len(counts))
    enough = counts >= MIN_ACCEPTED
    return float((right[enough] / counts[enough]).mean()) if enough.any() else None
