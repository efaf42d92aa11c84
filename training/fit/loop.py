"""The training loop: `train`, `train_one_epoch` and `evaluate`, in the order in which they happen.

Everything else is called from here: batches with their augmentations (`batches`, `augment`), the learning rate
(`schedules`), one optimisation step (`step`), precision (`devices`), averages and checkpoints (`state`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from training.fit.batches import VALIDATION_BATCH, Arrays
from training.fit.networks.network import build_model, set_training_mode
from training.fit.processor.devices import autocast
from training.fit.processor.forecast import Forecast
from training.fit.schedules import history_scale
from training.fit.state import Build, Figures, Fitted, Scores, TrainingState
from training.fit.step import train_step
from training.fit.stopping import TrainingStopped, stop_on_interrupt
from training.prepare.splits import Split
from training.recipe import Recipe
from zoo.progress import duration, progress_bar

SAVE_SECONDS = 60.0  # between two checkpoints within an epoch


def train(
    recipe: Recipe,
    data: Arrays,
    split: Split,
    work: Path,
    accelerator: Accelerator,
    resume: bool = False,
    finish: bool = False,
    start: nn.Module | None = None,
    hooks: Hooks | None = None,
) -> Fitted:
    """Train a recipe on the split's training rows; the best epoch on the validation rows is kept.

    Args:
        recipe: What is trained, and how.
        data: Pictures and labels.
        split: Rows for training and validation.
        work: Folder for `checkpoint.safetensors`, `history.json` and `run.json`.
        accelerator: The process's device, and the other processes.
        resume: Continue from the checkpoint in `work`.
        finish: Return the best epoch of the unfinished run in `work`.
        start: Network to start with, where the recipe names another entry.
        hooks: Functions that replace parts of the loop.

    Returns:
        The network with its history.

    Raises:
        TrainingStopped: Ctrl-C was pressed, or the process was told to end. The running step is finished and the state
            saved; where that takes too long, the state that was saved before is kept.
        DivergedError: The loss is no longer a number.
        FitError: The disk is full, or memory is too small for two pictures.
        CheckpointError: The checkpoint is damaged, or was made for another training.
    """
    hooks = hooks or Hooks()
    torch.manual_seed(recipe.seed)
    state = TrainingState(recipe, data, split, work, accelerator, start, hooks.build)
    if resume or finish:
        state.resume()
    if finish:
        return state.result()
    with hooks.interrupts() as interrupted, state.saved_at_the_end():
        while not state.done:
            train_one_epoch(state, interrupted, hooks.runs_after)
            figures = state.finish_epoch(hooks.evaluate(state))
            state.save_epoch()
            state.report_epoch(figures)
            hooks.after_epoch(figures)
    return state.result()


def train_one_epoch(state: TrainingState, interrupted: Callable[[], bool], runs_after: int = 0) -> None:
    """Train on what is left of the running epoch, saving the state from time to time.

    Args:
        state: The training.
        interrupted: Tells after each step whether to stop.
        runs_after: Number of runs that follow this one, which count in the time that is told.

    Raises:
        TrainingStopped: It was interrupted; the state is saved.
        DivergedError, FitError: See `train_step`.
    """
    set_training_mode(state.model)
    state.unsaved = False  # within a step the weights are not those of an epoch's end
    epoch, position = state.epoch_number, state.position
    history_factor = history_scale(state.recipe.schedule, state.stage_history)
    rows_of_batches = state.rows_to_come()
    saved = time.monotonic()
    with _progress_bar(state) as bar:
        batches = state.batches.training(epoch, rows_of_batches)
        for rows, batch in zip(rows_of_batches, batches, strict=True):
            train_step(state, batch, rows, history_factor)
            loss = position.sums[0] / position.sums[2]
            bar.set_postfix_str(f"loss {loss:.3f}{_left_in_all(state, runs_after)}", refresh=False)
            bar.update(len(rows) * state.world)
            state.report_progress()
            stop, save = state.any_process(interrupted(), time.monotonic() - saved > SAVE_SECONDS)
            if stop or save:
                state.save()
                saved = time.monotonic()
            if stop:
                raise TrainingStopped(
                    f"Stopped in epoch {epoch + 1} after {position.step} of {state.steps} steps. "
                    "Give the same command with --resume to continue from here."
                )


@torch.no_grad()
def evaluate(state: TrainingState) -> Scores:
    """Score the weights that would be kept on the validation rows, shared among the processes."""
    forward = state.forward_of(state.evaluated_model.eval())
    rows, classes = state.split.rows["val"], len(state.recipe.labels)
    parts = [torch.zeros(0, classes)]
    for batch in _validation_inputs(state, rows[state.process :: state.world]):
        inputs = batch.to(state.device)
        with autocast(state.device, state.recipe.schedule.precision):
            logits = forward(inputs)
        parts.append(logits[:, :classes].float().log_softmax(1).cpu())
    log_probabilities, labels = state.gathered(torch.cat(parts), len(rows)), state.data.labels[rows]
    correct = log_probabilities.argmax(1) == labels
    balanced = np.mean([correct[labels == label].mean() for label in np.unique(labels)])
    loss = -log_probabilities[np.arange(len(rows)), labels].mean()
    return Scores(float(loss), float(correct.mean()), float(balanced))


def _validation_inputs(state: TrainingState, rows: np.ndarray) -> Iterator[torch.Tensor]:
    """Inputs of validation rows, in portions: as they are, or changed at random where the recipe says so."""
    if not state.recipe.schedule.augment_validation:
        return state.batches.plain(rows)
    portions = [rows[start : start + VALIDATION_BATCH] for start in range(0, len(rows), VALIDATION_BATCH)]
    return (inputs for inputs, _, _ in state.batches.training(state.epoch_number, portions))


@dataclass(frozen=True)
class Hooks:
    """Functions that a caller of `train` may replace, and what it knows of other runs.

    `after_epoch` gets each epoch's figures and may raise to end the training. `interrupts` is a context manager that
    yields a function which tells after each step whether to stop. `runs_after` is the number of runs that follow.
    """

    after_epoch: Callable[[Figures], None] = lambda figures: None
    build: Build = build_model
    evaluate: Callable[[TrainingState], Scores] = evaluate
    interrupts: Callable[[], AbstractContextManager[Callable[[], bool]]] = stop_on_interrupt
    runs_after: int = 0


def _progress_bar(state: TrainingState) -> tqdm:
    return progress_bar(
        description=f"epoch {state.epoch_number + 1}/{state.recipe.epochs}",
        total=sum(state.sizes),
        initial=sum(state.sizes[: state.position.step]),
        unit="image",
        disable=not state.is_main,
    )


def _left_in_all(state: TrainingState, runs_after: int) -> str:
    """Phrase on the time that all epochs, all runs that follow and scoring still take."""
    sizes = {side: len(rows) for side, rows in state.split.rows.items()}
    forecast = Forecast.of(state.recipe, sizes, runs_after=runs_after)
    left = forecast.left(state.epoch_number, state.position.step / state.steps, state.seconds)
    return "" if left is None else f", about {duration(left)} left in all"
