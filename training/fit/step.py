"""One optimisation step: mixing, the loss, gradients in parts that fit into memory, and the update of the weights."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from timm.data import Mixup
from torch import nn
from tqdm import tqdm

from training.fit.batches import Arrays, Batch
from training.fit.networks.auxiliary import AttributeLoss, choices
from training.fit.processor.devices import autocast
from training.fit.stopping import DivergedError, FitError, is_out_of_memory
from training.recipe import Recipe

if TYPE_CHECKING:
    from training.fit.state import TrainingState

MIN_PART = 2  # pictures run at a time: batch norm needs two
STEP_SEED_STEP = 1_000_003  # prime, so that seeds of different recipes do not share steps


class Objective:
    """Training objective: the weighted class loss, that of attributes, L2, and the mixing of pictures."""

    def __init__(self, recipe: Recipe, data: Arrays) -> None:
        self.classes = len(recipe.labels)
        self.l2 = recipe.optimizer.l2
        self.mixup = _make_mixup(recipe)
        # mixed targets come smoothed
        smoothing = 0.0 if self.mixup else recipe.optimizer.label_smoothing
        self.criterion = nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
        self.known = data.attributes
        weight = recipe.attributes.weight if recipe.attributes else 0.0
        self.attribute_loss = AttributeLoss(self.classes, choices(data.attributes), weight)

    def known_attributes(self, rows: np.ndarray) -> torch.Tensor | None:
        """Attributes of `rows`, int64 (rows, attributes); None if none are learnt."""
        return None if self.known is None else torch.from_numpy(self.known[rows])


@dataclass(frozen=True)
class StepInputs:
    """A batch on the device: pictures or features, label numbers, targets of the loss, weights, attributes if any."""

    inputs: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    attributes: torch.Tensor | None


def train_step(state: TrainingState, batch: Batch, rows: np.ndarray, history_factor: float) -> None:
    """Take one optimisation step on this process's part of a batch.

    Args:
        state: The training; its weights and its position change.
        batch: Inputs, labels and weights of `rows`.
        rows: Row numbers of the pictures in the data.
        history_factor: Factor that the history puts on the learning rate.

    Raises:
        DivergedError: The loss is no longer a number.
        FitError: There is not enough memory for two pictures.
    """
    number = state.global_step
    # fixes dropout independently of what went before; every process draws its own
    torch.manual_seed((state.recipe.training_seed * STEP_SEED_STEP + number) * state.world + state.process)
    state.set_learning_rate(state.position.step, history_factor)
    prepared = _prepare(state, batch, rows, number)
    loss, correct = _gradients_within_memory(state, prepared)
    check_finite(state, loss)
    if state.recipe.optimizer.clip_norm:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.trained, state.recipe.optimizer.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.update_average()
    state.advance(loss, correct, len(prepared.labels))


def check_finite(state: TrainingState, loss: float) -> None:
    """Raise DivergedError if the loss of any process is not a finite number."""
    if state.world > 1:
        loss = float(state.accelerator.reduce(torch.tensor(loss, device=state.device), "sum"))
    if math.isfinite(loss):
        return
    position = state.position
    saved = (
        f"The best epoch so far ({position.best_epoch}) can be made an entry with --finish. "
        if position.history
        else ""
    )
    raise DivergedError(
        f"The loss is no longer a number (epoch {len(position.history) + 1}, step {position.step + 1}). {saved}Lower "
        "the learning rate (--lr RATE) or set optimizer.clip_norm, and start again with --restart."
    )


def _make_mixup(recipe: Recipe) -> Mixup | None:
    augment = recipe.augment
    if not augment.mixup and not augment.cutmix:
        return None
    smoothing = recipe.optimizer.label_smoothing
    return Mixup(augment.mixup, augment.cutmix, label_smoothing=smoothing, num_classes=len(recipe.labels), prob=1.0)


def _prepare(state: TrainingState, batch: Batch, rows: np.ndarray, number: int) -> StepInputs:
    """Move a batch to the device, and mix its pictures if the recipe says so."""
    inputs, labels, weights = batch
    inputs = inputs.to(state.device, non_blocking=True)
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=state.memory_format)
    labels, weights = labels.to(state.device), weights.to(state.device)
    targets = labels
    attributes = state.objective.known_attributes(rows)
    if state.objective.mixup is not None:
        np.random.seed(number % 2**32)  # noqa: NPY002 (timm draws from numpy's global state)
        even = len(labels) // 2 * 2  # it mixes pairs
        inputs, labels, weights = inputs[:even], labels[:even], weights[:even]
        inputs, targets = state.objective.mixup(inputs, labels)
        # timm does not tell which picture of a pair has the larger share: both weights count half
        weights = (weights + weights.flip(0)) / 2
    return StepInputs(inputs, labels, targets, weights, None if attributes is None else attributes.to(state.device))


def _gradients_within_memory(state: TrainingState, batch: StepInputs) -> tuple[float, float]:
    """Compute gradients, with half as many pictures at a time whenever memory is exhausted."""
    while True:
        try:
            return _gradients(state, batch)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            _halve_part(state, error)


def _gradients(state: TrainingState, batch: StepInputs) -> tuple[float, float]:
    """Accumulate the gradients of a batch, part by part; its mean loss and the number of correct predictions."""
    state.optimizer.zero_grad(set_to_none=True)
    objective, count = state.objective, len(batch.labels)
    total, correct = 0.0, 0.0
    starts = range(0, count, state.position.part)
    for start in starts:
        part = slice(start, start + state.position.part)
        with autocast(state.device, state.recipe.schedule.precision):
            outputs = state.runner(batch.inputs[part]).float()
        logits = outputs[:, : objective.classes]
        loss = (objective.criterion(logits, batch.targets[part]) * batch.weights[part]).sum() / count
        if batch.attributes is not None:
            loss = loss + objective.attribute_loss(outputs, batch.attributes[part]) * len(outputs) / count
        if objective.l2:
            loss = loss + objective.l2 * _sum_of_squares(state.decayed, state.device) / len(starts)
        state.accelerator.backward(state.scaler.scale(loss))
        total += loss.item()
        correct += (logits.argmax(1) == batch.labels[part]).sum().item()
    return total, correct


def _sum_of_squares(parameters: list[nn.Parameter], device: torch.device) -> torch.Tensor:
    return sum((parameter.square().sum() for parameter in parameters), torch.zeros((), device=device))


def _halve_part(state: TrainingState, error: BaseException) -> None:
    """Run half as many pictures at a time from now on. Raises FitError if that is impossible."""
    position = state.position
    if state.world > 1 or position.part <= MIN_PART:
        raise FitError(
            f"There is not enough memory for {position.part} pictures at a time. What was saved is in {state.work}. "
            "Choose a smaller model.input_size, more schedule.accumulate, or a smaller model."
        ) from error
    position.part = max(MIN_PART, math.ceil(position.part / 2))
    state.optimizer.zero_grad(set_to_none=True)
    if state.device.type == "cuda":
        torch.cuda.empty_cache()
    parts = math.ceil(state.batch_size / position.part)
    tqdm.write(
        f"Out of memory: continuing with {position.part} pictures at a time, {parts} parts per batch.", file=sys.stderr
    )
