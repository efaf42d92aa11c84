"""Speed of classification and maps through the engine, relative to bare loops; start and memory of a process.

    python benchmarks/classify.py [--json] [--model ID …] [--images N] [--rounds N]

All ways run in turn in every round; printed are medians of ratios over rounds. For drawn pictures that are kept in
memory as JPEG files:
- `over_eager`: images a second of `zoo` over a bare loop of eager torch in fp32, both from encoded pictures to labels
  (goal: at least 2.3);
- `over_backend`: the same, over a bare loop of the backend that the zoo chose (goal: at least 0.85);
- `single`: seconds of eager torch over those of `zoo`, for one encoded picture after the other;
- `gradcam_cost`: seconds of a classification with map over one without (goal: at most 1.15);
- `gradcam_speed`: maps a second over pytorch-grad-cam called image by image (goal: at least 4);
- `sessions_8`, `sessions_32`: images a second of so many sessions together over those of one (goal: at least 0.9);
- `first_answer_s`: seconds of a new process from its start to the end of its first answer, where the converted network
  is stored (goal: at most 2), and `memory_mb`, that process's highest memory.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import timm
import torch
from PIL import Image, ImageDraw
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.processes import peak_memory
from zoo.attribution.features import find_layer
from zoo.attribution.network import run
from zoo.entry import Entry
from zoo.imaging.decode import decode
from zoo.serving.backends.convert import convert
from zoo.serving.backends.openvino_backend import OpenVinoBackend
from zoo.serving.batch import classify_files
from zoo.serving.models.loading import load_model
from zoo.serving.requests import Client, ExplanationRequest
from zoo.serving.runtime import BATCH_SIZE, Runtime
from zoo.sources.catalogue import get_entry

SIZE = (320, 240)  # of a picture, pixels
Predict = Callable[[torch.Tensor], torch.Tensor | np.ndarray]  # normalised batch (B, 3, H, W) → logits (B, classes)


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


def bare_loop(predict: Predict, transform: Callable, files: list[bytes], batch_size: int) -> None:
    """Classify without the zoo: open, transform, stack, predict."""
    for start in range(0, len(files), batch_size):
        batch = [transform(Image.open(io.BytesIO(file)).convert("RGB")) for file in files[start : start + batch_size]]
        np.asarray(predict(torch.stack(batch))).argmax(1)


def eager(model: torch.nn.Module) -> Predict:
    """Eager torch in fp32, as its tutorials show it."""

    def predict(batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = model(batch)
            return logits

    return predict


def best_backend(runtime: Runtime, entry: Entry, model: torch.nn.Module, folder: Path) -> Predict:
    """The library that the zoo chose for an entry, without the zoo around it."""
    loaded = runtime.model(entry)
    if loaded.network.backend == "torch":
        return lambda batch: run(model, batch).logits
    convert(model, loaded.input_size, True, folder / "network.xml")
    backend = OpenVinoBackend(folder / "network.xml")
    return lambda batch: backend.predict(batch).logits


def library_maps(model: torch.nn.Module, layer: torch.nn.Module, tensors: torch.Tensor, device: torch.device) -> None:
    """Run pytorch-grad-cam as its documentation shows it, one picture a call."""
    with GradCAM(model, [layer]) as cam:
        for tensor in tensors:
            cam(tensor[None].to(device), [ClassifierOutputTarget(0)])


def ask(runtime: Runtime, entry: Entry, images: list[Image.Image], explain: bool) -> None:
    """Send all pictures through the engine, with or without maps."""
    for future in [runtime.submit(entry, image, ExplanationRequest(0) if explain else None) for image in images]:
        future.result()


def sessions(runtime: Runtime, entry: Entry, files: list[tuple[str, bytes]], count: int) -> None:
    """Share the files among so many sessions, which classify them at once."""

    def session(number: int) -> None:
        list(classify_files(runtime, entry, files[number::count], client=Client(f"session {number}")))

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(session, range(count)))


def first_answer(entry: Entry, picture: Path) -> tuple[float, float]:
    """Seconds and highest memory in MB of a new process that classifies one picture."""
    return peak_memory(["classify", str(picture), "--model", entry.id, "--device", "cpu", "--single"])


def measure(entry: Entry, count: int, rounds: int, folder: Path) -> dict[str, float | str]:
    """Run everything once a round, one after the other; returns medians over rounds."""
    files = [draw(number) for number in range(count)]
    images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    named = [(str(number), file) for number, file in enumerate(files)]
    some = max(8, count // 10)
    found: dict[str, list[float]] = {}
    with Runtime("cpu") as runtime:
        model = load_model(entry)
        config = timm.data.resolve_data_config(pretrained_cfg=entry.config.pretrained_cfg.model_dump())
        transform = timm.data.create_transform(**config, is_training=False)
        tensors = torch.stack([transform(image) for image in images[:some]])
        library = load_model(entry).requires_grad_(True)
        layer = find_layer(library, library.feature_info[-1]["module"])
        plain, best = eager(model), best_backend(runtime, entry, model, folder)
        ways = {
            "zoo": lambda: list(classify_files(runtime, entry, named)),
            "eager": lambda: bare_loop(plain, transform, files, BATCH_SIZE),
            "best": lambda: bare_loop(best, transform, files, BATCH_SIZE),
            "zoo alone": lambda: [runtime.classify(entry, decode(file)) for file in files[:some]],
            "eager alone": lambda: bare_loop(plain, transform, files[:some], 1),
            "8 sessions": lambda: sessions(runtime, entry, named, 8),
            "32 sessions": lambda: sessions(runtime, entry, named, 32),
            "plain": lambda: ask(runtime, entry, images, False),
            "maps": lambda: ask(runtime, entry, images, True),
            "library": lambda: library_maps(library, layer, tensors, runtime.device),
        }
        for turn in range(1 + rounds):
            for name, way in ways.items():
                taken = seconds(way)
                if turn:  # the first one warms up
                    found.setdefault(name, []).append(taken)
        backend = runtime.model(entry).network.backend

    (folder / "cell.jpg").write_bytes(files[0])
    starts = [first_answer(entry, folder / "cell.jpg") for _ in range(rounds)]

    def ratio(above: str, below: str, factor: float = 1.0) -> float:
        return statistics.median(factor * a / b for a, b in zip(found[above], found[below], strict=True))

    return {
        "backend": backend,
        "images_per_second": count / statistics.median(found["zoo"]),
        "over_eager": ratio("eager", "zoo"),
        "over_backend": ratio("best", "zoo"),
        "single": ratio("eager alone", "zoo alone"),
        "gradcam_cost": ratio("maps", "plain"),
        "gradcam_speed": ratio("library", "maps", count / some),
        "sessions_8": ratio("zoo", "8 sessions"),
        "sessions_32": ratio("zoo", "32 sessions"),
        "first_answer_s": statistics.median(seconds for seconds, _ in starts),
        "memory_mb": max(memory for _, memory in starts),
        "images": count,
        "rounds": rounds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["pbc8-efficientnet-lite0", "miniresnet", "cnn60"])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for name in options.model:
        with TemporaryDirectory() as folder:
            figures = measure(get_entry(name), options.images, options.rounds, Path(folder))
        if options.json:
            print(json.dumps({"model": name, **figures}), flush=True)
            continue
        print(f"{name}: {figures['images_per_second']:.0f} images a second by {figures['backend']}")
        for ratio in list(figures)[2:-2]:
            print(f"  {ratio:14} {figures[ratio]:.2f}", flush=True)


if __name__ == "__main__":
    main()
