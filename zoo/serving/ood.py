"""Out-of-distribution detection: how far a picture's embedding is from those of the model's training cells.

The distance of an embedding from the nearest class's mean, in the covariance within classes (Mahalanobis distance; Lee
et al. 2018, arXiv:1807.03888). Embeddings are normalised to length 1, because otherwise pictures in which a network
sees nothing are near everything (Mueller & Hein 2025, arXiv:2505.18032). The covariance is that of probabilistic
principal components (Tipping & Bishop 1999): some directions with a variance each, and one variance for all others.

There are two limits: the distance that cells of the training laboratory stay within, and the distance that cells of
other laboratories stay within. Beyond the first the picture is of another laboratory, or no cell; beyond the second it
is unlike everything seen in any laboratory, and its class should not be believed, whatever the probability. Models that
search for the cell have the same two limits for the search's confidence: of noise or a photograph they see whatever
looks most like a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from zoo.entry import OOD_STATISTICS, EntryError
from zoo.entry.write import write_ood_statistics
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

DIRECTIONS = 64  # principal directions with a variance of their own, at most
MIN_DIRECTIONS = 8
MAX_BYTES = 1_000_000  # of the stored directions
FALSE_ALARMS = 0.01  # share of cells beyond a limit: of validation cells, and of cells of other laboratories
SHIFTED, UNKNOWN = 1.0, 2.0  # distances of the two limits
MIN_CONFIDENCE_GAP = 0.02  # between the two limits of the search's confidence
MIN_VARIANCE = 1e-4  # of a direction, as a share of the mean variance within classes
Familiarity = Literal["familiar", "shifted", "unknown"]

# field of OodDetector → name of its tensor in the entry's file
TENSORS = {
    "mean": "mean",
    "class_means": "means",
    "axes": "axes",
    "variances": "variances",
    "residual_variance": "rest",
    "limit": "limit",
    "unseen_limit": "far",
    "confidence_limit": "sure",
    "unseen_confidence_limit": "unsure",
}
OPTIONAL = ("confidence_limit", "unseen_confidence_limit")  # absent in files of models that search for no cell


@dataclass(frozen=True, eq=False)
class OodDetector:
    """Statistics of the training embeddings, and limits, all float32.

    Attributes:
        mean: mean of all embeddings (d,).
        class_means: means of the classes along `axes` (classes, k).
        axes: orthonormal directions (d, k).
        variances: variance within classes along each axis (k,).
        residual_variance: variance in every other direction, scalar.
        limit: distance that cells of the training laboratory stay within, scalar.
        unseen_limit: the same for cells of other laboratories, as a multiple of `limit`; 1 where none were at hand.
        confidence_limit: confidence of the search for the cell that cells of the training laboratory stay above; 0
            where the model searches for no cell.
        unseen_confidence_limit: the same for cells of other laboratories.
    """

    mean: np.ndarray
    class_means: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    residual_variance: np.ndarray
    limit: np.ndarray
    unseen_limit: np.ndarray
    confidence_limit: np.ndarray = field(default_factory=lambda: np.array(0, np.float32))
    unseen_confidence_limit: np.ndarray = field(default_factory=lambda: np.array(0, np.float32))

    def distances(self, vectors: np.ndarray, confidence: np.ndarray | None = None) -> np.ndarray:
        """Compute distances, scaled so that the limits are SHIFTED and UNKNOWN.

        Args:
            vectors: embeddings (n, d).
            confidence: that each picture shows a cell (n,), see `zoo.imaging.localise.LocatedCell`; None: not in doubt.

        Returns:
            Distances (n,): see `familiarity`.
        """
        beyond = self.relative_distances(vectors) - 1
        scaled = beyond / max(self.unseen_limit - 1, 1e-6) if self.unseen_limit > 1 else 1 + beyond
        distances = 1 + np.where(beyond > 0, scaled, beyond)
        if confidence is None or self.confidence_limit == 0:
            return distances
        gap = max(self.confidence_limit - self.unseen_confidence_limit, MIN_CONFIDENCE_GAP)
        return np.maximum(distances, 1 + (self.confidence_limit - np.asarray(confidence, np.float32)) / gap)

    def relative_distances(self, vectors: np.ndarray) -> np.ndarray:
        """Compute distances (n,) of embeddings (n, d) in units of `limit`."""
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        centred = vectors / lengths.clip(min=1e-6) - self.mean
        along = centred @ self.axes
        outside = (np.square(centred).sum(1) - np.square(along).sum(1)).clip(min=0) / self.residual_variance
        inside = (np.square(along[:, None] - self.class_means) / self.variances).sum(2).min(1)
        return np.sqrt((inside + outside) / vectors.shape[1]) / self.limit

    @property
    def width(self) -> int:
        """Length of the embeddings."""
        return len(self.mean)


def familiarity(distance: float | None) -> Familiarity | None:
    """Interpret a distance.

    Returns:
        familiar: like cells of the training laboratory; shifted: a cell of another laboratory, or none; unknown: like
        no cell of any laboratory. None where the entry has no detector.
    """
    if distance is None:
        return None
    return "familiar" if distance <= SHIFTED else "shifted" if distance <= UNKNOWN else "unknown"


def fit_ood_detector(
    vectors: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    unseen: np.ndarray | None = None,
    seed: int = 0,
    false_alarms: float = FALSE_ALARMS,
) -> OodDetector:
    """Fit a detector.

    Args:
        vectors: training embeddings (n, d).
        labels: their label numbers (n,).
        held_out: validation embeddings (m, d), for the first limit.
        unseen: embeddings of cells of other laboratories (k, d), for the second limit; None where there are none.
        seed: of the randomised decomposition.
        false_alarms: share of the cells that stays beyond each limit.
    """
    values = _normalised(_tensor(vectors))
    numbers = torch.from_numpy(np.asarray(labels, np.int64))
    mean = values.mean(0)
    classes = torch.stack([values[numbers == number].mean(0) for number in numbers.unique()])
    within = values - classes[torch.searchsorted(numbers.unique(), numbers)]
    axes, variances, residual = _principal_components(within, classes - mean, seed)
    parts = (mean, (classes - mean) @ axes, axes, variances, residual, torch.tensor(1.0), torch.tensor(1.0))
    detector = OodDetector(*(part.numpy() for part in parts))
    detector = replace(detector, limit=_quantile(detector, held_out, false_alarms))
    if unseen is None:
        return detector
    return replace(detector, unseen_limit=_quantile(detector, unseen, false_alarms).clip(min=1))


def with_confidence_limits(
    detector: OodDetector,
    held_out: np.ndarray,
    unseen: np.ndarray | None = None,
    false_alarms: float = FALSE_ALARMS,
) -> OodDetector:
    """Set the limits of the search's confidence.

    Args:
        detector: the detector to change.
        held_out: confidence in validation cells (m,).
        unseen: confidence in cells of other laboratories (k,); None where there are none.
        false_alarms: share of the cells that stays beyond each limit.
    """
    limit = np.quantile(held_out, false_alarms)
    unseen_limit = limit if unseen is None else min(limit, np.quantile(unseen, false_alarms))
    return replace(
        detector,
        confidence_limit=np.array(limit, np.float32),
        unseen_confidence_limit=np.array(unseen_limit, np.float32),
    )


def widen(detector: OodDetector, vectors: np.ndarray, confidence: Sequence[float]) -> OodDetector:
    """Widen the first limits so that the cells of these embeddings (n, d) and confidences (n,) are familiar as well."""
    factor = _quantile(detector, vectors, FALSE_ALARMS).clip(min=1)
    lowest = np.quantile(confidence, FALSE_ALARMS).astype(np.float32)
    confidence_limit = np.minimum(detector.confidence_limit, lowest)
    return replace(
        detector,
        limit=detector.limit * factor,
        unseen_limit=np.maximum(detector.unseen_limit / factor, np.float32(1)),
        confidence_limit=confidence_limit,
        unseen_confidence_limit=np.minimum(detector.unseen_confidence_limit, confidence_limit),
    )


def write_ood_detector(folder: Path, detector: OodDetector) -> None:
    """Write the detector into an entry's folder."""
    write_ood_statistics(folder, {stored: getattr(detector, name) for name, stored in TENSORS.items()})


