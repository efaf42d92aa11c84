"""How are a recipe's weights fitted? A plain loop on `accelerate`; all that is random follows from seed and step.

So a run that was stopped between any two steps and taken up again ends in the same weights as one that was not.
"""

from __future__ import annotations

import copy
import errno
import math
import os
import signal
import sys
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
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

import zoo.architectures  # noqa: F401 (registers our own networks with timm)
from training.fit import auxiliary as attributes
from training.fit import checkpoint
from training.fit.batches import Arrays, Feed, PictureFeed, keep_features
from training.fit.depthwise import hasten
from training.fit.imagenet import WeightsError, load_imagenet
from training.fit.schedules import history_scale, learning_rates, lower_is_better, should_stop
from training.prepare.splits import Split
from training.recipe import Model, Recipe, Stage
from zoo.files import write_json
from zoo.sources.runs import HISTORY, STATE

SAVE_SECONDS = 60.0
TELL_SECONDS = 2.0  # between two lines for the app
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LEAST_PART = 2  # pictures run at a time: batch norm needs two
CHECKPOINT = "checkpoint.safetensors"


class TrainingStopped(Exception):
    """Training was stopped before its last epoch; the message says where and how to continue."""


class FitError(ValueError):
    """Training cannot go on; the message says where, what is kept and what to change."""


