"""An endless stream of training crops: fields, composites and pictures without cells, in random colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from training.detection.pictures.composites import CutCell, paste_cells
from training.detection.pictures.crops import Marked, join_quarters, random_crop, random_red_side, scale_for
from training.detection.pictures.targets import make_targets
from training.fit.augment.camera import blur, jpeg, resolution
from training.fit.augment.colour import brightness, contrast, hue, light, saturation, tint
from zoo.detection.objects import OBJECTS, PLATELET

MEAN, STD = 0.5, 0.5
MAX_PASTED = 7  # white cells
MAX_PLATELETS = 5
FILLED = 0.8  # share of a crop's side that a field must fill to be alone in it
JOINED = 0.85  # probability that smaller fields are joined
MIN_QUARTER = 64  # pixels


@dataclass(frozen=True)
class Mix:
    """Shares of the crops, and the side of all of them in pixels."""

    side: int = 256
    composites: float = 0.35
    without_cells: float = 0.05


class CropStream(Dataset[dict[str, torch.Tensor]]):
    """Crop number `i` of an epoch is decided by the seed, the epoch and `i` alone.

    Args:
        fields: Training fields.
        cells: Cells to paste.
        strangers: Pictures that show no cells, (h, w, 3) uint8.
        mix: Shares.
        length: Crops in an epoch.
        seed: Of all randomness.
    """

    def __init__(
        self,
        fields: Sequence[Marked],
        cells: Sequence[CutCell],
        strangers: Sequence[np.ndarray],
        mix: Mix,
        length: int,
        seed: int,
        weights: np.ndarray | None = None,
    ) -> None:
        self.fields, self.strangers, self.mix, self.length, self.seed = fields, strangers, mix, length, seed
        self.white = [cell for cell in cells if cell.number != OBJECTS.index(PLATELET)]
        self.platelets = [cell for cell in cells if cell.number == OBJECTS.index(PLATELET)]
        self.weights = weights
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Picture (3, side, side) and its targets."""
        random = np.random.default_rng((self.seed, self.epoch, index))
        torch.manual_seed(int(random.integers(2**31)))  # the colour functions draw from torch
        crop = self._crop(self.mix.side, random_red_side(random), random)
        crop = replace(crop, pixels=vary(crop.pixels))
        targets = make_targets(crop)
        picture = torch.from_numpy(crop.pixels).permute(2, 0, 1).float().div_(255).sub_(MEAN).div_(STD)
        return {
            "picture": picture,
            "heat": torch.from_numpy(targets.heat),
            "wanted": torch.from_numpy(targets.sides),
            "box_weights": torch.from_numpy(targets.box_weights),
            "sure": torch.from_numpy(targets.sure),
        }

    def _crop(self, side: int, red_side: float, random: np.random.Generator) -> Marked:
        """A crop of one field, or of several side by side where one would leave much of the crop empty."""
        field = self._field(random)
        scale = scale_for(field, red_side)
        small = max(field.pixels.shape[:2]) * scale < FILLED * side
        if small and side // 2 >= MIN_QUARTER and random.random() < JOINED:
            return join_quarters([self._crop(side // 2, red_side, random) for _ in range(4)])
        return random_crop(field, side, scale, random)

    def _field(self, random: np.random.Generator) -> Marked:
        kind = random.random()
        if self.strangers and kind < self.mix.without_cells:
            stranger = self.strangers[int(random.integers(len(self.strangers)))]
            return Marked(stranger, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 4), np.float32))
        field = self.fields[int(random.choice(len(self.fields), p=self.weights))]
        if self.white and kind < self.mix.without_cells + self.mix.composites:
            chosen = [self.white[n] for n in random.integers(len(self.white), size=random.integers(1, MAX_PASTED))]
            if self.platelets:
                few = random.integers(len(self.platelets), size=random.integers(0, MAX_PLATELETS))
                chosen += [self.platelets[n] for n in few]
            return paste_cells(field, chosen, random)
        return field


def vary(pixels: np.ndarray) -> np.ndarray:
    """Random colours, light, focus and storage, as cameras and stains of many laboratories give."""
    pixels = tint(pixels, 0.5)
    pixels = light(pixels, 0.35)
    for change, strength in ((brightness, 0.3), (contrast, 0.35), (saturation, 0.5), (hue, 0.04)):
        pixels = change(pixels, strength)
    pixels = blur(resolution(pixels, 0.45), 1.5)
    if torch.rand(()) < 0.5:
        noise = np.random.default_rng(int(torch.randint(2**31, ())))
        pixels = cv2.add(pixels, noise.normal(0, 1 + 7 * float(torch.rand(())), pixels.shape), dtype=cv2.CV_8U)
    return jpeg(pixels, 40)
