"""State of a training: what it holds, how it is saved and continued, and what it reports."""

from __future__ import annotations

import copy
import errno
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

from training.fit import checkpoint
from training.fit.batches import Arrays, BatchSource, PictureBatches, cached_features, divide
from training.fit.networks import auxiliary
from training.fit.networks.network import AfterFeatures, build_model, linear_classifier, unfreeze
from training.fit.processor.depthwise import use_fast_gradients
from training.fit.schedules import history_scale, learning_rates, lower_is_better, should_stop
from training.fit.step import Objective, check_finite
from training.fit.stopping import FitError, without_interruption
from training.prepare.splits import Split
from training.recipe import Model, Recipe, Stage
from zoo.architectures.transfer import Transfer
from zoo.files import write_json
from zoo.sources.runs import HISTORY, STATE

CHECKPOINT = "checkpoint.safetensors"
REPORT_SECONDS = 2.0  # between two lines for the app
SAVE_SECONDS_ON_FEATURES = 2.0  # between two checkpoints where an epoch takes less
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Build = Callable[[Model, int, nn.Module | None], nn.Module]
Figures = dict[str, float]


@dataclass(frozen=True)
class Fitted:
    """A trained network (on the CPU, evaluation mode), its history of epochs and the best epoch, from 1.

    `seconds` is the time spent in training and validation, `images` the number of training images seen in it.
    """

    model: nn.Module
    history: list[Figures]
    best_epoch: int
    seconds: float
    images: int
    processes: int = 1


@dataclass(frozen=True)
class Scores:
    """Log loss, accuracy and balanced accuracy on the validation rows."""

    loss: float
    accuracy: float
    balanced_accuracy: float


@dataclass
class Position:
    """Progress of a training. A checkpoint keeps all of it, under these names."""

    part: int  # pictures run at a time
    stage: int = 0  # from 0
    epoch: int = 0  # of the stage, from 0
    step: int = 0  # of the epoch, from 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # loss, correct and images of the running epoch
    history: list[Figures] = field(default_factory=list)
    best_epoch: int = 0  # from 1; 0: none yet
    images: int = 0


