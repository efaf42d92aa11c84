"""How does the learning rate go, and when is it enough? Functions of the recipe and of the history alone, no state.

The courses are torch's own schedulers, run ahead on a dummy, so that a run that is taken up again needs nothing but its
step and its history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import SGD, lr_scheduler

from training.recipe import Schedule

History = Sequence[dict[str, float]]
COURSES: dict[str, Callable[[torch.optim.Optimizer, int], lr_scheduler.LRScheduler]] = {
    "cosine": lr_scheduler.CosineAnnealingLR,
    "one_cycle": lambda optimizer, steps: lr_scheduler.OneCycleLR(
        optimizer, optimizer.param_groups[0]["lr"], steps, cycle_momentum=False
    ),
}


def rates(schedule: Schedule, lr: float, epochs: int, steps: int) -> np.ndarray:
    """Learning rate of each step of a stage of `epochs` epochs of `steps` steps, float64 (epochs · steps,).

    Warm-up rises linearly to the first rate of the course. `plateau` is constant here: see `plateau_scale`.
    """
    total, warmup = epochs * steps, min(round(schedule.warmup_epochs * steps), epochs * steps - 1)
    course = np.full(total, lr)
    if schedule.rate in COURSES:
        optimizer = _dummy(lr)
        scheduler = COURSES[schedule.rate](optimizer, max(total - warmup, 2))
        for step in range(warmup, total):
            course[step] = optimizer.param_groups[0]["lr"]
            optimizer.step()
            if step + 1 < total:
                scheduler.step()
    course[:warmup] = course[warmup] * np.arange(1, warmup + 1) / (warmup + 1)
    return course


def plateau_scale(schedule: Schedule, history: History) -> float:
    """What a stage's `history` has made of the learning rate, as a factor; 1 unless the recipe's rate is `plateau`."""
    if schedule.rate != "plateau":
        return 1.0
    optimizer = _dummy(1.0)
    mode: Any = "min" if lower_is_better(schedule.plateau_metric) else "max"
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, schedule.plateau_factor, schedule.plateau_patience, threshold=1e-4, threshold_mode="abs"
    )
    for entry in history:
        scheduler.step(entry[schedule.plateau_metric])
    return optimizer.param_groups[0]["lr"]


def is_enough(schedule: Schedule, history: History) -> bool:
    """Whether the last `stop_patience` epochs of a stage's `history` brought nothing better."""
    if schedule.stop_patience is None or len(history) <= schedule.stop_patience:
        return False
    sign = 1 if lower_is_better(schedule.stop_metric) else -1
    values = [sign * entry[schedule.stop_metric] for entry in history]
    return len(values) - 1 - int(np.argmin(values)) >= schedule.stop_patience


def lower_is_better(metric: str) -> bool:
    """Whether a metric of the history is a loss."""
    return metric.endswith("loss")


def _dummy(lr: float) -> torch.optim.Optimizer:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr)
