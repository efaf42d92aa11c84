"""Measures of how well a map shows what the model uses, from the model's answers to changed pictures.

ROAD (Rong et al. 2022, arXiv:2202.00449), deletion and insertion (Petsiuk et al. 2018, arXiv:1806.07421), pointing game
and energy inside a box (Zhang et al. 2018, doi:10.1007/s11263-017-1059-x; Wang et al. 2020, arXiv:1910.01279). The
first three need no annotation, only a way to run the model; all work at the model's own input size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch.nn import functional
else:
    torch = lazy_module("torch")
    functional = lazy_module("torch.nn.functional")

Predict = Callable[[Sequence["torch.Tensor"]], np.ndarray]  # uint8 pictures (3, H, W) → probabilities (n, classes)
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

REMOVED_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the pixels, for ROAD
CURVE_STEPS = 10  # pictures of a deletion or insertion curve, beside its beginning
NOISE = 0.01 * 255  # 8-bit levels, added where pixels are filled in, so that these cannot be told by their smoothness


@dataclass(frozen=True)
class Faithfulness:
    """Faithfulness of one map.

    Attributes:
        road: how much more the class loses by the pixels that the map marks than by the others; −1..1, 0 by chance.
        deletion: area under the class's probability while marked pixels are removed; 0..1, low is good.
        insertion: the same while they are added; 0..1, high is good.
    """

    road: float
    deletion: float
    insertion: float


def enlarge(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a map (h, w) to the model's input size (H, W), bilinear."""
    values = torch.from_numpy(np.ascontiguousarray(cam, np.float32))[None, None]
    return functional.interpolate(values, size, mode="bilinear", align_corners=False)[0, 0].numpy()


def road(predict: Predict, picture: torch.Tensor, cam: np.ndarray, label: int, seed: int = 0) -> float:
    """Compute ROAD, with pytorch-grad-cam's linear imputation of the removed pixels.

    Args:
        predict: runs the model.
        picture: uint8 (3, H, W).
        cam: map (h, w).
        label: number of the class that the map explains.
        seed: of the noise on imputed pixels.

    Returns:
        Half of what the class keeps when the least relevant pixels are removed, minus what it keeps when the most
        relevant are, in the mean over REMOVED_SHARES.
    """
    ranks = _ranks(cam, (picture.shape[1], picture.shape[2]))
    masks = [ranks >= share for share in REMOVED_SHARES] + [ranks < 1 - share for share in REMOVED_SHARES]
    random = torch.Generator().manual_seed(seed)
    kept = predict([_imputed(picture, mask, random) for mask in masks])[:, label]
    most, least = kept[: len(REMOVED_SHARES)].mean(), kept[len(REMOVED_SHARES) :].mean()
    return float(least - most) / 2


def curves(predict: Predict, picture: torch.Tensor, cam: np.ndarray, label: int) -> tuple[float, float]:
    """Compute deletion and insertion, with a blurred picture for removed pixels.

    Args:
        predict: runs the model.
        picture: uint8 (3, H, W).
        cam: map (h, w).
        label: number of the class that the map explains.

    Returns:
        Mean probability of the class while the most relevant pixels are blurred, a tenth more each time, and while
        they are put back into the blurred picture.
    """
    ranks = _ranks(cam, (picture.shape[1], picture.shape[2]))
    side = max(3, min(picture.shape[1:]) // 6 * 2 + 1)
    padded = functional.pad(picture[None].float(), [side // 2] * 4, mode="replicate")
    blurred = functional.avg_pool2d(padded, side, stride=1)[0].round().to(torch.uint8)
    shares = np.arange(CURVE_STEPS + 1) / CURVE_STEPS
    deleted = [torch.where(torch.from_numpy(ranks < share), blurred, picture) for share in shares]
    inserted = [torch.where(torch.from_numpy(ranks < share), picture, blurred) for share in shares]
    kept = predict([*deleted, *inserted])[:, label]
    weights = np.ones(CURVE_STEPS + 1)
    weights[[0, -1]] = 0.5  # trapezoids
    deletion, insertion = kept[: CURVE_STEPS + 1], kept[CURVE_STEPS + 1 :]
    return float(np.average(deletion, weights=weights)), float(np.average(insertion, weights=weights))


def faithfulness(predict: Predict, picture: torch.Tensor, cam: np.ndarray, label: int) -> Faithfulness:
    """Compute all measures of a map (h, w) for class number `label` on a picture, uint8 (3, H, W)."""
    return Faithfulness(road(predict, picture, cam, label), *curves(predict, picture, cam, label))


def points_inside(values: np.ndarray, box: Box) -> bool:
    """Play the pointing game: whether the largest value of a map (H, W) lies in a box; of a flat top, its middle."""
    rows, columns = np.nonzero(values == values.max())
    row, column = rows.mean(), columns.mean()
    if values[round(row), round(column)] < values.max():
        row, column = rows[0], columns[0]
    left, top, right, bottom = box
    return bool(left <= column + 0.5 <= right and top <= row + 0.5 <= bottom)


def energy_inside(values: np.ndarray, box: Box) -> float:
    """Compute the share of a map's (H, W) sum that lies in a box; nan for an empty map."""
    left, top, right, bottom = (round(edge) for edge in box)
    total = float(values.sum())
    return float(values[max(top, 0) : bottom, max(left, 0) : right].sum()) / total if total > 0 else float("nan")


def share_of(box: Box, size: tuple[int, int]) -> float:
    """Compute the share of a picture of `size` (width, height) that a box covers: what chance would score."""
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


def _imputed(picture: torch.Tensor, kept: np.ndarray, random: torch.Generator) -> torch.Tensor:
    """The picture with all pixels but the kept ones imputed from their neighbours, and a little noise on these."""
    # imported here because it takes long: the module brings half of the library
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer  # noqa: PLC0415

    mask = torch.from_numpy(kept.astype(np.float32))
    filled = NoisyLinearImputer(noise=0)(picture.float(), mask)
    filled += NOISE * (1 - mask) * torch.randn(picture.shape, generator=random)
    return filled.round().clamp(0, 255).to(torch.uint8)
