"""Learning-rate schedules and early stopping: functions of the recipe and the history alone, without state.

To add a schedule, write one function decorated with `learning_rate_schedule`: `schedule.rate` then accepts its name.
The courses are torch's own schedulers, run ahead on a dummy, so that a resumed run needs only its step and its history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch.optim import lr_scheduler

    from training.recipe import Schedule
else:
    torch = lazy_module("torch")
    lr_scheduler = lazy_module("torch.optim.lr_scheduler")

MIN_IMPROVEMENT = 1e-4  # of a metric, for an epoch to count as better than the plateau; ours

History = Sequence[dict[str, float]]
Course = Callable[[float, int], np.ndarray]
Scale = Callable[["Schedule", History], float]


@dataclass(frozen=True)
class LearningRateSchedule:
    """One registered schedule.

    `course` gives the rate of each step after the warm-up, float64 (steps,), from base rate and number of steps.
    `scale` is the factor that a stage's history puts on it.
    """

    name: str
    course: Course
    scale: Scale


SCHEDULES: dict[str, LearningRateSchedule] = {}


def learning_rate_schedule(name: str, scale: Scale = lambda schedule, history: 1.0) -> Callable[[Course], Course]:
    """Register a function as the learning-rate schedule `name` of recipes.

    Args:
        name: Value of `schedule.rate`.
        scale: Factor on the rate, from the recipe's [schedule] and the stage's history so far.

    Returns:
        A decorator for a function from the base rate and the number of steps (2 or more) to the rate of each step.

    Raises:
        ValueError: The name is already registered.
    """

    def register(course: Course) -> Course:
        if name in SCHEDULES:
            raise ValueError(f"The learning-rate schedule {name} is registered twice.")
        SCHEDULES[name] = LearningRateSchedule(name, course, scale)
        return course

    return register


@learning_rate_schedule("constant")
def constant(lr: float, steps: int) -> np.ndarray:
    """Keep the rate."""
    return np.full(steps, lr)


@learning_rate_schedule("cosine")
def cosine(lr: float, steps: int) -> np.ndarray:
    """Lower the rate to 0 along half a cosine (Loshchilov & Hutter 2017, SGDR, arXiv:1608.03983)."""
    return _followed(lr, steps, lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, steps))


@learning_rate_schedule("one_cycle")
def one_cycle(lr: float, steps: int) -> np.ndarray:
    """Raise the rate to `lr` and lower it further down than it began (Smith & Topin 2018, arXiv:1708.07120)."""
    return _followed(lr, steps, lambda optimizer: lr_scheduler.OneCycleLR(optimizer, lr, steps, cycle_momentum=False))


def reduced_on_plateau(schedule: Schedule, history: History) -> float:
    """Return the factor that torch's ReduceLROnPlateau reaches over a stage's history."""
    optimizer = _dummy(1.0)
    mode: Literal["min", "max"] = "min" if lower_is_better(schedule.plateau_metric) else "max"
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode,
        schedule.plateau_factor,
        schedule.plateau_patience,
        threshold=MIN_IMPROVEMENT,
        threshold_mode="abs",
    )
    for entry in history:
        scheduler.step(entry[schedule.plateau_metric])
    return optimizer.param_groups[0]["lr"]


learning_rate_schedule("plateau", reduced_on_plateau)(constant)


def learning_rates(schedule: Schedule, lr: float, epochs: int, steps: int) -> np.ndarray:
    """Compute the learning rate of each step of a stage, before the factor that the history puts on it.

    Args:
        schedule: The recipe's [schedule]: its rate and warm-up. The warm-up rises linearly to the course's first rate.
        lr: Base rate.
        epochs: Epochs of the stage.
        steps: Steps of an epoch.

    Returns:
        float64 (epochs · steps,).
    """
    total = epochs * steps
    warmup = min(round(schedule.warmup_epochs * steps), total - 1)
    # a scheduler needs two steps
    course = SCHEDULES[schedule.rate].course(lr, max(total - warmup, 2))[: total - warmup]
    rising = course[0] * np.arange(1, warmup + 1) / (warmup + 1)
    return np.concatenate([rising, course])


def history_scale(schedule: Schedule, history: History) -> float:
    """Return the factor that a stage's history puts on the learning rate."""
    return SCHEDULES[schedule.rate].scale(schedule, history)


def should_stop(schedule: Schedule, history: History) -> bool:
    """Whether the last `stop_patience` epochs of a stage's history brought nothing better."""
    if schedule.stop_patience is None or len(history) <= schedule.stop_patience:
        return False
    sign = 1 if lower_is_better(schedule.stop_metric) else -1
    values = [sign * entry[schedule.stop_metric] for entry in history]
    return len(values) - 1 - int(np.argmin(values)) >= schedule.stop_patience


def lower_is_better(metric: str) -> bool:
    """Whether a metric of the history is a loss."""
    return metric.endswith("loss")


def _followed(lr: float, steps: int, make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]) -> np.ndarray:
    """Rate of each step under a scheduler of torch."""
    optimizer = _dummy(lr)
    scheduler = make(optimizer)
    rates = np.empty(steps)
    for step in range(steps):
        rates[step] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()
    return rates


def _dummy(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