class TrainingState:
    """A training in progress: its network, averages, optimiser, batches and position.

    Everything random follows from seed and step, so a training that was stopped between any two steps and resumed ends
    in the same weights as one that was not.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Arrays,
        split: Split,
        work: Path,
        accelerator: Accelerator,
        start: nn.Module | None = None,
        build: Build = build_model,
    ) -> None:
        self.recipe, self.data, self.split, self.work = recipe, data, split, work
        self.accelerator, self.device = accelerator, accelerator.device
        self.world, self.process = accelerator.num_processes, accelerator.process_index
        self.is_main = accelerator.is_main_process
        self.memory_format = torch.channels_last if recipe.schedule.channels_last else torch.contiguous_format
        model = build(recipe.network, len(recipe.labels), start)
        auxiliary.widen(model, sum(auxiliary.choices(data.attributes)))
        self.model: nn.Module = model.to(self.device).to(memory_format=self.memory_format)
        if self.device.type == "cpu" and recipe.schedule.fast_depthwise:
            use_fast_gradients(self.model)
        # gradients in fp16 would become zero; without fp16 it does nothing
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.schedule.precision == "fp16")
        self.objective = Objective(recipe, data)
        decay = recipe.optimizer.ema_decay
        self.ema = ModelEmaV3(self.model, decay=decay, use_warmup=True) if decay else None
        self.best = copy.deepcopy(self.model)
        self.sizes = divide(len(split.rows["train"]), recipe.schedule.batch_size, self.world)
        self.batch_size, self.steps = max(self.sizes), len(self.sizes)
        self.position = Position(math.ceil(self.batch_size / self.world / recipe.schedule.accumulate))
        self.began = time.monotonic()
        self.last_report = 0.0
        self.saved, self.unsaved = -math.inf, False  # when the checkpoint was written, and whether it lacks an epoch
        self.begin_stage()

    # --- stages

    @property
    def stage(self) -> Stage:
        """The running stage."""
        return self.recipe.all_stages[self.position.stage]

    @property
    def stage_history(self) -> list[Figures]:
        """Figures of the running stage's epochs."""
        return [entry for entry in self.position.history if entry["stage"] == self.position.stage + 1]

    @property
    def stage_is_over(self) -> bool:
        """Whether the stage has all its epochs, or stops early."""
        return self.position.epoch >= self.stage.epochs or should_stop(self.recipe.schedule, self.stage_history)

    @property
    def is_last_stage(self) -> bool:
        """Whether no other stage follows."""
        return self.position.stage == len(self.recipe.all_stages) - 1

    @property
    def done(self) -> bool:
        """Whether the training is complete."""
        return self.is_last_stage and self.stage_is_over

    def begin_stage(self) -> None:
        """Freeze what the stage does not train, and build its optimiser and batches."""
        stage, optimizer = self.stage, self.recipe.optimizer
        unfreeze(self.model, stage.train)
        options: dict[str, Any] = {"weight_decay": optimizer.weight_decay}
        if optimizer.momentum is not None:
            options["momentum"] = optimizer.momentum
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        last = None if optimizer.l2_last else linear_classifier(self.model)
        left_out = None if last is None else last.weight
        self.decayed = [value for value in self.trained if value.ndim > 1 and value is not left_out]
        base_rate = stage.lr or optimizer.lr
        self.optimizer = create_optimizer_v2(self.model, opt=optimizer.name, lr=base_rate, **options)
        self.rates = learning_rates(self.recipe.schedule, base_rate, stage.epochs, self.steps)
        # features are kept only where nothing before them changes
        self.on_features = (
            stage.train == "head" and self.recipe.schedule.cache_features and self.objective.mixup is None
        )
        self.batches = self._batch_source()
        self.runner = self._runner()

    def begin_next_stage(self) -> None:
        """Begin the next stage with the best weights so far."""
        self.model.load_state_dict(self.best.state_dict())
        if self.ema:
            self.ema.module.load_state_dict(self.best.state_dict())
        self.position.stage, self.position.epoch = self.position.stage + 1, 0
        self.begin_stage()

    def _batch_source(self) -> BatchSource:
        size = self._input_size(self.stage)
        if not self.on_features or not isinstance(self.model, Transfer):
            return PictureBatches(self.recipe, self.data, size, self.split.rows["train"])
        with self.accelerator.main_process_first():
            rows = dict(self.split.rows)
            return cached_features(
                self.recipe, self.data, self.split.hash, rows, self.model, self.device, size, self.is_main
            )

    def forward_of(self, network: nn.Module) -> nn.Module:
        """Return what computes logits from the stage's batches: the network, or its part after kept features."""
        return AfterFeatures(network) if self.on_features and isinstance(network, Transfer) else network

    def _input_size(self, stage: Stage) -> tuple[int, int]:
        return stage.input_size or self.recipe.network.input_size

    def _runner(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Module that a step calls: the network, or its part after kept features; compiled and shared if needed."""
        network = self.forward_of(self.model)
        if self.world > 1:
            network = self.accelerator.prepare_model(network)
        return torch.compile(network) if self.recipe.schedule.compile else network

    # --- steps and epochs

    @property
    def epoch_number(self) -> int:
        """Number of the running epoch among all stages, from 0."""
        return len(self.position.history)

    @property
    def global_step(self) -> int:
        """Number of the running step among all epochs, from 0."""
        return self.epoch_number * self.steps + self.position.step

    @property
    def evaluated_model(self) -> nn.Module:
        """The network that is validated and kept: the averaged one, if there is one."""
        return self.ema.module if self.ema else self.model

    def rows_to_come(self) -> list[np.ndarray]:
        """Return this process's rows of each batch that is still to come in this epoch."""
        seed = [self.recipe.training_seed, self.epoch_number]
        order = np.random.default_rng(seed).permutation(self.split.rows["train"])
        batches = np.split(order[: sum(self.sizes)], np.cumsum(self.sizes)[:-1])
        return [rows[self.process :: self.world] for rows in batches[self.position.step :]]

    def set_learning_rate(self, step: int, history_factor: float) -> None:
        """Set the learning rate of a step of the running epoch."""
        rate = history_factor * self.rates[self.position.epoch * self.steps + step]
        for group in self.optimizer.param_groups:
            group["lr"] = float(rate * group.get("lr_scale", 1.0))

    def update_average(self) -> None:
        """Update the moving average of the weights, if the recipe has one."""
        if self.ema:
            # the number of steps shortens the average at first, so that it forgets the start weights
            self.ema.update(self.model, self.global_step + 1)

    def advance(self, loss: float, correct: float, count: int) -> None:
        """Count a finished step: its mean loss, correct predictions and pictures of this process."""
        position = self.position
        position.step += 1
        position.images += count * self.world
        position.sums = [a + b for a, b in zip(position.sums, (loss * count, correct, count), strict=True)]

    def finish_epoch(self, scores: Scores) -> Figures:
        """Record an epoch, remember its weights if they are the best, and go on to the next epoch or stage.

        Raises:
            DivergedError: The validation loss is not a number.
        """
        loss, correct, images = self.over_processes(self.position.sums)
        images = max(images, 1)
        entry = {
            "epoch": self.epoch_number + 1,
            "stage": self.position.stage + 1,
            "train_loss": loss / images,
            "train_accuracy": correct / images,
            "val_loss": scores.loss,
            "val_accuracy": scores.accuracy,
            "val_balanced_accuracy": scores.balanced_accuracy,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        if not math.isfinite(scores.loss):
            check_finite(self, scores.loss)
        rivals = self._comparable_epochs()
        self.position.history.append(entry)
        if self._rank(entry) < min(map(self._rank, rivals), default=(math.inf,)):
            self.position.best_epoch = len(self.position.history)
            self.best.load_state_dict(self.evaluated_model.state_dict())
        self.position.epoch, self.position.step = self.position.epoch + 1, 0
        self.position.sums = [0.0, 0.0, 0.0]
        if self.stage_is_over and not self.is_last_stage:
            self.begin_next_stage()
        return entry

    def _comparable_epochs(self) -> list[Figures]:
        """Epochs so far that were validated on pictures of the running stage's size: others do not compare."""
        stages, size = self.recipe.all_stages, self._input_size(self.stage)
        return [entry for entry in self.position.history if self._input_size(stages[int(entry["stage"]) - 1]) == size]

    def _rank(self, entry: Figures) -> tuple[float, float]:
        """Key by which epochs are compared: the smaller, the better."""
        select = self.recipe.schedule.select
        if select == "last":
            return -entry["epoch"], 0.0
        return (entry[select] if lower_is_better(select) else -entry[select]), entry["val_loss"]

    def result(self) -> Fitted:
        """Return the best epoch's network. Raises FitError if no epoch is finished."""
        if not self.position.best_epoch:
            raise FitError("No epoch was finished, so there is no network to keep. Continue with --resume.")
        best = [self.position.best_epoch]
        if self.world > 1:
            broadcast_object_list(best)
        model = self.best.to("cpu").to(memory_format=torch.contiguous_format).eval().requires_grad_(True)
        auxiliary.narrow(model, len(self.recipe.labels))
        return Fitted(model, self.position.history, best[0], self.seconds, self.position.images, self.world)

    # --- several processes

    def any_process(self, *flags: bool) -> tuple[bool, ...]:
        """Whether any process has set each flag, so that all of them do the same."""
        if self.world == 1:
            return flags
        wanted = self.accelerator.reduce(torch.tensor(flags, dtype=torch.float32, device=self.device), "sum")
        return tuple(bool(value) for value in wanted.cpu() > 0)

    def over_processes(self, sums: list[float]) -> list[float]:
        """Add up the sums of all processes."""
        if self.world == 1:
            return sums
        return self.accelerator.reduce(torch.tensor(sums, dtype=torch.float64, device=self.device), "sum").tolist()

    def gathered(self, own: torch.Tensor, count: int) -> np.ndarray:
        """Join the rows of all processes in their order: (own rows, classes) → (count, classes)."""
        if self.world == 1:
            return own.numpy()
        room = math.ceil(count / self.world)
        padded = torch.zeros(room, own.shape[1])
        padded[: len(own)] = own
        every = self.accelerator.gather(padded.to(self.device)).cpu().reshape(self.world, room, -1)
        return every.transpose(0, 1).reshape(self.world * room, -1)[:count].numpy()

    # --- on disk

    @property
    def path(self) -> Path:
        """The checkpoint's path."""
        return self.work / CHECKPOINT

    def save(self) -> None:
        """Write the checkpoint. All processes call it together; the first one writes."""
        sums = self.over_processes(self.position.sums)
        if not self.is_main:
            return
        facts = {
            **self._origin(),
            **asdict(self.position),
            "sums": sums,
            "seconds": self.seconds,
            **{key: getattr(self.recipe.schedule, key) for key in checkpoint.ARITHMETIC},
            "scaler": self.scaler.state_dict(),
        }
        with without_interruption():
            self._write(lambda: checkpoint.save(self.path, self._modules(), self.optimizer, facts))
        self.saved, self.unsaved = time.monotonic(), False

    def save_epoch(self) -> None:
        """Write the checkpoint at the end of an epoch.

        An epoch on kept features may be shorter than the writing: then one is written every few seconds, and at the
        end of the stage.
        """
        recent = time.monotonic() - self.saved < SAVE_SECONDS_ON_FEATURES
        if self.on_features and self.world == 1 and self.position.epoch and recent:
            self.unsaved = True
        else:
            self.save()

    @contextmanager
    def saved_at_the_end(self) -> Iterator[None]:
        """Write, when the block ends at the end of an epoch, what was not yet written."""
        try:
            yield
        finally:
            if self.unsaved:
                self.save()

    def resume(self) -> None:
        """Continue from the checkpoint. Raises CheckpointError if it is damaged or was made for another training."""
        facts = checkpoint.read_facts(self.path)
        checkpoint.check_origin(facts, self._origin(), self.path)
        if facts["stage"] != self.position.stage:
            self.position.stage = facts["stage"]
            self.begin_stage()
        checkpoint.load(self.path, self._modules(), self.optimizer)
        self.position = Position(**{name: facts[name] for name in asdict(self.position)})
        if facts.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(facts["scaler"])
        if not self.is_main:
            self.position.sums = [0.0, 0.0, 0.0]
        self.began = time.monotonic() - facts["seconds"]
        if self.position.step:  # maybe the epoch's last one, whose rate is part of the history
            self.set_learning_rate(self.position.step - 1, history_scale(self.recipe.schedule, self.stage_history))

    def report_epoch(self, entry: Figures) -> None:
        """Print an epoch's figures, write the history, and report to the tracker and the app."""
        if self.is_main:
            tqdm.write("  ".join(f"{key} {value:.4g}" for key, value in entry.items()), file=sys.stderr)
            self._write(lambda: write_json(self.work / HISTORY, self.position.history))
            # the runs of one training follow each other in its log
            before = self.recipe.schedule.run * self.recipe.epochs
            self.accelerator.log(entry, step=before + len(self.position.history))
        self.last_report = 0.0
        self.report_progress()

    def report_progress(self) -> None:
        """Write where the training is, for the app, unless that was done just now."""
        if not self.is_main or time.monotonic() - self.last_report < REPORT_SECONDS:
            return
        self.last_report = time.monotonic()
        progress = {
            "title": self.recipe.title,
            "recipe": self.recipe.id,
            "epoch": self.epoch_number + 1,
            "epochs": self.recipe.epochs,
            "step": self.position.step,
            "steps": self.steps,
            "images_per_second": round(self.position.images / max(self.seconds, 1e-6), 1),
            "updated": time.time(),
        }
        self._write(lambda: write_json(self.work / STATE, progress))

    def _origin(self) -> dict[str, Any]:
        return checkpoint.origin(self.recipe.fingerprint(), self.split.hash, self.world)

    def _modules(self) -> dict[str, nn.Module]:
        """Networks whose weights a checkpoint keeps."""
        modules = {"model": self.model, "best": self.best}
        return modules | ({"ema": self.ema.module} if self.ema else {})

    @property
    def seconds(self) -> float:
        """Seconds of training and validation so far."""
        return time.monotonic() - self.began

    def _write(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (OSError, SafetensorError) as error:
            number = getattr(error, "errno", None)
            full = number in DISK_FULL or any(os.strerror(code) in str(error) for code in DISK_FULL)
            what = "the disk is full" if full else str(error)
            kept = f"What was saved before is kept in {self.work}" if self.path.exists() else "Nothing was saved so far"
            again = "with --resume" if self.path.exists() else "again"
            raise FitError(
                f"The state cannot be written: {what}. {kept}. Make room, then give the same command {again}."
            ) from error