def read_ood_detector(folder: Path, classes: int) -> OodDetector | None:
    """Read the detector of an entry's folder.

    Args:
        folder: the entry's folder.
        classes: number of the entry's labels.

    Returns:
        The detector; None if the entry has none.

    Raises:
        EntryError: the file is damaged, or does not fit the entry.
    """
    path = folder / OOD_STATISTICS
    if not path.exists():
        return None
    try:
        stored = load_file(path)
        known = {name: key for name, key in TENSORS.items() if name not in OPTIONAL or key in stored}
        detector = OodDetector(**{name: stored[key].astype(np.float32) for name, key in known.items()})
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise EntryError(
            f"{OOD_STATISTICS} of {folder.name} is damaged; fit it again (`python -m training gate`)."
        ) from error
    if not _is_sound(detector, classes):
        raise EntryError(
            f"{OOD_STATISTICS} of {folder.name} does not fit its model; fit it again (`python -m training gate`)."
        )
    return detector


def _is_sound(detector: OodDetector, classes: int) -> bool:
    """Whether all tensors have the right shape and finite values, and the limits make sense."""
    width, directions = detector.axes.shape if detector.axes.ndim == 2 else (0, 0)
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (width,),
        "class_means": (classes, directions),
        "axes": (width, directions),
        "variances": (directions,),
    }
    tensors = {name: getattr(detector, name) for name in TENSORS}
    if any(tuple(tensor.shape) != shapes.get(name, ()) for name, tensor in tensors.items()):
        return False
    return bool(
        all(np.isfinite(tensor).all() for tensor in tensors.values())
        and detector.limit > 0
        and detector.unseen_limit >= 1
        and 0 <= detector.unseen_confidence_limit <= detector.confidence_limit <= 1
    )


