"""What is to be explained? One class's score, what sets it off against another, or against all that are like it."""

from __future__ import annotations

import torch

from zoo.attribution.features import PREDICTED, Objective

STRENGTH = 1.0  # of the comparison, FinerCAM's alpha
RIVALS = 3  # most similar classes compared with, as FinerCAM's authors do


def chosen(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Label numbers (B,) in which PREDICTED stands for the likeliest."""
    return torch.where(targets == PREDICTED, logits.detach().argmax(1), targets)


def score(targets: torch.Tensor) -> Objective:
    """Logit of the classes `targets` (B,): label numbers, or PREDICTED."""
    return lambda logits: logits.gather(1, chosen(logits, targets)[:, None])[:, 0]


def contrast(targets: torch.Tensor, against: torch.Tensor) -> Objective:
    """Logit of `targets` minus that of `against` (B,): why this class and not that."""
    first = score(targets)
    return lambda logits: first(logits) - logits.gather(1, against[:, None])[:, 0]


def finer(targets: torch.Tensor) -> Objective:
    """What tells `targets` (B,) from the classes whose logits are nearest (FinerCAM, Zhang et al. 2025).

    arXiv:2501.11309.
    """

    def objective(logits: torch.Tensor) -> torch.Tensor:
        target = chosen(logits, targets)[:, None]
        own = logits.gather(1, target)
        away = (logits.detach() - own.detach()).abs().scatter(1, target, -1.0)
        rivals = away.argsort(1)[:, 1 : 1 + RIVALS]
        shares = logits.softmax(1).gather(1, rivals)
        gaps = own - STRENGTH * logits.gather(1, rivals)
        return (shares * gaps).sum(1) / (shares.sum(1) + 1e-9)

    return objective
