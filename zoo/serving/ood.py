"""Is this a picture that the model knows anything about? Its own embedding, held against that of its training cells.

Distance of an embedding from the nearest class's mean, in the covariance within classes (Mahalanobis; Lee et al. 2018,
arXiv:1807.03888). Embeddings are brought to length 1, so that pictures in which a network sees nothing are not near
everything (Mueller & Hein 2025, arXiv:2505.18032). The covariance is that of probabilistic principal components
(Tipping & Bishop 1999): some directions with a variance each, and one variance for all that is left. Far from every
class, the answer is no guess about a cell, whatever its probability says.

Two limits: what cells at home stay within, and what cells of other laboratories stay within. Beyond the first the
picture is of another laboratory, or no cell; beyond the second it is like nothing that was seen in any. Models that
look for the cell first have the same two limits for how sure it was found: of noise or a photograph they would be shown
whatever came nearest to one, on an empty slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from zoo.entry import OOD_STATISTICS, EntryError
from zoo.entry.write import write_ood_statistics

DIRECTIONS = 64
MOST_BYTES = 1_000_000  # of the directions that are kept
FALSE_ALARMS = 0.01  # share of cells beyond a limit: of validation cells, and of cells of other laboratories
SHIFTED, UNKNOWN = 1.0, 2.0  # distances of the two limits
Familiarity = Literal["familiar", "shifted", "unknown"]
LEAST_GAP = 0.02  # of the cell finder's two limits
NAMES = ("mean", "means", "axes", "variances", "rest", "limit", "far")
SURENESS = ("sure", "unsure")


@dataclass(frozen=True)
class OodDetector:
    """`mean` (d,), class `means` (classes, k) along `axes` (d, k), `variances` (k,) there and `rest` in every other.

    A picture whose distance (per dimension) is above `limit` is unlike the cells at home; `far` times that is the limit
    for cells of other laboratories, 1 where none were at hand. `sure` and `unsure` are what the cell finder's
    confidence stays above, at home and elsewhere; 0 where the model looks for no cell.
    """

    mean: torch.Tensor
    means: torch.Tensor
    axes: torch.Tensor
    variances: torch.Tensor
    rest: torch.Tensor
    limit: torch.Tensor
    far: torch.Tensor
    sure: torch.Tensor = field(default_factory=lambda: torch.tensor(0.0))
    unsure: torch.Tensor = field(default_factory=lambda: torch.tensor(0.0))

    def distances(self, vectors: torch.Tensor, confidence: torch.Tensor | None = None) -> torch.Tensor:
        """Distances (n,) of embeddings (n, d) from the nearest class: see `familiarity`.

        `confidence` (n,) that the pictures show a cell, see `zoo.imaging.localise.Cut`; None: nobody doubts it.
        """
        beyond = self.raw(vectors) - 1
        away = torch.where(self.far > 1, beyond / (self.far - 1).clamp(min=1e-6), 1 + beyond)
        seen = 1 + torch.where(beyond > 0, away, beyond)
        if confidence is None or self.sure == 0:
            return seen
        # SHIFTED at the first limit, UNKNOWN at the second
        doubt = 1 + (self.sure - confidence) / (self.sure - self.unsure).clamp(min=LEAST_GAP)
        return torch.maximum(seen, doubt.to(seen))

    @property
    def width(self) -> int:
        """Length of the embeddings that it judges."""
        return len(self.mean)

    def raw(self, vectors: torch.Tensor) -> torch.Tensor:
        """Distances in units of `limit`, whatever `far` is."""
        centred = _unit(vectors.float()) - self.mean
        along = centred @ self.axes
        outside = (centred.square().sum(1) - along.square().sum(1)).clamp(min=0) / self.rest
        inside = ((along[:, None] - self.means).square() / self.variances).sum(2).amin(1)
        return ((inside + outside) / vectors.shape[1]).sqrt() / self.limit

    def to(self, device: torch.device) -> OodDetector:
        """The same on a device."""
        return OodDetector(*(getattr(self, name).to(device) for name in (*NAMES, *SURENESS)))


def familiarity(distance: float | None) -> Familiarity | None:
    """What a distance means: familiar; shifted (another laboratory's cell, or none); unknown. None without a gate."""
    if distance is None:
        return None
    return "familiar" if distance <= SHIFTED else "shifted" if distance <= UNKNOWN else "unknown"


def fit_ood_detector(
    vectors: np.ndarray,
    labels: np.ndarray,
    held: np.ndarray,
    elsewhere: np.ndarray | None = None,
    seed: int = 0,
    false_alarms: float = FALSE_ALARMS,
) -> OodDetector:
    """A gate of training embeddings (n, d) with label numbers (n,), and of `held`-back ones (m, d) for its limit.

    `elsewhere` (k, d): embeddings of cells of other laboratories, for its second limit. Of each a share of
    `false_alarms` stays beyond.
    """
    values = _unit(torch.from_numpy(np.ascontiguousarray(vectors, np.float32)))
    numbers = torch.from_numpy(np.asarray(labels, np.int64))
    mean = values.mean(0)
    classes = torch.stack([values[numbers == number].mean(0) for number in numbers.unique()])
    within = values - classes[torch.searchsorted(numbers.unique(), numbers)]
    count, width = within.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kept = min(DIRECTIONS, width, count, max(8, MOST_BYTES // (4 * width)))
        axes = torch.svd_lowrank(within, kept, niter=4)[2]
    # what tells the classes apart must lie among the directions too
    axes = torch.linalg.qr(torch.cat([axes, (classes - mean).T], 1)).Q
    along = within @ axes
    variances, turn = torch.linalg.eigh(along.T @ along / count)
    axes, along = axes @ turn, along @ turn
    floor = 1e-4 * within.square().mean()
    left = width - axes.shape[1]
    outside = (within.square().sum(1) - along.square().sum(1)).mean() / max(left, 1)
    # where nothing is left, what is left over is rounding
    rest = outside if left else torch.tensor(1e12)
    one = torch.tensor(1.0)
    made = OodDetector(mean, (classes - mean) @ axes, axes, variances.clamp(min=floor), rest.clamp(min=floor), one, one)
    made = replace(made, limit=_reach(made, held, false_alarms))
    return made if elsewhere is None else replace(made, far=_reach(made, elsewhere, false_alarms).clamp(min=1))


def with_confidence_limits(
    gate: OodDetector, held: np.ndarray, elsewhere: np.ndarray | None = None, false_alarms: float = FALSE_ALARMS
) -> OodDetector:
    """The gate with limits for the cell finder's confidence, from that in cells at home and of other laboratories."""
    sure = np.quantile(held, false_alarms)
    unsure = sure if elsewhere is None else min(sure, np.quantile(elsewhere, false_alarms))
    return replace(gate, sure=torch.tensor(float(sure)), unsure=torch.tensor(float(unsure)))


def widened(gate: OodDetector, vectors: torch.Tensor, confidence: Sequence[float]) -> OodDetector:
    """The gate with its first limits so wide that the cells of these embeddings (n, d) are familiar as well."""
    known = torch.quantile(gate.raw(vectors), 1 - FALSE_ALARMS).clamp(min=1)
    sure = torch.minimum(gate.sure, torch.quantile(torch.tensor(confidence), FALSE_ALARMS))
    return replace(
        gate,
        limit=gate.limit * known,
        far=(gate.far / known).clamp(min=1),
        sure=sure,
        unsure=torch.minimum(gate.unsure, sure),
    )


def _reach(gate: OodDetector, vectors: np.ndarray, false_alarms: float) -> torch.Tensor:
    """The distance that all but a share of `false_alarms` of the embeddings stay within."""
    return torch.quantile(gate.raw(torch.from_numpy(np.ascontiguousarray(vectors, np.float32))), 1 - false_alarms)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=1, eps=1e-6)


def write_ood_detector(folder: Path, gate: OodDetector) -> None:
    """Write the gate into an entry's folder."""
    write_ood_statistics(folder, {name: getattr(gate, name) for name in (*NAMES, *SURENESS)})


def read_ood_detector(folder: Path, classes: int) -> OodDetector | None:
    """The gate of an entry's folder; None if it has none. Raises EntryError if it is damaged or does not fit."""
    path = folder / OOD_STATISTICS
    if not path.exists():
        return None
    try:
        found = load_file(str(path))
        # a gate of a model that looks for no cell may not tell how sure one was found
        told = {name: found[name].float() for name in SURENESS if name in found}
        gate = OodDetector(*(found[name].float() for name in NAMES), **told)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise EntryError(
            f"{OOD_STATISTICS} of {folder.name} is damaged; fit it again (`python -m training gate`)."
        ) from error
    width, directions = gate.axes.shape if gate.axes.ndim == 2 else (0, 0)
    shapes = [(width,), (classes, directions), (width, directions), (directions,), (), (), (), (), ()]
    named = dict(zip((*NAMES, *SURENESS), shapes, strict=True))
    fits = all(tuple(getattr(gate, name).shape) == shape for name, shape in named.items())
    if (
        not fits
        or not all(torch.isfinite(getattr(gate, name)).all() for name in named)
        or gate.limit <= 0
        or gate.far < 1
        or not 0 <= gate.unsure <= gate.sure <= 1
    ):
        raise EntryError(
            f"{OOD_STATISTICS} of {folder.name} does not fit its model; fit it again (`python -m training gate`)."
        )
    return gate
