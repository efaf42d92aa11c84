"""The training loop of the detector, which goes on where it was stopped."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

from training.detection.loss import detection_loss
from training.detection.pictures.samples import CropStream
from training.detection.recipe import DetectorRecipe
from training.fit import checkpoint
from training.fit.networks.network import load_imagenet
from training.fit.processor.depthwise import use_fast_gradients
from training.fit.processor.devices import autocast
from zoo.detection.network import CellDetector
from zoo.detection.objects import OBJECTS

CHECKPOINT_EVERY = 250  # steps
MAX_GRADIENT = 10.0  # norm
MATRIX_UNIT = "amx_bf16"  # without it a CPU's bf16 gains nothing here
LAST_RATE = 0.02  # of the learning rate, at the end
Report = Callable[[int, float], None]


@dataclass(frozen=True)
class Fitted:
    """Averaged weights of a training, and its mean loss over each `CHECKPOINT_EVERY` steps."""

    network: CellDetector
    losses: Sequence[float]


def fit(
    recipe: DetectorRecipe,
    stream: CropStream,
    path: Path,
    workers: int,
    report: Report,
    start_from: CellDetector | None = None,
) -> Fitted:
    """Train a detector.

    Args:
        recipe: The recipe; the stream holds its batches in order.
        stream: Crops, `steps` × `batch_size` of them.
        path: Checkpoint file. Where it exists, the training goes on from it.
        workers: Processes that make crops.
        report: Called with the step and the mean loss, after each checkpoint.
        start_from: Network whose weights it begins with; None: the recipe's start weights.

    Raises:
        CheckpointError: The checkpoint is damaged, or of another recipe.
    """
    torch.manual_seed(recipe.seed)
    network = (start_from or build(recipe)).requires_grad_().to(memory_format=torch.channels_last)
    use_fast_gradients(network)
    average = copy.deepcopy(network).requires_grad_(False).eval()
    optimizer = _optimizer(network, recipe)
    made_by = checkpoint.origin(recipe.model_dump_json(), "", 1)
    start, losses = 0, []
    if path.exists():
        facts = checkpoint.read_facts(path)
        checkpoint.check_origin(facts, made_by, path)
        checkpoint.load(path, {"network": network, "average": average}, optimizer)
        start, losses = int(facts["step"]), list(facts["losses"])
    loader = DataLoader(
        stream,
        recipe.schedule.batch_size,
        sampler=_Rest(start * recipe.schedule.batch_size, len(stream)),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    train_mode(network)
    recent: list[float] = []
    for step, batch in enumerate(loader, start):
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, step)
        recent.append(_step(network, optimizer, batch))
        _average(average, network, min(recipe.schedule.average, (1 + step) / (10 + step)))
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == recipe.schedule.steps:
            losses.append(sum(recent) / len(recent))
            recent = []
            facts = {**made_by, "step": step + 1, "losses": losses}
            checkpoint.save(path, {"network": network, "average": average}, optimizer, facts)
            report(step + 1, losses[-1])
    return Fitted(average, losses)


def build(recipe: DetectorRecipe) -> CellDetector:
    """The recipe's network with its start weights. Raises WeightsError if these are not available."""
    network = CellDetector(len(OBJECTS), recipe.model.backbone, recipe.model.width)
    if recipe.model.pretrained:
        whole = timm.create_model(recipe.model.backbone)
        load_imagenet(whole, recipe.model.backbone)
        network.backbone.load_state_dict(whole.state_dict(), strict=False)
    return network


def train_mode(network: CellDetector) -> None:
    """Training mode, with the backbone normalising as it was pretrained: batches are too small to measure by."""
    network.train()
    for module in network.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def rate(recipe: DetectorRecipe, step: int) -> float:
    """Learning rate of a step: a linear warm-up, then half a cosine."""
    schedule = recipe.schedule
    if step < schedule.warmup:
        return schedule.learning_rate * (step + 1) / schedule.warmup
    share = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return schedule.learning_rate * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * share)) / 2)


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> float:
    with autocast(torch.device("cpu"), "bf16" if torch.cpu.get_capabilities().get(MATRIX_UNIT) else "fp32"):
        logits, sides = network(batch["picture"].to(memory_format=torch.channels_last))
    loss = detection_loss(
        logits.float(), sides.float(), batch["heat"], batch["wanted"], batch["box_weights"], batch["sure"]
    )
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT)
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, kept: float) -> None:
    for own, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if own.dtype.is_floating_point:
            own.lerp_(new, 1 - kept)
        else:
            own.copy_(new)


def _optimizer(network: nn.Module, recipe: DetectorRecipe) -> torch.optim.Optimizer:
    """AdamW without decay of biases and norms."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.schedule.weight_decay}, {"params": others, "weight_decay": 0}]
    return torch.optim.AdamW(groups, recipe.schedule.learning_rate)


class _Rest(Sampler[int]):
    """Numbers of the crops from `start` on, in order."""

    def __init__(self, start: int, end: int) -> None:
        self.numbers = range(start, end)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)
