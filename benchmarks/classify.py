"""Speed of classification and maps through the engine, relative to bare loops.

    python benchmarks/classify.py [--json] [--model ID] [--images N] [--rounds N]

All ways run in turn in every round; printed are medians of ratios over rounds. For drawn pictures that are kept in
memory as JPEG files:
- `throughput`: images a second of `zoo` over a bare torch loop with the same model, size, dtype and batch, both from
  encoded pictures to labels (goal: at least 0.85);
- `forward`: the same, over a bare loop on tensors that are ready in memory (no goal; shows the cost of decoding);
- `gradcam_cost`: seconds of a classification with map over one without (goal: at most 1.15);
- `gradcam_speed`: maps a second over pytorch-grad-cam called image by image (goal: at least 4).
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image, ImageDraw
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo.attribution.features import find_layer
from zoo.entry import Entry
from zoo.serving.batch import classify_files
from zoo.serving.devices import autocast
from zoo.serving.loading import load_model
from zoo.serving.requests import ExplanationRequest
from zoo.serving.runtime import BATCH_SIZE, Runtime
from zoo.sources.catalogue import get_entry

SIZE = (320, 240)  # of a picture, pixels


def draw(number: int) -> bytes:
    """A JPEG of a cell-like disc on noise, about as large as a real one."""
    random = np.random.default_rng(number)
    image = Image.fromarray(random.normal(220, 6, (SIZE[1], SIZE[0], 3)).clip(0, 255).astype(np.uint8))
    x, y = random.uniform(90, 230), random.uniform(90, 150)
    pen = ImageDraw.Draw(image)
    pen.ellipse([x - 45, y - 45, x + 45, y + 45], fill=(200, 190, 230))
    pen.ellipse([x - 25, y - 20, x + 25, y + 25], fill=tuple(int(v) for v in random.integers(60, 140, 3)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bare_loop(
    model: torch.nn.Module, transform: Callable, files: list[bytes], device: torch.device, bf16: bool
) -> None:
    """Classify without the zoo: open, transform, stack, predict."""
    with torch.no_grad(), autocast(device, bf16):
        for start in range(0, len(files), BATCH_SIZE):
            batch = [
                transform(Image.open(io.BytesIO(file)).convert("RGB")) for file in files[start : start + BATCH_SIZE]
            ]
            tensor = torch.stack(batch).to(device, memory_format=torch.channels_last)
            model(tensor).float().softmax(1).cpu()


def bare_forward(model: torch.nn.Module, tensors: torch.Tensor, device: torch.device, bf16: bool) -> None:
    """Run the network alone."""
    with torch.no_grad(), autocast(device, bf16):
        for batch in tensors.split(BATCH_SIZE):
            model(batch.to(device, memory_format=torch.channels_last)).float().softmax(1).cpu()


def library_maps(model: torch.nn.Module, layer: torch.nn.Module, tensors: torch.Tensor, device: torch.device) -> None:
    """Run pytorch-grad-cam as its documentation shows it, one picture a call."""
    with GradCAM(model, [layer]) as cam:
        for tensor in tensors:
            cam(tensor[None].to(device), [ClassifierOutputTarget(0)])


def ask(runtime: Runtime, entry: Entry, images: list[Image.Image], explain: bool) -> None:
    """Send all pictures through the engine, with or without maps."""
    for future in [runtime.submit(entry, image, ExplanationRequest(0) if explain else None) for image in images]:
        future.result()


def measure(entry: Entry, count: int, rounds: int) -> dict[str, float]:
    """Run everything once a round, one after the other; returns medians over rounds."""
    files = [draw(number) for number in range(count)]
    images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    found: dict[str, list[float]] = {}
    with Runtime() as runtime:
        bf16 = runtime.model(entry).bf16
        device = runtime.device
        model = load_model(entry).to(device, memory_format=torch.channels_last)
        config = timm.data.resolve_data_config(pretrained_cfg=entry.config.pretrained_cfg.model_dump())
        transform = timm.data.create_transform(**config, is_training=False)
        tensors = torch.stack([transform(image) for image in images])
        library = load_model(entry).to(device).requires_grad_(True)
        layer = find_layer(library, library.feature_info[-1]["module"] if entry.labels else "")
        some = max(8, count // 10)
        bare_loop(model, transform, files[:some], device, bf16)
        for _ in range(rounds):
            row = {
                "zoo": seconds(
                    lambda: list(classify_files(runtime, entry, ((str(i), f) for i, f in enumerate(files))))
                ),
                "loop": seconds(lambda: bare_loop(model, transform, files, device, bf16)),
                "forward": seconds(lambda: bare_forward(model, tensors, device, bf16)),
                "plain": seconds(lambda: ask(runtime, entry, images, False)),
                "maps": seconds(lambda: ask(runtime, entry, images, True)),
                "library": seconds(lambda: library_maps(library, layer, tensors[:some], device)) * count / some,
            }
            for name, value in row.items():
                found.setdefault(name, []).append(value)

    def ratio(above: str, below: str) -> float:
        return statistics.median(a / b for a, b in zip(found[above], found[below], strict=True))

    return {
        "images_per_second": count / statistics.median(found["zoo"]),
        "throughput": ratio("loop", "zoo"),
        "forward": ratio("forward", "zoo"),
        "gradcam_cost": ratio("maps", "plain"),
        "gradcam_speed": ratio("library", "maps"),
        "bf16": bf16,
        "images": count,
        "rounds": rounds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pbc8-efficientnet-lite0")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(get_entry(options.model), options.images, options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.model}: {found['images_per_second']:.0f} images a second, bf16: {found['bf16']}")
    for name in ("throughput", "forward", "gradcam_cost", "gradcam_speed"):
        print(f"{name:14} {found[name]:.2f}")


if __name__ == "__main__":
    main()
