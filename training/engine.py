"""How are a recipe's weights fitted? A plain loop; every random choice follows from the seed and the step alone.

So a run that was stopped between any two steps and taken up again ends in the same weights as one that was not.
"""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import zoo.architectures  # noqa: F401 (registers our own networks with timm)
from training import checkpoint
from training.augment import training_transform
from training.imagenet import load_packaged
from training.recipe import Model, Recipe
from training.splits import Split
from zoo.files import write_json
from zoo.preprocess import preprocessor

SAVE_SECONDS = 60.0
VALIDATION_BATCH = 128


class TrainingStopped(Exception):
    """Training was stopped before its last epoch; the message says where and how to continue."""


class DivergedError(ValueError):
    """The loss is no longer a number; the message says where and what to change."""


@dataclass(frozen=True)
class Arrays:
    """Packed pictures, uint8 (n, height, width, 3), label numbers, int64 (n,), and weights of the loss (n,) if any."""

    pictures: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Fitted:
    """The best epoch's network (on the CPU, evaluation mode), its per-epoch history and the best epoch, from 1."""

    model: nn.Module
    history: list[dict[str, float]]
    best_epoch: int


def build_model(model: Model, classes: int) -> nn.Module:
    """The recipe's network with `classes` outputs and its starting weights."""
    network = timm.create_model(model.architecture, pretrained=False, num_classes=classes, **model.args)
    if model.weights == "imagenet-package":
        load_packaged(network)
        # timm's own start for this layer gives logits of some ±10, whose first gradients would undo the pretraining
        nn.init.normal_(network.get_classifier().weight, std=0.01)
        nn.init.zeros_(network.get_classifier().bias)
    return network


def pretrained_cfg(model: Model) -> dict[str, Any]:
    """What timm needs to know of the input: size, interpolation, mean, std; the whole picture is squashed into it."""
    return {
        "input_size": [3, *model.input_size],
        "interpolation": model.interpolation,
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": list(model.mean),
        "std": list(model.std),
    }


def fit(recipe: Recipe, data: Arrays, split: Split, work: Path, device: torch.device, resume: bool) -> Fitted:
    """Fit `recipe` on the split's training rows, choosing the epoch on validation, as the recipe says.

    Keeps `checkpoint.safetensors` and `history.json` in `work`. Raises TrainingStopped on Ctrl-C (after the running
    step, state saved), DivergedError on a loss that is not finite, CheckpointError if `resume` finds a state of other
    making.
    """
    torch.manual_seed(recipe.seed)
    classes = len(dict.fromkeys(recipe.data.labels.values()))
    model = build_model(recipe.model, classes).to(device, memory_format=torch.channels_last)
    run = _Run(recipe, data, split, work, device, model)
    if resume:
        run.resume()
    with _stop_on_interrupt() as stopped:
        for epoch in range(run.epoch, recipe.schedule.epochs):
            run.train_epoch(epoch, stopped)
            run.finish_epoch(epoch)
    return run.result()