def _principal_components(
    within: torch.Tensor, class_means: torch.Tensor, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Directions (d, k) of deviations within classes (n, d), variances (k,) along them, and in all others (scalar).

    The plane of the class means (classes, d) is among the directions.
    """
    count, width = within.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        affordable = max(MIN_DIRECTIONS, MAX_BYTES // (4 * width))  # 4 bytes a number
        axes = torch.svd_lowrank(within, min(DIRECTIONS, width, count, affordable), niter=4)[2]
    axes = torch.linalg.qr(torch.cat([axes, class_means.T], 1)).Q
    along = within @ axes
    variances, rotation = torch.linalg.eigh(along.T @ along / count)
    axes, along = axes @ rotation, along @ rotation
    floor = MIN_VARIANCE * within.square().mean()
    others = width - axes.shape[1]
    residual = (within.square().sum(1) - along.square().sum(1)).mean() / max(others, 1)
    if not others:
        residual = torch.tensor(1e12)  # no direction is left: what remains is rounding
    return axes, variances.clamp(min=floor), residual.clamp(min=floor)


def _quantile(detector: OodDetector, vectors: np.ndarray, false_alarms: float) -> np.ndarray:
    """The distance that all but a share of `false_alarms` of the embeddings (n, d) stay within."""
    found = detector.relative_distances(np.asarray(vectors, np.float32))
    return np.asarray(np.quantile(found, 1 - false_alarms), np.float32)


def _tensor(vectors: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(vectors, np.float32))


def _normalised(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=1, eps=1e-6)
