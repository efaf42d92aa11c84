"""How are several trainings made one network? By the mean of their weights (Wortsman et al., Model soups, 2022).

Trainings of one recipe from one pretrained start differ by what order and changes of pictures did to them, in a
laboratory they never saw by several points; their mean is as good there as the better ones, and costs no time to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from tqdm import tqdm

from training.fit.batches import PASS_BATCH, Arrays, PictureFeed
from training.fit.loop import CHECKPOINT, FitError, Fitted, fit
from training.prepare.splits import Split
from training.recipe import Recipe
from zoo.sources.runs import STATE


def fit_all(
    recipe: Recipe,
    data: Arrays,
    split: Split,
    work: Path,
    accelerator: Accelerator,
    resume: bool = False,
    finish: bool = False,
    start: nn.Module | None = None,
) -> Fitted:
    """`engine.fit` as often as `schedule.runs` says, each in a folder of its own in `work`; the mean of their weights.

    Resumed, a run that is done is not trained again; `finish` takes those of which an epoch is done. Raises what `fit`
    does.
    """
    if recipe.schedule.runs == 1:
        return fit(recipe, data, split, work, accelerator, resume, finish, start)
    found = []
    for number in range(recipe.schedule.runs):
        place = work / f"run-{number + 1}"
        there = (place / CHECKPOINT).exists()
        accelerator.wait_for_everyone()  # all have looked before one of them begins it
        if finish and not there:
            continue
        place.mkdir(parents=True, exist_ok=True)
        try:
            found.append(fit(recipe.of_run(number), data, split, place, accelerator, resume and there, finish, start))
        except FitError:
            if not (finish and found):
                raise
        if accelerator.is_main_process:
            (place / STATE).unlink(missing_ok=True)  # it is no longer in training
    return mean_of(recipe, data, split, found, accelerator.device)


def begun(work: Path) -> bool:
    """Whether a training in the folder `work` can be gone on with."""
    return any(place.exists() for place in (work / CHECKPOINT, *work.glob(f"run-*/{CHECKPOINT}")))


def mean_of(recipe: Recipe, data: Arrays, split: Split, found: Sequence[Fitted], device: torch.device) -> Fitted:
    """The mean of fitted networks' weights, with what batch norm knows of training pictures looked at again.

    Means of activations are smaller than those that any of the networks expects. Curves follow each other, with the
    run each is of; there is no best epoch (0).
    """
    averaged = AveragedModel(found[0].model, use_buffers=True)
    for fitted in found:
        averaged.update_parameters(fitted.model)
    network = averaged.module.to(device)
    feed = PictureFeed(recipe, data, recipe.network.input_size, split.rows["train"])
    rows = np.random.default_rng(recipe.training_seed).permutation(split.rows["train"])
    # whole batches, or all there is
    parts = [rows[i : i + PASS_BATCH] for i in range(0, max(1, len(rows) - PASS_BATCH + 1), PASS_BATCH)]
    batches = (batch[0] for batch in feed.train(0, parts))
    with (
        torch.random.fork_rng(devices=[]),
        torch.autocast(device.type, torch.bfloat16, enabled=recipe.schedule.precision == "bf16"),
        tqdm(batches, "statistics", total=len(parts), unit="batch") as shown,
    ):
        torch.manual_seed(recipe.training_seed)
        update_bn(shown, network, device)
    model = network.to("cpu").eval().requires_grad_(True)
    history: list[dict[str, float]] = []
    for number, fitted in enumerate(found, 1):
        history += [{**entry, "epoch": len(history) + i, "run": number} for i, entry in enumerate(fitted.history, 1)]
    seconds, images = sum(fitted.seconds for fitted in found), sum(fitted.images for fitted in found)
    return Fitted(model, history, 0, seconds, images, found[0].processes)