class _Run:
    """The state of one fitting."""

    def __init__(
        self, recipe: Recipe, data: Arrays, split: Split, work: Path, device: torch.device, model: nn.Module
    ) -> None:
        self.recipe, self.data, self.split, self.work, self.device = recipe, data, split, work, device
        self.model = model
        self.ema = ModelEmaV3(model, decay=recipe.optimizer.ema_decay or 0.0)
        self.best = copy.deepcopy(self.ema.module)
        self.optimizer = create_optimizer_v2(
            model, opt=recipe.optimizer.name, lr=recipe.optimizer.lr, weight_decay=recipe.optimizer.weight_decay
        )
        batch = recipe.schedule.batch_size
        self.steps = max(1, len(split.rows["train"]) // batch)
        warmup = round(recipe.schedule.warmup_epochs * self.steps)
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=recipe.schedule.epochs * self.steps if recipe.schedule.cosine else 10**9,
            lr_min=0.0,
            warmup_t=warmup,
            warmup_lr_init=recipe.optimizer.lr / 100,
            t_in_epochs=False,
        )
        smoothing = recipe.optimizer.label_smoothing
        self.mixup = None
        if recipe.augment.mixup:
            classes = len(dict.fromkeys(recipe.data.labels.values()))
            # mixed targets come smoothed
            self.mixup = Mixup(recipe.augment.mixup, label_smoothing=smoothing, num_classes=classes)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.0 if self.mixup else smoothing, reduction="none")
        self.epoch, self.step = 0, 0
        self.sums = [0.0, 0.0, 0.0]  # loss, correct, images of the running epoch
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self.key = f"{recipe.fingerprint()} {split.hash}"

    @property
    def path(self) -> Path:
        return self.work / "checkpoint.safetensors"

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "ema": self.ema.module, "best": self.best}

    def save(self) -> None:
        facts = {
            "key": self.key,
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums,
            "history": self.history,
            "best_epoch": self.best_epoch,
        }
        checkpoint.save(self.path, self.modules(), self.optimizer, facts)

    def resume(self) -> None:
        facts = checkpoint.load(self.path, self.modules(), self.optimizer)
        if facts["key"] != self.key:
            raise checkpoint.CheckpointError(
                f"{self.path} was made with another recipe or other data. Start anew with --restart."
            )
        self.epoch, self.step, self.sums = facts["epoch"], facts["step"], facts["sums"]
        self.history, self.best_epoch = facts["history"], facts["best_epoch"]

    def train_epoch(self, epoch: int, stopped: Callable[[], bool]) -> None:
        self.model.train()
        title = f"epoch {epoch + 1}/{self.recipe.schedule.epochs}"
        batch = self.recipe.schedule.batch_size
        progress = tqdm(total=self.steps * batch, initial=self.step * batch, desc=title, unit="image", smoothing=0.05)
        saved = time.monotonic()
        with progress:
            for images, labels, weights in self.loader(epoch):
                self.train_step(epoch, images, labels, weights)
                progress.update(len(labels))
                progress.set_postfix(loss=f"{self.sums[0] / self.sums[2]:.3f}", refresh=False)
                if stopped():
                    self.save()
                    raise TrainingStopped(
                        f"Stopped in epoch {epoch + 1} after {self.step} of {self.steps} steps. "
                        "Give the same command with --resume to go on from here."
                    )
                if time.monotonic() - saved > SAVE_SECONDS:
                    self.save()
                    saved = time.monotonic()

    def train_step(self, epoch: int, images: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> None:
        number = epoch * self.steps + self.step
        torch.manual_seed(self.recipe.seed * 1_000_003 + number)  # dropout's choices, whatever went before
        self.scheduler.step_update(number)
        images = images.to(self.device, memory_format=torch.channels_last)
        labels = labels.to(self.device)
        targets, weights = labels, weights.to(self.device)
        if self.mixup is not None:
            np.random.seed(number)  # noqa: NPY002 (timm draws from numpy's global state)
            images, targets = self.mixup(images, labels)
            # a mixed picture is half of each; which half is larger, timm does not tell
            weights = (weights + weights.flip(0)) / 2
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model(images)
        loss = (self.criterion(logits.float(), targets) * weights).mean()
        if not torch.isfinite(loss):
            raise DivergedError(
                f"The loss is no longer a number (epoch {epoch + 1}, step {self.step + 1}). Lower optimizer.lr in the "
                "recipe, or set optimizer.clip_norm, and start anew with --restart."
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.optimizer.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip_norm)
        self.optimizer.step()
        # with decay 0 the average is the network itself
        self.ema.update(self.model)
        self.step += 1
        correct = (logits.argmax(1) == labels).sum().item()
        self.sums = [a + b for a, b in zip(self.sums, (loss.item() * len(labels), correct, len(labels)), strict=True)]

    def finish_epoch(self, epoch: int) -> None:
        loss, accuracy, balanced = self.validate()
        count = max(self.sums[2], 1)
        entry = {
            "epoch": epoch + 1,
            "train_loss": self.sums[0] / count,
            "train_accuracy": self.sums[1] / count,
            "val_loss": loss,
            "val_accuracy": accuracy,
            "val_balanced_accuracy": balanced,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        self.history.append(entry)
        tqdm.write("  ".join(f"{key} {value:.4g}" for key, value in entry.items()))
        if self.rank(entry) < min(map(self.rank, self.history[:-1]), default=(math.inf,)):
            self.best_epoch = epoch + 1
            self.best.load_state_dict(self.ema.module.state_dict())
        self.epoch, self.step, self.sums = epoch + 1, 0, [0.0, 0.0, 0.0]
        self.save()
        write_json(self.work / "history.json", self.history)

    def rank(self, entry: dict[str, float]) -> tuple[float, float]:
        """Of two epochs the one with the smaller rank is better."""
        select = self.recipe.schedule.select
        return (entry[select] if select == "val_loss" else -entry[select]), entry["val_loss"]

    @torch.no_grad()
    def validate(self) -> tuple[float, float, float]:
        """Log loss, accuracy and balanced accuracy of the averaged weights on the validation rows."""
        prepare = preprocessor(pretrained_cfg(self.recipe.model))
        network = self.ema.module.eval()
        rows = self.split.rows["val"]
        found = []
        for start in range(0, len(rows), VALIDATION_BATCH):
            pictures = [prepare(Image.fromarray(self.data.pictures[i])) for i in rows[start : start + VALIDATION_BATCH]]
            batch = torch.stack(pictures).to(self.device, memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16):
                found.append(network(batch).float().log_softmax(1).cpu())
        logs, labels = torch.cat(found).numpy(), self.data.labels[rows]
        right = logs.argmax(1) == labels
        balanced = np.mean([right[labels == label].mean() for label in np.unique(labels)])
        return float(-logs[np.arange(len(rows)), labels].mean()), float(right.mean()), float(balanced)

    def loader(self, epoch: int) -> DataLoader:
        rows = self.split.rows["train"]
        order = np.random.default_rng([self.recipe.seed, epoch]).permutation(rows)
        batch = self.recipe.schedule.batch_size
        batches = [order[i * batch : (i + 1) * batch] for i in range(self.step, self.steps)]
        seeds = [[(int(row), self.recipe.seed * 7_919 + epoch) for row in rows] for rows in batches]
        return DataLoader(
            _Augmented(self.recipe, self.data),
            batch_sampler=seeds,
            num_workers=1,
            prefetch_factor=4,
            worker_init_fn=_ignore_interrupt,
        )

    def result(self) -> Fitted:
        model = self.best.to("cpu", memory_format=torch.contiguous_format).eval()
        return Fitted(model, self.history, self.best_epoch)


class _Augmented(Dataset):
    """Augmented training pictures; an item is named (row, seed) and depends on nothing else."""

    def __init__(self, recipe: Recipe, data: Arrays) -> None:
        model = recipe.model
        self.data = data
        self.transform = training_transform(recipe.augment, model.input_size, list(model.mean), list(model.std))

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, int, np.float32]:
        row, seed = item
        picture = torch.from_numpy(np.array(self.data.pictures[row])).permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1_000_003 + row)
            weight = np.float32(1 if self.data.weights is None else self.data.weights[row])
            return self.transform(picture), int(self.data.labels[row]), weight


def _ignore_interrupt(worker: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the main one ends the workers when it is ready
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag, so that no step is cut in half; a second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread is told of signals
        return
    hit = False

    def note(number: int, frame: Any) -> None:
        nonlocal hit
        if hit:
            raise KeyboardInterrupt
        hit = True
        tqdm.write("Stopping after this step; the state is saved. Press Ctrl-C again to stop at once.")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: hit
    finally:
        signal.signal(signal.SIGINT, before)
