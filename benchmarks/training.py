"""Speed of training on drawn cells, relative to bare loops.

    python benchmarks/training.py [--images 960] [--epochs 15]

Prints four comparisons, measured side by side in one run: training from pictures against the same step on a batch that
is ready in memory; frozen backbones on cached features against the ordinary way; our loop against the loop of timm's
train script; and, on a CPU, the gain from keeping the memory of freed tensors and from our depthwise gradients.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import timm
import torch
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, ModelEmaV3, dispatch_clip_grad
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.making import LABELS, draw_cell
from training.fit.batches import Arrays
from training.fit.depthwise import use_fast_gradients
from training.fit.devices import keep_memory, make_accelerator
from training.fit.loop import train
from training.fit.network import build_model
from training.prepare.splits import Split
from training.recipe import Recipe, load_recipe

SIDE = 160
EPOCHS = 2  # the first includes the start, as it does once in any training
LOOPS = ("bare", "ours", "timm")
STEPS = ("cnn5_128", "pbc8-efficientnet-lite0")
OWN = ("memory", "gradients")
CHANGES = ["data.labels={ a = 'a', b = 'b', c = 'c', d = 'd' }", "data.descriptions={}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1920)
    parser.add_argument("--epochs", type=int, default=15, help="epochs of the comparison of frozen backbones")
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
        print(bare_step(load_recipe(options.step, CHANGES), torch.device("cpu"), quick="gradients" in options.own))
    elif options.loop:
        print(*loop(options.loop, options.images, options.folder, device), sep="\n")
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HEMAZOO_CACHE"] = folder
            place = Path(folder)
            print(f"{device}, {torch.get_num_threads()} threads, {options.images} pictures of {SIDE}×{SIDE}")
            arrays, split = drawn(options.images)
            whole(place, arrays, split)
            frozen(place, arrays, split, device, options.epochs)
            if device.type == "cpu":
                alone_on_a_cpu()


def drawn(count: int) -> tuple[Arrays, Split]:
    """Drawn cells to train on, and an eighth of their number to validate on."""
    cells = [np.asarray(draw_cell(LABELS[n % 4], n, (SIDE, SIDE))) for n in range(count + count // 8)]
    rows = {"train": np.arange(count), "val": np.arange(count, len(cells)), "test": np.arange(0)}
    return Arrays(np.stack(cells), np.arange(len(cells)) % 4), Split(rows, tuple(map(str, range(len(cells)))), {}, "x")


def whole(place: Path, arrays: Arrays, split: Split) -> None:
    """Compare training end to end with the bare step and with timm's loop: the best of two runs of each, in turn."""
    write_folder(place / "pictures", arrays, split)
    found: dict[str, list[list[float]]] = {name: [] for name in LOOPS}
    for name in LOOPS * 2:
        options = ["--loop", name, "--images", len(split.rows["train"]), "--folder", place / "pictures"]
        found[name].append(alone(*options))
    first, best = ({name: max(each[n] for each in rates) for name, rates in found.items()} for n in (0, -1))
    print("EfficientNet-Lite0, 128×128, bf16, batch 64, everything trained, EMA, augmented; images a second")
    print(f"  the step alone, on a batch in memory        {best['bare']:8.1f}")
    for title, rate, against, goal in (
        ("training from pictures, end to end", best["ours"], best["bare"], " (goal 0.9)"),
        ("its first epoch, with all that starts it", first["ours"], best["bare"], ""),
        ("end to end against timm's train script", best["ours"], best["timm"], " (goal 1.0)"),
    ):
        print(f"  {title:43} {rate:8.1f}  ratio {rate / against:.2f}{goal}")


def loop(name: str, images: int, folder: Path, device: torch.device) -> list[float]:
    """Images a second of one of LOOPS, for each epoch where it has epochs."""
    changes = [*CHANGES, "stages=[]", f"schedule.epochs={EPOCHS}", "model.input_size=[128, 128]"]
    recipe = load_recipe("pbc8-efficientnet-lite0", changes)
    keep_memory()  # for timm's loop too, because only the loops are compared
    if name == "bare":
        return [bare_step(recipe, device, images // recipe.schedule.batch_size)]
    return timms(folder, recipe, device) if name == "timm" else ours(recipe, *drawn(images), device)


def alone(*options: object) -> list[float]:
    """Numbers that this script prints in a new process, because an earlier training would change the measurement."""
    command = [sys.executable, __file__, *map(str, options)]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    return [float(line) for line in lines]


def bare_step(recipe: Recipe, device: torch.device, steps: int = 8, quick: bool = True) -> float:
    """Images a second of a step and the average on one batch in memory; `quick`: with fast depthwise gradients."""
    model = build_model(recipe.network, 4).to(device, memory_format=torch.channels_last).train()
    if quick and device.type == "cpu":
        use_fast_gradients(model)
    average = ModelEmaV3(model, decay=0.99)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    size = recipe.schedule.batch_size
    batch = torch.randn(size, 3, 128, 128, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(size, device=device) % 4
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    start = 0.0
    for step in range(steps + 2):
        if step == 2:
            start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(batch)
        optimizer.zero_grad(set_to_none=True)
        criterion(logits.float(), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        average.update(model)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return steps * size / (time.perf_counter() - start)


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
    """Images a second of each epoch of our loop, saving included.

    Validation, which the other loops lack, is of a few pictures.
    """
    little = Split({**split.rows, "val": split.rows["val"][:8]}, split.cells, {}, "x")
    ends = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as work:
        accelerator = make_accelerator(device)
        fitted = train(
            recipe, arrays, little, Path(work), accelerator, after_epoch=lambda _: ends.append(time.perf_counter())
        )
    return [fitted.images / EPOCHS / (end - start) for start, end in pairwise(ends)]


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
            with torch.autocast(device.type, torch.bfloat16):
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
    """Compare training a new head on a frozen backbone without cached features, with new ones, and with old ones."""
    changes = [*CHANGES, f"stages=[{{ epochs = {epochs}, train = 'head' }}]", "model.input_size=[128, 128]"]
    changes += ["data.originals=false", "data.split=stratified", "schedule.views=1", "schedule.stop_patience=1000"]
    recipe = load_recipe("efficientnet_lite0_frozen", changes)
    still = recipe.model_copy(update={"augment": type(recipe.augment)()})
    plain = still.model_copy(update={"schedule": still.schedule.model_copy(update={"cache_features": False})})
    times, scores = {}, {}
    for name, one in (("ordinary", plain), ("first", still), ("again", still)):
        work = place / name
        work.mkdir()
        start = time.perf_counter()
        fitted = train(one, arrays, split, work, make_accelerator(device))
        times[name] = time.perf_counter() - start
        scores[name] = fitted.history[fitted.best_epoch - 1]["val_accuracy"]
    print(f"The same backbone frozen, a head for {epochs} epochs; seconds, validation accuracy")
    print(f"  every epoch through the backbone      {times['ordinary']:8.1f}  {100 * scores['ordinary']:.1f} %")
    for name, title in (("first", "features made, then kept"), ("again", "on features that are kept")):
        ratio = times["ordinary"] / times[name]
        print(f"  {title:37} {times[name]:8.1f}  {100 * scores[name]:.1f} %  {ratio:.1f} times as fast (goal 20)")


if __name__ == "__main__":
    timm.utils.setup_default_logging()
    main()
