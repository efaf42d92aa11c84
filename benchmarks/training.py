"""Speed of training on drawn cells, relative to bare loops.

    python benchmarks/training.py [--images 960] [--epochs 20] [--only frozen]

Prints four comparisons, measured side by side in one run: training from pictures against the same step on a batch that
is ready in memory; frozen backbones on cached features against the ordinary way; our loop against the loop of timm's
train script; and, on a CPU, the gain from keeping the memory of freed tensors and from our depthwise gradients.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import timm
import torch
from scipy.stats import binomtest
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, ModelEmaV3, dispatch_clip_grad
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.making import LABELS, draw_cell
from training.fit.batches import Arrays
from training.fit.loop import Hooks, train
from training.fit.networks.network import build_model
from training.fit.processor.depthwise import use_fast_gradients
from training.fit.processor.devices import autocast, keep_memory, make_accelerator
from training.fit.processor.precision import with_precision
from training.prepare.splits import Split
from training.recipe import Recipe, load_recipe

SIDE = 160
EPOCHS = 5  # the first includes the start, as it does once in any training
FROZEN_TURNS = 1
LOOPS = ("ours", "timm")
PARTS = ("epochs", "frozen", "step")
STEPS = ("cnn5_128", "pbc8-efficientnet-lite0")
OWN = ("memory", "gradients")
CHANGES = ["data.labels={ a = 'a', b = 'b', c = 'c', d = 'd' }", "data.descriptions={}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the comparison of frozen backbones")
    parser.add_argument("--only", choices=PARTS, help="make this comparison alone")
    parser.add_argument("--step", choices=STEPS, help="measure the step of this recipe alone; prints images a second")
    parser.add_argument("--own", nargs="*", choices=OWN, default=[], help="with --step: our optimisations to use")
    parser.add_argument(
        "--loop", choices=LOOPS, help="measure this way of training alone; prints images a second, one epoch a line"
    )
    parser.add_argument("--folder", type=Path, help="with --loop timm: class folders of the pictures")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.step:
        if "memory" in options.own and not keep_memory():
            parser.error("this system cannot keep the memory of freed tensors")
        own = {"precision": "bf16", "fast_depthwise": "gradients" in options.own}
        recipe = load_recipe(options.step, CHANGES)
        recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=own)})
        step = BareStep(recipe, torch.device("cpu"))
        step.rate(2)
        print(step.rate(8))
    elif options.loop:
        print(*loop(options.loop, options.images, options.folder, device), sep="\n")
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HEMAZOO_CACHE"] = folder
            place = Path(folder)
            print(f"{device}, {torch.get_num_threads()} threads, {options.images} pictures of {SIDE}×{SIDE}")
            arrays, split = drawn(options.images)
            if options.only in (None, "epochs"):
                whole(place, arrays, split)
            if options.only in (None, "frozen"):
                frozen(place, arrays, split, device, options.epochs)
            if options.only in (None, "step") and device.type == "cpu":
                alone_on_a_cpu()


def drawn(count: int) -> tuple[Arrays, Split]:
    """Drawn cells to train on, and an eighth of their number to validate on."""
    cells = [np.asarray(draw_cell(LABELS[n % 4], n, (SIDE, SIDE))) for n in range(count + count // 8)]
    rows = {"train": np.arange(count), "val": np.arange(count, len(cells)), "test": np.arange(0)}
    return Arrays(np.stack(cells), np.arange(len(cells)) % 4), Split(rows, tuple(map(str, range(len(cells)))), {}, "x")


def whole(place: Path, arrays: Arrays, split: Split) -> None:
    """Compare training end to end with the bare step, epoch by epoch in turn, and with timm's loop."""
    write_folder(place / "pictures", arrays, split)
    count = ["--images", len(split.rows["train"])]
    ours, bare, of_processor = np.array(alone("--loop", "ours", *count)).reshape(-1, 3).T
    timm_rate = max(alone("--loop", "timm", *count, "--folder", place / "pictures"))
    print("EfficientNet-Lite0, 128×128, batch 64, all trained, EMA, augmented; images a second, median of epochs")
    print(f"  the step alone, on a batch in memory        {np.median(bare):8.1f}")
    ratios = ours / bare
    for title, rate, ratio, goal in (
        ("training from pictures, end to end", np.median(ours[1:]), np.median(ratios[1:]), " (goal 0.95)"),
        ("the same, in processor time", np.median(ours[1:]), np.median(of_processor[1:]), ""),
        ("its first epoch, with all that starts it", ours[0], ratios[0], ""),
        ("end to end against timm's train script", max(ours), max(ours) / timm_rate, " (goal 1.0)"),
    ):
        print(f"  {title:43} {rate:8.1f}  ratio {ratio:.2f}{goal}")


