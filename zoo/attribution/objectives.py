"""Scores to explain: of one class, of one class against another, or of one class against the most similar ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.attribution.features import PREDICTED
from zoo.attribution.network import Objective
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

COMPARISON_STRENGTH = 1.0  # FinerCAM's alpha
SIMILAR_CLASSES = 3  # compared with, as FinerCAM's authors do


def resolve_targets(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Replace PREDICTED in label numbers (B,) by the predicted class of logits (B, classes)."""
    return torch.where(targets == PREDICTED, logits.detach().argmax(1), targets)


def score(targets: torch.Tensor) -> Objective:
    """Make the objective "logit of `targets`" (B,): label numbers, or PREDICTED."""
    return lambda logits: logits.gather(1, resolve_targets(logits, targets)[:, None])[:, 0]


def contrast(targets: torch.Tensor, against: torch.Tensor) -> Objective:
    """Make the objective "logit of `targets` minus logit of `against`", both (B,): why this class and not that."""
    first = score(targets)
    return lambda logits: first(logits) - logits.gather(1, against[:, None])[:, 0]


def finer(targets: torch.Tensor) -> Objective:
    """Make FinerCAM's objective: `targets` (B,) compared with the classes whose logits are nearest.

    Zhang et al. 2025, arXiv:2501.11309.
    """

    def objective(logits: torch.Tensor) -> torch.Tensor:
        target = resolve_targets(logits, targets)[:, None]
        own = logits.gather(1, target)
        differences = (logits.detach() - own.detach()).abs().scatter(1, target, -1.0)
        similar = differences.argsort(1)[:, 1 : 1 + SIMILAR_CLASSES]
        weights = logits.softmax(1).gather(1, similar)
        gaps = own - COMPARISON_STRENGTH * logits.gather(1, similar)
        return (weights * gaps).sum(1) / (weights.sum(1) + 1e-9)

    return objective
