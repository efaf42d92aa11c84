"""Boxes from the detector's maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torchvision.ops import batched_nms

from zoo.detection.network import STRIDE

MAX_OBJECTS = 3000  # of one pass
SAME_CELL = 0.6  # IoU of two boxes of one object from which the weaker is dropped


@dataclass(frozen=True)
class Found:
    """Objects found: boxes (n, 4) in pixels, confidences (n,) falling, and numbers of objects (n,)."""

    boxes: np.ndarray
    confidences: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def where(self, kept: np.ndarray) -> Found:
        """Those that `kept` (n,) names."""
        return Found(self.boxes[kept], self.confidences[kept], self.numbers[kept])


def read_maps(logits: torch.Tensor, sides: torch.Tensor, least: float) -> list[Found]:
    """Objects of each picture of a batch whose confidence is at least `least`; see `CellDetector` for the maps."""
    heat = torch.sigmoid(logits)
    peaks = heat * (functional.max_pool2d(heat, 3, stride=1, padding=1) == heat)
    return [_read(one, box, least) for one, box in zip(peaks, sides, strict=True)]


def _read(peaks: torch.Tensor, sides: torch.Tensor, least: float) -> Found:
    numbers, y, x = torch.nonzero(peaks >= least, as_tuple=True)
    confidences = peaks[numbers, y, x]
    if len(confidences) > MAX_OBJECTS:
        strongest = confidences.topk(MAX_OBJECTS).indices
        numbers, y, x, confidences = numbers[strongest], y[strongest], x[strongest], confidences[strongest]
    left, top, right, bottom = sides[:, y, x]
    middle_x, middle_y = (x + 0.5) * STRIDE, (y + 0.5) * STRIDE
    boxes = torch.stack([middle_x - left, middle_y - top, middle_x + right, middle_y + bottom], dim=1)
    return suppress(boxes, confidences, numbers)


def suppress(boxes: torch.Tensor, confidences: torch.Tensor, numbers: torch.Tensor) -> Found:
    """Drop weaker boxes of the same cell, and sort by confidence."""
    kept = batched_nms(boxes.float(), confidences.float(), numbers, SAME_CELL)
    return Found(boxes[kept].numpy(), confidences[kept].numpy(), numbers[kept].numpy())
