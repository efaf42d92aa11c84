"""Results for one picture: the prediction, and the explanation of a class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.attribution import DEFAULT
from zoo.imaging.preprocess import NetworkInput
from zoo.serving.ood import Familiarity, familiarity


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture.

    Attributes:
        label: the predicted class.
        confidence: its probability, 0..1.
        probabilities: probability of each label.
        seconds: time that the picture's batch took.
        distance: out-of-distribution distance, see `zoo.serving.ood.familiarity`; None where the entry has no detector.
        unseen_confidence: probability that the answer is right in a laboratory that the model never saw (see
            `zoo.scores.calibration`); None where it was not measured.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    seconds: float
    distance: float | None = None
    unseen_confidence: float | None = None

    @property
    def familiarity(self) -> Familiarity | None:
        """Whether the picture is like those that the model knows; None where the entry has no detector."""
        return familiarity(self.distance)


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
