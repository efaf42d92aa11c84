"""Acceptance of answers: each is accepted, or left for review with the reasons.

An answer is accepted where its confidence for a laboratory never seen, the network's own probability of the class and
the distance from the training cells all keep to the entry's limits. The limits were chosen on laboratories that the
entry was not trained on, so that of what is accepted there at least RIGHT are right (`python -m training accept`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zoo.entry import AcceptanceLimits, Entry
from zoo.scores.sample.samples import Sample
from zoo.scores.temperature import scale_probabilities

Decision = Literal["accepted", "for review"]
ACCEPTED: Decision = "accepted"
FOR_REVIEW: Decision = "for review"

RIGHT = 0.95  # of what is accepted in a laboratory never seen, at least
NEVER = 1.0  # limit of confidence of what is never accepted
SURE = 0.9  # confidence from which no second kind is close
UNLIKE_ANY = "unlike any cell seen"
UNLIKE_MOST = "unlike most cells that the model was checked on"
UNKNOWN_KIND = "likely a kind that the model does not know"
CLOSE_SHARE = 0.5  # of what the answer lacks in confidence, that the second kind alone has where two kinds are close
BEYOND_LABORATORIES = 2.0  # out-of-distribution distance that cells of all laboratories stay within
UNMEASURED = AcceptanceLimits(confidence=0.95, network=0.0, distance=1.0)  # of entries whose limits were not chosen


@dataclass(frozen=True)
class Acceptance:
    """Whether an answer is accepted: it is where no reason is against it."""

    reasons: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether it is accepted."""
        return not self.reasons

    @property
    def decision(self) -> Decision:
        """The decision in words."""
        return ACCEPTED if self.accepted else FOR_REVIEW


UNDECIDED = Acceptance(("not decided",))


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence that a decision on some answers rests on.

    Attributes:
        best: Class numbers of the answers, (n,).
        shares: Probabilities in the sample for a laboratory never seen, (n, K).
        deciding: The probabilities that decide, (n, K): those of an ensemble's deciding member, else `shares`.
        network: The deciding network's own probability of the answers for such a laboratory, before the sample, (n,).
        distance: Out-of-distribution distances, (n,); nan where the entry has no detector.
    """

    best: np.ndarray
    shares: np.ndarray
    deciding: np.ndarray
    network: np.ndarray
    distance: np.ndarray

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the answers, (n,)."""
        return self.shares[np.arange(len(self.best)), self.best]

    @property
    def deciding_confidence(self) -> np.ndarray:
        """Probability of the answers that decides, (n,)."""
        return self.deciding[np.arange(len(self.best)), self.best]

    def accepts(self, limits: AcceptanceLimits, labels: Sequence[str]) -> np.ndarray:
        """Whether each answer keeps to the limits, bool (n,); a distance that is not known is not in doubt."""
        near = ~(self.distance > limits.distance)
        least = limits.of(labels)[self.best]
        return (self.deciding_confidence >= least) & (least < NEVER) & (self.network >= limits.network) & near


def evidence(
    entry: Entry,
    network: np.ndarray,
    distance: np.ndarray,
    sample: Sample,
    temperature: float = 1.0,
    deciding: np.ndarray | None = None,
) -> Evidence:
    """Compute what decisions rest on.

    Args:
        entry: The entry that answered.
        network: The network's own probabilities, (n, K).
        distance: Out-of-distribution distances, (n,).
        sample: What the pictures are of.
        temperature: Temperature for laboratories never seen.
        deciding: Probabilities of an ensemble's deciding member, (n, K); None where `network` decide.

    Raises:
        SampleError: The sample rules out every class of the entry.
    """
    best = entry.apply_sample(network, sample).argmax(1)
    softened = scale_probabilities(network, 1 / temperature)
    shares = entry.apply_sample(softened, sample)
    own = softened if deciding is None else deciding  # limits are set for it as it is
    decides = shares if deciding is None else entry.apply_sample(own, sample)
    return Evidence(best, shares, decides, own[np.arange(len(best)), best], distance)


def decide(
    entry: Entry,
    network: Mapping[str, float],
    distance: float | None,
    sample: Sample,
    deciding: Mapping[str, float] | None = None,
) -> Acceptance:
    """Decide on one answer, with the reasons against it.

    Args:
        entry: The entry that answered.
        network: The network's own probability of each label.
        distance: Out-of-distribution distance; None where the entry has no detector.
        sample: What the picture is of.
        deciding: Probability of each label by an ensemble's deciding member; None or empty where `network` decide.

    Raises:
        SampleError: The sample rules out every class of the entry.
    """
    limits = entry.acceptance.limits if entry.acceptance else UNMEASURED
    own, member = (np.array([[row[label] for label in entry.labels]]) if row else None for row in (network, deciding))
    assert own is not None
    away = np.array([np.nan if distance is None else distance])
    found = evidence(entry, own, away, sample, entry.unseen_temperature or 1.0, member)
    reasons = []
    if distance is not None and distance > limits.distance:
        reasons.append(UNLIKE_ANY if distance > BEYOND_LABORATORIES else UNLIKE_MOST)
    if found.network[0] < limits.network:
        reasons.append(UNKNOWN_KIND)
    least = float(limits.of(entry.labels)[found.best[0]])
    if found.deciding_confidence[0] < least or least >= NEVER:
        reasons.append(_unsure(entry, found, least))
    return Acceptance(tuple(reasons))


def _unsure(entry: Entry, found: Evidence, least: float) -> str:
    """The reason where the confidence is too low: which kinds are close, or why the class needs more."""
    best = int(found.best[0])
    names = [entry.class_names[label] for label in entry.labels]
    if found.deciding_confidence[0] >= SURE:
        below = "" if least >= NEVER else f" below {int(1000 * least) / 10:g} %"
        return f"in other laboratories “{names[best]}” is too often wrong{below}"
    shares = found.deciding[0].copy()
    lacking = 1 - shares[best]
    shares[best] = 0
    second = int(shares.argmax())
    if found.confidence[0] >= SURE:
        return f"one of its networks is less sure: {names[best]} or {names[second]}"
    if shares[second] < CLOSE_SHARE * lacking:
        return "several kinds are close"
    return f"two kinds are close: {names[best]} and {names[second]}"
