"""Results for one picture: the prediction, and the explanation of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from zoo.attribution import DEFAULT
from zoo.entry import Entry, EntryError
from zoo.imaging.preprocess import NetworkInput
from zoo.scores.acceptance import UNDECIDED, Acceptance, decide
from zoo.scores.calibration import unseen_laboratory_confidence
from zoo.scores.sample.samples import ALIKE, Sample
from zoo.serving.ood import Familiarity, familiarity

NO_CELL = "No recognisable blood cell. Try one stained cell, in focus."


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture.

    Attributes:
        label: the predicted class.
        confidence: its probability, 0..1.
        probabilities: probability of each label.
        seconds: time that the picture's batch took.
        distance: out-of-distribution distance, see `zoo.serving.ood.familiarity`; None where the entry has no detector.
        sample: name of the sample that the picture was taken to be of (`zoo.scores.sample.samples`).
        network: the network's own probabilities, before the sample's prior shares; empty where they are not known.
        unseen_confidence: probability that the answer is right in a laboratory that the model never saw (see
            `zoo.scores.calibration`); None where it was not measured.
        backend: the library that ran the network (`zoo.serving.backends`), or several.
        acceptance: whether the answer is accepted or for review, with the reasons (`zoo.scores.acceptance`).
        deciding: probabilities that acceptance rests on, before the sample's prior shares; empty where `network` are.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    seconds: float
    distance: float | None = None
    unseen_confidence: float | None = None
    sample: str = ALIKE
    network: dict[str, float] = field(default_factory=dict)
    backend: str = ""
    acceptance: Acceptance = UNDECIDED
    deciding: dict[str, float] = field(default_factory=dict)

    @property
    def network_label(self) -> str:
        """The class that the network alone would have named."""
        return max(self.network, key=self.network.__getitem__) if self.network else self.label

    @property
    def familiarity(self) -> Familiarity | None:
        """Whether the picture is like those that the model knows; None where the entry has no detector."""
        return familiarity(self.distance)

    @property
    def warning(self) -> str | None:
        """Sentence that stands in place of a class where the picture shows no cell; None elsewhere."""
        return NO_CELL if self.familiarity == "unknown" else None


def predict(
    entry: Entry,
    network: Mapping[str, float],
    sample: Sample,
    seconds: float,
    distance: float | None = None,
    deciding: Mapping[str, float] | None = None,
) -> Prediction:
    """Name the numbers of an answer, and apply the prior shares of a sample to them.

    Args:
        entry: the entry that answered.
        network: the network's own probability of each label.
        sample: what the picture is of.
        seconds: time that the picture's batch took.
        distance: out-of-distribution distance, where the entry has a detector.
        deciding: probabilities that acceptance rests on, where these are not `network`.

    Raises:
        SampleError: the sample rules out every class of the entry.
    """
    own = np.array([network[label] for label in entry.labels])
    shares = entry.apply_sample(own[None], sample)[0]
    best = int(shares.argmax())
    return Prediction(
        entry.labels[best],
        float(shares[best]),
        dict(zip(entry.labels, shares.tolist(), strict=True)),
        seconds,
        distance,
        unseen_laboratory_confidence(entry, own, sample, best),
        sample.name,
        dict(network),
        acceptance=decide(entry, network, distance, sample, deciding),
        deciding=dict(deciding or {}),
    )


def with_sample(entry: Entry, prediction: Prediction, sample: Sample) -> Prediction:
    """The answer for the same picture as one of another sample; the network need not be run again.

    Raises:
        SampleError: the sample rules out every class of the entry.
    """
    named = predict(entry, prediction.network, sample, prediction.seconds, prediction.distance, prediction.deciding)
    return replace(named, backend=prediction.backend)


@dataclass(frozen=True, eq=False)
class Explanation:
    """The evidence in one picture for a class.

    Each map is divided by its own maximum: strengths of two maps cannot be compared.

    Attributes:
        prediction: the answer for the picture.
        label: the class that is explained.
        values: float32 (H, W) in 0..1 at the picture's own resolution.
        method: a key of `zoo.attribution.METHODS`.
        against: the class that the evidence sets `label` off from; None for all.
        cam: the map (h, w) of the network's input; None for ensembles, whose members see different parts.
        seen: the network's input; None for ensembles.
    """

    prediction: Prediction
    label: str
    values: np.ndarray
    method: str = DEFAULT
    against: str | None = None
    cam: np.ndarray | None = None
    seen: NetworkInput | None = None


def on_picture(seen: NetworkInput, cam: np.ndarray | None) -> np.ndarray:
    """Lay a network's map (h, w), scaled, on the picture that it was given: (H, W). Raises EntryError without a map."""
    if cam is None:
        raise EntryError("The model gave no map.")
    return seen.place(scaled(cam)).clip(0, 1)


def scaled(values: np.ndarray) -> np.ndarray:
    """Divide a map by its largest value, if that is above 0."""
    top = float(values.max())
    return values / top if top > 0 else values
