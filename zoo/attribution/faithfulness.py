"""Does a map show what the model really uses? Measures of one map, of what the model says when pictures are changed.

ROAD (Rong et al. 2022, arXiv:2202.00449), deletion and insertion (Petsiuk et al. 2018, arXiv:1806.07421), pointing game
and energy inside a box (Zhang et al. 2018, doi:10.1007/s11263-017-1059-x; Wang et al. 2020, arXiv:1910.01279). The
first three need no annotation, only a way to ask the model; all work at the model's own input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

Ask = Callable[[Sequence[torch.Tensor]], np.ndarray]  # uint8 pictures (3, H, W) → probabilities (n, classes)
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the pixels taken away, for ROAD
STEPS = 10  # pictures of a deletion or insertion curve, beside its beginning
NOISE = 0.01 * 255  # added where pixels are filled in, so that filled parts cannot be told by their smoothness


@dataclass(frozen=True)
class Faithfulness:
    """`road`: how much more the class loses by what the map marks than by what it does not (−1..1, 0 for a map by
    chance). `deletion` (low is good) and `insertion` (high is good): areas under the class's probability, 0..1.
    """

    road: float
    deletion: float
    insertion: float


def enlarge(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) at the model's input size (H, W), bilinear."""
    values = torch.from_numpy(np.ascontiguousarray(cam, np.float32))[None, None]
    return functional.interpolate(values, size, mode="bilinear", align_corners=False)[0, 0].numpy()


def road(ask: Ask, picture: torch.Tensor, cam: np.ndarray, label: int, seed: int = 0) -> float:
    """ROAD of a map (h, w) for class number `label` on a picture, uint8 (3, H, W).

    Half of what the class keeps when the least relevant pixels go, minus what it keeps when the most relevant go, in
    the mean over SHARES.

    Pixels that go are filled in from their neighbours by pytorch-grad-cam's linear imputation.
    """
    order = _ranks(cam, tuple(picture.shape[1:]))
    masks = [order >= share for share in SHARES] + [order < 1 - share for share in SHARES]
    random = torch.Generator().manual_seed(seed)
    kept = ask([_filled(picture, mask, random) for mask in masks])[:, label]
    most, least = kept[: len(SHARES)].mean(), kept[len(SHARES) :].mean()
    return float(least - most) / 2


def curves(ask: Ask, picture: torch.Tensor, cam: np.ndarray, label: int) -> tuple[float, float]:
    """Deletion and insertion of a map (h, w): mean probability of `label` while the picture's most relevant pixels are
    blurred away one tenth after the other, or come back into the blurred picture.
    """
    order = _ranks(cam, tuple(picture.shape[1:]))
    side = max(3, min(picture.shape[1:]) // 6 * 2 + 1)
    padded = functional.pad(picture[None].float(), [side // 2] * 4, mode="replicate")
    blurred = functional.avg_pool2d(padded, side, stride=1)[0].round().to(torch.uint8)
    shares = np.arange(STEPS + 1) / STEPS
    gone = [torch.where(torch.from_numpy(order < share), blurred, picture) for share in shares]
    back = [torch.where(torch.from_numpy(order < share), picture, blurred) for share in shares]
    kept = ask([*gone, *back])[:, label]
    weights = np.ones(STEPS + 1)
    weights[[0, -1]] = 0.5  # trapezoids
    return tuple(float(np.average(part, weights=weights)) for part in (kept[: STEPS + 1], kept[STEPS + 1 :]))


def faithfulness(ask: Ask, picture: torch.Tensor, cam: np.ndarray, label: int) -> Faithfulness:
    """All of a map (h, w) for class number `label` on a picture, uint8 (3, H, W)."""
    return Faithfulness(road(ask, picture, cam, label), *curves(ask, picture, cam, label))


def points_inside(values: np.ndarray, box: Box) -> bool:
    """Pointing game: whether the largest value of a map (H, W) lies in a box; of a flat top, its middle."""
    rows, columns = np.nonzero(values == values.max())
    row, column = rows.mean(), columns.mean()
    if values[round(row), round(column)] < values.max():
        row, column = rows[0], columns[0]
    left, top, right, bottom = box
    return bool(left <= column + 0.5 <= right and top <= row + 0.5 <= bottom)


def energy_inside(values: np.ndarray, box: Box) -> float:
    """Share of a map's (H, W) sum that lies in a box; nan for an empty map."""
    left, top, right, bottom = (round(edge) for edge in box)
    total = float(values.sum())
    return float(values[max(top, 0) : bottom, max(left, 0) : right].sum()) / total if total > 0 else float("nan")


def share_of(box: Box, size: tuple[int, int]) -> float:
    """Share of a picture of `size` (width, height) that a box covers: what chance would score."""
    left, top, right, bottom = box
    width, height = size
    across, down = min(right, width) - max(left, 0), min(bottom, height) - max(top, 0)
    return max(across, 0) * max(down, 0) / (width * height)


def _ranks(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """For each pixel the share of pixels that are more relevant, (H, W) in 0..1; equal ones in a fixed random order."""
    values = enlarge(cam, size).ravel()
    order = np.lexsort((np.random.default_rng(0).random(len(values)), -values))
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values)) / len(values)
    return ranks.reshape(size)


def _filled(picture: torch.Tensor, kept: np.ndarray, random: torch.Generator) -> torch.Tensor:
    """The picture with all pixels but the kept ones filled in from their neighbours, and a little noise on these."""
    # imported where it is used: the module brings half of the library
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer  # noqa: PLC0415

    mask = torch.from_numpy(kept.astype(np.float32))
    filled = NoisyLinearImputer(noise=0)(picture.float(), mask)
    filled += NOISE * (1 - mask) * torch.randn(picture.shape, generator=random)
    return filled.round().clamp(0, 255).to(torch.uint8)