class DivergedError(FitError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Fitted:
    """The best epoch's network (on the CPU, evaluation mode), its per-epoch history and the best epoch, from 1.

    `seconds` is the time spent in training and validation, `images` how many training images were seen in it.
    """

    model: nn.Module
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float
    images: int
    processes: int = 1


def build_model(model: Model, classes: int, start: nn.Module | None = None) -> nn.Module:
    """The recipe's network with `classes` outputs and its start weights, those of another network where it is given.

    Raises WeightsError if they are not here, or do not fit.
    """
    network = timm.create_model(model.timm_name, pretrained=False, num_classes=classes, **model.timm_args)
    if model.begins_with_entry:
        try:
            network.load_state_dict(start.state_dict() if start else {})
        except RuntimeError as error:
            raise WeightsError(f"The weights of {model.weights} do not fit {model.architecture}.") from error
    if model.weights == "imagenet":
        load_imagenet(network.backbone if model.head else network, model.architecture)
        # timm's own start for this layer gives logits of some ±10, whose first gradients would undo the pretraining
        nn.init.normal_(network.get_classifier().weight, std=0.01)
        nn.init.zeros_(network.get_classifier().bias)
    return network


def unfreeze(network: nn.Module, what: str | list[str]) -> None:
    """Make trainable what a stage names: "all", the "head" after the backbone, or also modules by their name's start.

    Raises FitError if a name fits no module.
    """
    network.requires_grad_(what == "all")
    if what == "all":
        return
    names = [] if what == "head" else list(what)
    for name, parameter in network.named_parameters():
        inside = name.removeprefix("backbone.")
        if not name.startswith("backbone.") or any(inside.startswith(start) for start in names):
            parameter.requires_grad_(True)
    unknown = [n for n in names if not any(m.startswith(f"backbone.{n}") for m, _ in network.named_modules())]
    if unknown:
        blocks = ", ".join(name for name, _ in network.backbone.named_children())
        raise FitError(f"The backbone has no part {unknown[0]!r}. It has: {blocks}.")


def set_mode(network: nn.Module) -> None:
    """Set training mode where something is trained; frozen modules keep their batch-norm statistics."""
    network.train()
    for module in network.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def fit(
    recipe: Recipe,
    data: Arrays,
    split: Split,
    work: Path,
    accelerator: Accelerator,
    resume: bool = False,
    finish: bool = False,
    start: nn.Module | None = None,
    after_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Fitted:
    """Fit `recipe` on the split's training rows, choosing the epoch on validation, as the recipe says.

    Keeps `checkpoint.safetensors`, `history.json` and `run.json` in `work`. `finish` gives the best epoch of an
    unfinished run. `start` is the network that a recipe begins with, where it names another entry. `after_epoch` is
    told each epoch's figures and may raise to end the run.

    Raises TrainingStopped on Ctrl-C (after the running step, state saved), DivergedError on a loss that is not finite,
    FitError on a full disk or a memory too small for two pictures, CheckpointError if `resume` finds a state of other
    making.
    """
    torch.manual_seed(recipe.seed)
    run = _Run(recipe, data, split, work, accelerator, start)
    if resume or finish:
        run.resume()
    if finish:
        return run.result()
    with _stop_on_interrupt() as stopped:
        while not run.done:
            run.train_epoch(stopped)
            entry = run.finish_epoch()
            if after_epoch is not None:
                after_epoch(entry)
    return run.result()


class _Run:
    """The state of one fitting."""

    def __init__(
        self,
        recipe: Recipe,
        data: Arrays,
        split: Split,
        work: Path,
        accelerator: Accelerator,
        start: nn.Module | None,
    ) -> None:
        self.recipe, self.data, self.split, self.work = recipe, data, split, work
        self.accelerator, self.device = accelerator, accelerator.device
        self.world, self.main = accelerator.num_processes, accelerator.is_main_process
        form = torch.channels_last if recipe.schedule.channels_last else torch.contiguous_format
        model = build_model(recipe.network, len(recipe.labels), start)
        choices = attributes.choices(data.attributes)
        attributes.widen(model, sum(choices))
        self.model = model.to(self.device, memory_format=form)
        if self.device.type == "cpu":
            hasten(self.model)
        self.beside = attributes.Loss(len(recipe.labels), choices, recipe.attributes) if choices else None
        decay = recipe.optimizer.ema_decay
        self.ema = ModelEmaV3(self.model, decay=decay, use_warmup=True) if decay else None
        self.best = copy.deepcopy(self.model)
        self.batch = self._batch()
        self.steps = max(1, len(split.rows["train"]) // self.batch)
        self.part = math.ceil(self.batch / self.world / recipe.schedule.accumulate)  # pictures run at a time
        self.mixup = self._mixup()
        smoothing = 0.0 if self.mixup else recipe.optimizer.label_smoothing  # mixed targets come smoothed
        self.criterion = nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
        self.stage, self.epoch, self.step = 0, 0, 0  # epoch of the stage, step of the epoch
        self.sums = [0.0, 0.0, 0.0]  # loss, correct, images of the running epoch
        self.history: list[dict[str, float]] = []
        self.best_epoch, self.seconds, self.images = 0, 0.0, 0
        self.key = f"{recipe.fingerprint()} {split.hash} {self.world}"
        self.began = time.monotonic()
        self.told = 0.0
        self.begin_stage()

    # --- what a stage is made of

    def _batch(self) -> int:
        batch = min(self.recipe.schedule.batch_size, len(self.split.rows["train"]))
        if batch % self.world:
            raise FitError(
                f"A batch of {batch} cannot be shared evenly by {self.world} processes. Choose a multiple with "
                "--set schedule.batch_size=…"
            )
        return batch

    def _mixup(self) -> Mixup | None:
        augment = self.recipe.augment
        if not augment.mixup and not augment.cutmix:
            return None
        smoothing = self.recipe.optimizer.label_smoothing
        return Mixup(
            augment.mixup, augment.cutmix, label_smoothing=smoothing, num_classes=len(self.recipe.labels), prob=1.0
        )

    def begin_stage(self) -> None:
        """Freeze, build the optimiser and the feed of the running stage."""
        stage, recipe = self.recipe.all_stages[self.stage], self.recipe
        unfreeze(self.model, stage.train)
        options: dict[str, Any] = {"weight_decay": recipe.optimizer.weight_decay}
        if recipe.optimizer.momentum is not None:
            options["momentum"] = recipe.optimizer.momentum
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.lr = stage.lr or recipe.optimizer.lr
        self.optimizer = create_optimizer_v2(self.model, opt=recipe.optimizer.name, lr=self.lr, **options)
        self.trained = trained
        self.decayed = [parameter for parameter in trained if parameter.ndim > 1]
        self.course = learning_rates(recipe.schedule, self.lr, stage.epochs, self.steps)
        # features are kept only where nothing before them changes
        self.kept = self._keeps_features(stage)
        self.feed = self._feed(stage)
        self.runner = self._runner()

    def _keeps_features(self, stage: Stage) -> bool:
        return stage.train == "head" and self.recipe.schedule.cache_features and self.mixup is None

    def _feed(self, stage: Stage) -> Feed:
        size = self._size(stage)
        if not self.kept:
            return PictureFeed(self.recipe, self.data, size, self.split.rows["train"])
        with self.accelerator.main_process_first():
            return keep_features(
                self.recipe, self.data, self.split.hash, dict(self.split.rows), self.model, self.device, size, self.main
            )

    def _size(self, stage: Stage) -> tuple[int, int]:
        return stage.input_size or self.recipe.network.input_size

    def _runner(self) -> nn.Module:
        """What a step calls: the network, or what follows kept features; compiled and shared among processes."""
        network: nn.Module = _Rest(self.model) if self.kept else self.model
        if self.world > 1:
            network = self.accelerator.prepare_model(network)
        return torch.compile(network) if self.recipe.schedule.compile else network

    # --- state on disk

    @property
    def path(self) -> Path:
        return self.work / CHECKPOINT

    def modules(self) -> dict[str, nn.Module]:
        found = {"model": self.model, "best": self.best}
        return found | ({"ema": self.ema.module} if self.ema else {})

    def save(self) -> None:
        """Write the state. All processes call it together; the first one writes."""
        sums = self._reduced(self.sums)
        if not self.main:
            return
        facts = {
            "key": self.key,
            "stage": self.stage,
            "epoch": self.epoch,
            "step": self.step,
            "sums": sums,
            "part": self.part,
            "history": self.history,
            "best_epoch": self.best_epoch,
            "seconds": self._seconds(),
            "images": self.images,
        }
        self._write(lambda: checkpoint.save(self.path, self.modules(), self.optimizer, facts))

    def _write(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (OSError, SafetensorError) as error:
            full = getattr(error, "errno", None) in FULL or any(os.strerror(code) in str(error) for code in FULL)
            what = "the disk is full" if full else str(error)
            kept = f"What was saved before is kept in {self.work}" if self.path.exists() else "Nothing was saved so far"
            raise FitError(
                f"The state cannot be written: {what}. {kept}. Make room, then give the same command with --resume."
            ) from error

    def resume(self) -> None:
        facts = checkpoint.read_facts(self.path)
        if facts["key"] != self.key:
            raise checkpoint.CheckpointError(
                f"{self.path} was made with another recipe, other data or another number of processes. Start anew "
                "with --restart."
            )
        if facts["stage"] != self.stage:
            self.stage = facts["stage"]
            self.begin_stage()
        checkpoint.load(self.path, self.modules(), self.optimizer)
        self.epoch, self.step, self.part = facts["epoch"], facts["step"], facts["part"]
        self.sums = facts["sums"] if self.main else [0.0, 0.0, 0.0]
        self.history, self.best_epoch = facts["history"], facts["best_epoch"]
        self.images = facts["images"]
        self.began = time.monotonic() - facts["seconds"]
        if self.step:  # all steps of an epoch may be behind it, and its rate is part of the history
            self._set_rates(self.step - 1, history_scale(self.recipe.schedule, self._stage_history()))

    def _set_rates(self, step: int, scale: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = float(scale * self.course[self.epoch * self.steps + step] * group.get("lr_scale", 1.0))

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def tell(self) -> None:
        """For the app: where this run is."""
        if not self.main or time.monotonic() - self.told < TELL_SECONDS:
            return
        self.told = time.monotonic()
        state = {
            "title": self.recipe.title,
            "recipe": self.recipe.id,
            "epoch": len(self.history) + 1,
            "epochs": self.recipe.epochs,
            "step": self.step,
            "steps": self.steps,
            "images_per_second": round(self.images / max(self._seconds(), 1e-6), 1),
            "updated": time.time(),
        }
        self._write(lambda: write_json(self.work / STATE, state))

    # --- the loop

    @property
    def done(self) -> bool:
        return self.stage == len(self.recipe.all_stages) - 1 and self._stage_is_over()

    def _stage_is_over(self) -> bool:
        stage = self.recipe.all_stages[self.stage]
        return self.epoch >= stage.epochs or should_stop(self.recipe.schedule, self._stage_history())

    def _stage_history(self) -> list[dict[str, float]]:
        return [entry for entry in self.history if entry["stage"] == self.stage + 1]

    def train_epoch(self, stopped: Callable[[], bool]) -> None:
        set_mode(self.model)
        number = len(self.history)
        scale = history_scale(self.recipe.schedule, self._stage_history())
        title = f"epoch {number + 1}/{self.recipe.epochs}"
        bar = tqdm(
            total=self.steps * self.batch,
            initial=self.step * self.batch,
            desc=title,
            unit="image",
            smoothing=0.05,
            disable=not self.main,
        )
        saved = time.monotonic()
        with bar:
            shares = self._shares(number)
            for rows, (inputs, labels, weights) in zip(shares, self.feed.train(number, shares), strict=True):
                self.train_step(number, scale, inputs, labels, weights, rows)
                bar.update(len(labels) * self.world)
                bar.set_postfix(loss=f"{self.sums[0] / self.sums[2]:.3f}", refresh=False)
                self.tell()
                stop, due = self._agreed(stopped(), time.monotonic() - saved > SAVE_SECONDS)
                if stop:
                    self.save()
                    raise TrainingStopped(
                        f"Stopped in epoch {number + 1} after {self.step} of {self.steps} steps. "
                        "Give the same command with --resume to go on from here."
                    )
                if due:
                    self.save()
                    saved = time.monotonic()

    def _shares(self, number: int) -> list[np.ndarray]:
        """This process's rows of each batch that is still to come in this epoch."""
        order = np.random.default_rng([self.recipe.training_seed, number]).permutation(self.split.rows["train"])
        batches = [order[i * self.batch : (i + 1) * self.batch] for i in range(self.step, self.steps)]
        return [rows[self.accelerator.process_index :: self.world] for rows in batches]

    def train_step(
        self,
        number: int,
        scale: float,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor,
        rows: np.ndarray,
    ) -> None:
        """One step on this process's share of a batch."""
        step = number * self.steps + self.step
        # dropout's choices, whatever went before; processes draw their own
        torch.manual_seed((self.recipe.training_seed * 1_000_003 + step) * self.world + self.accelerator.process_index)
        self._set_rates(self.step, scale)
        form = torch.channels_last if self.recipe.schedule.channels_last else torch.contiguous_format
        inputs = inputs.to(self.device, non_blocking=True)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=form)
        labels = labels.to(self.device)
        targets, weights = labels, weights.to(self.device)
        known = None if self.beside is None else torch.from_numpy(self.data.attributes[rows]).to(self.device)
        if self.mixup is not None:
            np.random.seed(step % 2**32)  # noqa: NPY002 (timm draws from numpy's global state)
            even = len(labels) // 2 * 2  # it mixes pairs
            inputs, labels, weights = inputs[:even], labels[:even], weights[:even]
            inputs, targets = self.mixup(inputs, labels)
            # a mixed picture is half of each; which half is larger, timm does not tell
            weights = (weights + weights.flip(0)) / 2
        while True:
            try:
                loss, correct = self._gradients(inputs, labels, targets, weights, known)
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                self._make_do(error)
        self._check(loss)
        if self.recipe.optimizer.clip_norm:
            nn.utils.clip_grad_norm_(self.trained, self.recipe.optimizer.clip_norm)
        self.optimizer.step()
        if self.ema:
            # with few steps behind it, the average must not be of the weights it began with
            self.ema.update(self.model, len(self.history) * self.steps + self.step + 1)
        self.step += 1
        self.images += len(labels) * self.world
        self.sums = [a + b for a, b in zip(self.sums, (loss * len(labels), correct, len(labels)), strict=True)]

    def _gradients(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        known: torch.Tensor | None,
    ) -> tuple[float, float]:
        """Gradients of a batch's loss, run in parts; the mean loss and how many are right."""
        self.optimizer.zero_grad(set_to_none=True)
        total, correct = 0.0, 0.0
        starts = range(0, len(labels), self.part)
        for start in starts:
            part = slice(start, start + self.part)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.schedule.precision == "bf16"):
                found = self.runner(inputs[part]).float()
            logits = found[:, : len(self.recipe.labels)]
            loss = (self.criterion(logits, targets[part]) * weights[part]).sum() / len(labels)
            if self.beside is not None and known is not None:
                loss = loss + self.beside(found, known[part]) * len(found) / len(labels)
            if self.recipe.optimizer.l2:
                squares = sum(
                    (parameter.square().sum() for parameter in self.decayed), torch.zeros((), device=self.device)
                )
                loss = loss + self.recipe.optimizer.l2 * squares / len(starts)
            self.accelerator.backward(loss)
            total += loss.item()
            correct += (logits.argmax(1) == labels[part]).sum().item()
        return total, correct

    def _make_do(self, error: BaseException) -> None:
        """After an out-of-memory: half as many pictures at a time. Raises what is something else, or hopeless."""
        if not _is_memory(error):
            raise error
        if self.world > 1 or self.part <= LEAST_PART:
            raise FitError(
                f"There is not enough memory for {self.part} pictures at a time. What was saved is in {self.work}. "
                "Choose a smaller model.input_size, more schedule.accumulate, or a smaller model."
            ) from error
        self.part = max(LEAST_PART, math.ceil(self.part / 2))
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        parts = math.ceil(self.batch / self.part)
        tqdm.write(
            f"Out of memory: going on with {self.part} pictures at a time, {parts} parts a batch.", file=sys.stderr
        )

    def _check(self, loss: float) -> None:
        if self.world > 1:
            loss = float(self.accelerator.reduce(torch.tensor(loss, device=self.device), "sum"))
        if math.isfinite(loss):
            return
        saved = (
            f"The best epoch so far ({self.best_epoch}) can be made an entry with --finish. " if self.history else ""
        )
        raise DivergedError(
            f"The loss is no longer a number (epoch {len(self.history) + 1}, step {self.step + 1}). {saved}Lower "
            "optimizer.lr (--set optimizer.lr=…) or set optimizer.clip_norm, and start anew with --restart."
        )

    def _agreed(self, *flags: bool) -> tuple[bool, ...]:
        """What any of the processes wants, so that all of them do the same."""
        if self.world == 1:
            return flags
        wanted = self.accelerator.reduce(torch.tensor(flags, dtype=torch.float32, device=self.device), "sum")
        return tuple(bool(value) for value in wanted.cpu() > 0)

    def _reduced(self, sums: list[float]) -> list[float]:
        if self.world == 1:
            return sums
        return self.accelerator.reduce(torch.tensor(sums, dtype=torch.float64, device=self.device), "sum").tolist()

    def finish_epoch(self) -> dict[str, float]:
        """Validate, remember the best, go on to the next epoch or stage; the epoch's figures."""
        loss, accuracy, balanced = self.validate()
        sums = self._reduced(self.sums)
        count = max(sums[2], 1)
        entry = {
            "epoch": len(self.history) + 1,
            "stage": self.stage + 1,
            "train_loss": sums[0] / count,
            "train_accuracy": sums[1] / count,
            "val_loss": loss,
            "val_accuracy": accuracy,
            "val_balanced_accuracy": balanced,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        if not math.isfinite(loss):
            self._check(loss)
        rivals = self._rivals()
        self.history.append(entry)
        if self.main:
            tqdm.write("  ".join(f"{key} {value:.4g}" for key, value in entry.items()), file=sys.stderr)
        if self.rank(entry) < min(map(self.rank, rivals), default=(math.inf,)):
            self.best_epoch = len(self.history)
            self.best.load_state_dict(self.judged.state_dict())
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0, 0.0, 0.0]
        if self._stage_is_over() and self.stage < len(self.recipe.all_stages) - 1:
            self._next_stage()
        self.save()
        if self.main:
            self._write(lambda: write_json(self.work / HISTORY, self.history))
            # the runs of one training follow each other in its log
            before = self.recipe.schedule.run * self.recipe.epochs
            self.accelerator.log(entry, step=before + len(self.history))
        self.told = 0.0
        self.tell()
        return entry

    def _rivals(self) -> list[dict[str, float]]:
        """Epochs so far that were judged on pictures of the running stage's size: others do not compare."""
        stages, size = self.recipe.all_stages, self._size(self.recipe.all_stages[self.stage])
        return [entry for entry in self.history if self._size(stages[int(entry["stage"]) - 1]) == size]

    def _next_stage(self) -> None:
        """The next stage begins with the best weights so far."""
        self.model.load_state_dict(self.best.state_dict())
        if self.ema:
            self.ema.module.load_state_dict(self.best.state_dict())
        self.stage, self.epoch = self.stage + 1, 0
        self.begin_stage()

    def rank(self, entry: dict[str, float]) -> tuple[float, float]:
        """Of two epochs the one with the smaller rank is better."""
        select = self.recipe.schedule.select
        return (entry[select] if lower_is_better(select) else -entry[select]), entry["val_loss"]

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the averaged one, if there is one."""
        return self.ema.module if self.ema else self.model

    @torch.no_grad()
    def validate(self) -> tuple[float, float, float]:
        """Log loss, accuracy and balanced accuracy of the judged weights on the validation rows."""
        network = self.judged.eval()
        rows = self.split.rows["val"]
        mine = rows[self.accelerator.process_index :: self.world]
        found = [torch.zeros(0, len(self.recipe.labels))]
        for batch in self.feed.look(mine):
            inputs = batch.to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.schedule.precision == "bf16"):
                logits = network.forward_rest(inputs) if self.kept else network(inputs)
            found.append(logits[:, : len(self.recipe.labels)].float().log_softmax(1).cpu())
        logs, labels = self._gathered(torch.cat(found), len(rows)), self.data.labels[rows]
        right = logs.argmax(1) == labels
        balanced = np.mean([right[labels == label].mean() for label in np.unique(labels)])
        return float(-logs[np.arange(len(rows)), labels].mean()), float(right.mean()), float(balanced)

    def _gathered(self, mine: torch.Tensor, count: int) -> np.ndarray:
        """Every process's rows, in order, (count, classes)."""
        if self.world == 1:
            return mine.numpy()
        room = math.ceil(count / self.world)
        padded = torch.zeros(room, mine.shape[1])
        padded[: len(mine)] = mine
        every = self.accelerator.gather(padded.to(self.device)).cpu().reshape(self.world, room, -1)
        return every.transpose(0, 1).reshape(self.world * room, -1)[:count].numpy()

    def result(self) -> Fitted:
        if not self.best_epoch:
            raise FitError("No epoch was finished, so there is nothing to make an entry of. Go on with --resume.")
        best = [self.best_epoch]
        if self.world > 1:
            broadcast_object_list(best)
        model = self.best.to("cpu", memory_format=torch.contiguous_format).eval().requires_grad_(True)
        attributes.narrow(model, len(self.recipe.labels))
        return Fitted(model, self.history, best[0], self._seconds(), self.images, self.world)


class _Rest(nn.Module):
    """What a network does with kept features."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, …) → logits (B, classes)."""
        return self.model.forward_rest(features)


def _is_memory(error: BaseException) -> bool:
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "out of memory" in str(error).lower()
        or ("can't allocate memory" in str(error).lower())
    )


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
        tqdm.write("Stopping after this step; the state is saved. Press Ctrl-C again to stop at once.", file=sys.stderr)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: hit
    finally:
        signal.signal(signal.SIGINT, before)
