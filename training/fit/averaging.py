"""Weight averaging: several trainings of one recipe become one network (Wortsman et al. 2022, Model soups).

Trainings from one pretrained start differ by the order and augmentation of pictures, in an unseen laboratory by several
points of accuracy. The mean of their weights is as good there as the better ones, and costs no time at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from training.fit.batches import PASS_BATCH, Arrays, PictureBatches
from training.fit.loop import Hooks, train
from training.fit.processor.devices import autocast
from training.fit.state import CHECKPOINT, Fitted
from training.fit.stopping import FitError
from training.prepare.splits import Split
from training.recipe import Recipe
from zoo.progress import progress_bar
from zoo.sources.runs import STATE


def train_runs(
    recipe: Recipe,
    data: Arrays,
    split: Split,
    work: Path,
    accelerator: Accelerator,
    resume: bool = False,
    finish: bool = False,
    start: nn.Module | None = None,
) -> Fitted:
    """Train a recipe as often as `schedule.runs` says, and average the weights.

    Args:
        recipe: What is trained, and how.
        data: Pictures and labels.
        split: Rows for training and validation.
        work: Folder of the running state; each of several runs has a folder of its own in it.
        accelerator: The process's device, and the other processes.
        resume: Continue; complete runs are not trained again.
        finish: Take the runs of which an epoch is complete.
        start: Network to start with, where the recipe names another entry.

    Raises:
        TrainingStopped, FitError, CheckpointError: See `training.fit.loop.train`.
    """
    if recipe.schedule.runs == 1:
        return train(recipe, data, split, work, accelerator, resume, finish, start)
    runs = []
    for number in range(recipe.schedule.runs):
        place = work / f"run-{number + 1}"
        begun = (place / CHECKPOINT).exists()
        accelerator.wait_for_everyone()  # all processes have looked before one of them begins the run
        if finish and not begun:
            continue
        place.mkdir(parents=True, exist_ok=True)
        try:
            hooks = Hooks(runs_after=recipe.schedule.runs - number - 1)
            one = recipe.of_run(number)
            runs.append(train(one, data, split, place, accelerator, resume and begun, finish, start, hooks))
        except FitError:
            if not (finish and runs):
                raise
        if accelerator.is_main_process:
            (place / STATE).unlink(missing_ok=True)  # it is no longer in training
    return average(recipe, data, split, runs, accelerator.device)


def has_unfinished_run(work: Path) -> bool:
    """Whether the folder `work` holds a training that can be continued."""
    return bool(unfinished_runs(work))


def unfinished_runs(work: Path) -> list[Path]:
    """Checkpoints of the trainings in the folder `work` that can be continued."""
    return [place for place in (work / CHECKPOINT, *sorted(work.glob(f"run-*/{CHECKPOINT}"))) if place.exists()]


def average(recipe: Recipe, data: Arrays, split: Split, runs: Sequence[Fitted], device: torch.device) -> Fitted:
    """Average the weights of trained networks, and measure batch-norm statistics anew on training pictures.

    Activations of averaged weights are smaller than each of the networks' statistics expect.

    Returns:
        The averaged network. Its history holds all epochs, with the number of their run; it has no best epoch (0).
    """
    averaged = AveragedModel(runs[0].model, use_buffers=True)
    for fitted in runs:
        averaged.update_parameters(fitted.model)
    network = averaged.module.to(device)
    pictures = PictureBatches(recipe, data, recipe.network.input_size, split.rows["train"])
    rows = np.random.default_rng(recipe.training_seed).permutation(split.rows["train"])
    # whole batches, or the only one
    parts = [rows[i : i + PASS_BATCH] for i in range(0, max(1, len(rows) - PASS_BATCH + 1), PASS_BATCH)]
    batches = (batch[0] for batch in pictures.training(0, parts))
    with (
        torch.random.fork_rng(devices=[]),
        autocast(device, recipe.schedule.precision),
        progress_bar(batches, "statistics", total=len(parts), unit="batch") as progress,
    ):
        torch.manual_seed(recipe.training_seed)
        update_bn(progress, network, device)
    model = network.to("cpu").eval().requires_grad_(True)
    history: list[dict[str, float]] = []
    for number, fitted in enumerate(runs, 1):
        history += [{**entry, "epoch": len(history) + i, "run": number} for i, entry in enumerate(fitted.history, 1)]
    seconds, images = sum(fitted.seconds for fitted in runs), sum(fitted.images for fitted in runs)
    return Fitted(model, history, 0, seconds, images, runs[0].processes)
