"""Losses of the detector: focal loss of the heat maps and generalised IoU of the boxes."""

from __future__ import annotations

import torch
from torch.nn import functional

FOCUS, NEAR = 2, 4  # exponents of the focal loss (CornerNet, Law & Deng 2018)
BOX_WEIGHT = 5.0  # of the boxes' loss beside the heat maps' (TTFNet)


def detection_loss(
    logits: torch.Tensor,
    sides: torch.Tensor,
    heat: torch.Tensor,
    wanted: torch.Tensor,
    box_weights: torch.Tensor,
    sure: torch.Tensor,
) -> torch.Tensor:
    """Loss of a batch; see `Targets` for the last four, with a first dimension B, and `CellDetector` for the others."""
    cells = (heat == 1).sum().clamp(min=1)
    return _focal(logits, heat, sure[:, None]) / cells + BOX_WEIGHT * (
        (1 - _iou(sides, wanted)) * box_weights
    ).sum() / box_weights.sum().clamp(min=1)


def _focal(logits: torch.Tensor, heat: torch.Tensor, sure: torch.Tensor) -> torch.Tensor:
    probability = torch.sigmoid(logits)
    middle = heat == 1
    right = functional.logsigmoid(logits) * (1 - probability) ** FOCUS
    wrong = functional.logsigmoid(-logits) * probability**FOCUS * (1 - heat) ** NEAR
    return -(torch.where(middle, right, wrong) * sure).sum()


def _iou(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Generalised IoU (Rezatofighi et al. 2019) of boxes around the same places, (B, 4, h, w) → (B, h, w)."""
    found_area = (found[:, 0] + found[:, 2]) * (found[:, 1] + found[:, 3])
    wanted_area = (wanted[:, 0] + wanted[:, 2]) * (wanted[:, 1] + wanted[:, 3])
    inner, outer = torch.minimum(found, wanted), torch.maximum(found, wanted)
    shared = (inner[:, 0] + inner[:, 2]) * (inner[:, 1] + inner[:, 3])
    hull = (outer[:, 0] + outer[:, 2]) * (outer[:, 1] + outer[:, 3])
    joined = found_area + wanted_area - shared
    return shared / joined - (hull - joined) / hull