def loop(name: str, images: int, folder: Path, device: torch.device) -> list[float]:
    """Images a second of each epoch of one of LOOPS; for ours see there."""
    changes = [*CHANGES, "stages=[]", f"schedule.epochs={EPOCHS}", "model.input_size=[128, 128]"]
    recipe = with_precision(load_recipe("pbc8-efficientnet-lite0", changes), make_accelerator(device))
    return timms(folder, recipe, device) if name == "timm" else ours(recipe, *drawn(images), device)


def alone(*options: object) -> list[float]:
    """Numbers that this script prints in a new process, because an earlier training would change the measurement."""
    command = [sys.executable, __file__, *map(str, options)]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    return [float(line) for line in lines]


class BareStep:
    """A step and the average on one batch in memory, as a recipe computes it."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        schedule = recipe.schedule
        self.device, self.precision, self.size = device, schedule.precision, schedule.batch_size
        form = torch.channels_last if schedule.channels_last else torch.contiguous_format
        self.model = build_model(recipe.network, 4).to(device, memory_format=form).train()
        if schedule.fast_depthwise and device.type == "cpu":
            use_fast_gradients(self.model)
        self.average = ModelEmaV3(self.model, decay=0.99)
        self.optimizer = create_optimizer_v2(self.model, opt="adamw", lr=1e-3, weight_decay=0.05)
        self.batch = torch.randn(self.size, 3, *recipe.network.input_size, device=device).contiguous(memory_format=form)
        self.labels = torch.arange(self.size, device=device) % 4
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.05)

    def rate(self, steps: int) -> float:
        """Images a second of some steps."""
        start = time.perf_counter()
        for _ in range(steps):
            with autocast(self.device, self.precision):
                logits = self.model(self.batch)
            self.optimizer.zero_grad(set_to_none=True)
            self.criterion(logits.float(), self.labels).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimizer.step()
            self.average.update(self.model)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return steps * self.size / (time.perf_counter() - start)


def alone_on_a_cpu() -> None:
    """Compare the bare step of some recipes with ever more of our optimisations: the best of two runs, in turn."""
    print("The step alone: as torch does it, with freed memory kept, with our depthwise gradients too; images a second")
    for name in STEPS:
        found: list[list[float]] = [[] for _ in range(len(OWN) + 1)]
        for parts in (*range(len(found)),) * 2:
            found[parts] += alone("--step", name, "--own", *OWN[:parts])
        rates = [max(each) for each in found]
        ratios = "  ".join(f"{rate:.1f} ({rate / rates[0]:.2f})" for rate in rates[1:])
        print(f"  {name:25} {rates[0]:8.1f}  {ratios}")


def ours(recipe: Recipe, arrays: Arrays, split: Split, device: torch.device) -> list[float]:
    """Images a second of each epoch of our loop, saving included, of the bare step after it, and a ratio, in turn.

    The ratio is that in processor time, which other programs disturb less.
    Validation, which the other loops lack, is of a few pictures.
    """
    little = Split({**split.rows, "val": split.rows["val"][:8]}, split.cells, {}, "x")
    bare = BareStep(recipe, device)
    steps = len(split.rows["train"]) // recipe.schedule.batch_size
    bare.rate(2)
    rates: list[float] = []
    began, used = time.perf_counter(), processor_seconds()

    def note(_: dict[str, float]) -> None:
        nonlocal began, used
        rate, used = steps * recipe.schedule.batch_size / (time.perf_counter() - began), processor_seconds() - used
        before = processor_seconds()
        rates.extend((rate, bare.rate(steps), (processor_seconds() - before) / used))
        began, used = time.perf_counter(), processor_seconds()

    with tempfile.TemporaryDirectory() as work:
        train(recipe, arrays, little, Path(work), make_accelerator(device), hooks=Hooks(after_epoch=note))
    return rates


def processor_seconds() -> float:
    """Processor time of this process and of its workers so far."""
    children = [psutil.Process(child.pid).cpu_times() for child in multiprocessing.active_children()]
    return time.process_time() + sum(each.user + each.system for each in children)


def write_folder(place: Path, arrays: Arrays, split: Split) -> None:
    """The training pictures as class folders of JPEG files, which timm reads."""
    for row in split.rows["train"]:
        folder = place / "train" / "abcd"[arrays.labels[row]]
        folder.mkdir(parents=True, exist_ok=True)
        draw_cell(LABELS[row % 4], int(row), (SIDE, SIDE)).save(folder / f"{row}.jpg", quality=90)


def timms(place: Path, recipe: Recipe, device: torch.device) -> list[float]:
    """Images a second of each epoch as timm's train.py (1.0) runs it: its data set, loader, optimiser and average."""
    dataset = create_dataset("", root=str(place), split="train", is_training=True)
    loader = create_loader(
        dataset,
        input_size=(3, 128, 128),
        batch_size=recipe.schedule.batch_size,
        is_training=True,
        use_prefetcher=device.type == "cuda",
        scale=(0.7, 1.0),
        hflip=0.5,
        vflip=0.5,
        color_jitter=0.15,
        interpolation="random",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        num_workers=max(1, (os.cpu_count() or 2) - 1),
        device=device,
    )
    model = build_model(recipe.network, 4).to(device, memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    average = ModelEmaV3(model, decay=0.99)
    criterion = LabelSmoothingCrossEntropy(0.05)
    losses, rates = AverageMeter(), []
    for _ in range(EPOCHS):
        start, seen = time.perf_counter(), 0
        for images, labels in loader:
            batch = images.to(device).contiguous(memory_format=torch.channels_last)
            labels = labels.to(device)
            with autocast(device, recipe.schedule.precision):
                loss = criterion(model(batch).float(), labels)
            loss.backward()
            dispatch_clip_grad(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
            average.update(model)
            losses.update(loss.item(), len(batch))
            seen += len(batch)
        rates.append(seen / (time.perf_counter() - start))
    return rates


def frozen(place: Path, arrays: Arrays, split: Split, device: torch.device, epochs: int) -> None:
    """Compare a new head on a frozen backbone: every epoch through it, features of some views kept, and kept before."""
    changes = [*CHANGES, f"stages=[{{ epochs = {epochs}, train = 'head' }}]", "model.input_size=[128, 128]"]
    changes += ["data.originals=false", "data.split=stratified", "schedule.stop_patience=1000"]
    recipe = with_precision(load_recipe("efficientnet_lite0_frozen", changes), make_accelerator(device))
    plain = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"cache_features": False})})
    times: dict[str, list[float]] = {"ordinary": [], "first": [], "again": []}
    scores = {}
    for turn in range(FROZEN_TURNS):
        os.environ["HEMAZOO_CACHE"] = str(place / f"cache-{turn}")
        for name, one in (("ordinary", plain), ("first", recipe), ("again", recipe)):
            work = place / f"{name}-{turn}"
            work.mkdir()
            start = time.perf_counter()
            fitted = train(one, arrays, split, work, make_accelerator(device))
            times[name].append(time.perf_counter() - start)
            scores[name] = fitted.history[fitted.best_epoch - 1]["val_accuracy"]
    views, count = recipe.schedule.views, len(split.rows["val"])
    goals = {"ordinary": "", "first": f" (goal {0.8 * epochs / views:.1f})", "again": ""}
    print(f"The same backbone frozen, a head for {epochs} epochs, {views} views; medians, 95 % intervals of accuracy")
    for name, title in (
        ("ordinary", "every epoch through the backbone"),
        ("first", "features made, then kept"),
        ("again", "on features that are kept"),
    ):
        ratio = np.median(np.array(times["ordinary"]) / times[name])
        low, high = binomtest(round(scores[name] * count), count).proportion_ci(method="wilson")
        accuracy = f"{100 * scores[name]:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        print(f"  {title:34} {np.median(times[name]):7.1f} s  {accuracy}  {ratio:.1f} times as fast{goals[name]}")


if __name__ == "__main__":
    timm.utils.setup_default_logging()
    main()
