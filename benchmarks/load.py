"""Correctness and speed of the engine with many users at once.

    python benchmarks/load.py [--json] [--sessions N] [--requests N] [--precision P]

All sessions send their pictures to the engine at the same time, one after the other, alternating between
classification and explanation and between three models. Prints:
- `wrong`: answers or maps that differ from those of a single session; `errors`: failed requests (goal: none of both);
- `ratio_bare`: requests a second, relative to a bare loop over full batches (goal: at least 0.8);
- `ratio_naive`: requests a second, relative to a lock around each call and a new pytorch-grad-cam object for each map,
  one picture at a time (goal: at least 4);
- `p50_ms`, `p95_ms`: milliseconds from request to answer; `fairness`: slowest session's mean over the fastest's;
- `alone_ms`, `beside_500_ms`: one picture of a session on an idle engine, and while 500 of another session are waiting.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.classify import draw
from zoo.attribution.features import find_layer
from zoo.entry import Entry
from zoo.imaging.decode import decode
from zoo.serving.engine import BATCH_SIZE
from zoo.serving.models.loaded import LoadedModel
from zoo.serving.models.loading import load_model
from zoo.serving.requests import Client, ExplanationRequest
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import get_entry

MODELS = ("pbc8-efficientnet-lite0", "wbc4-efficientnet-lite0", "cnn60")
PROBABILITY_TOLERANCE = 0.02  # largest difference
MAP_TOLERANCE = 0.05  # mean difference of a map's values


@dataclass(frozen=True)
class Job:
    """A request: the model, the picture, and whether a map is wanted."""

    entry: Entry
    image: Image.Image
    explain: bool


def jobs(sessions: int, each: int) -> list[list[Job]]:
    """Requests of each session, all with different pictures."""
    entries = [get_entry(name) for name in MODELS]
    return [
        [
            Job(entries[(one + n) % len(entries)], decode(draw(one * each + n)), (one + n // 3) % 2 == 0)
            for n in range(each)
        ]
        for one in range(sessions)
    ]


def ask(runtime: Runtime, job: Job, client: Client) -> tuple[np.ndarray, np.ndarray | None]:
    """Probabilities, and the map if one is wanted, as the app gets them."""
    if not job.explain:
        return runtime.submit(job.entry, job.image, client=client).result().probabilities, None
    found = runtime.explain(job.entry, job.image, client=client)
    return np.array(list(found.prediction.probabilities.values())), found.values


def engine(runtime: Runtime, requests: Sequence[Sequence[Job]]) -> tuple[list[list], list[list[float]], int]:
    """Run every session in its own thread; returns answers, seconds of each request, and the number that failed."""
    failed = [0]

    def session(number: int) -> tuple[list, list[float]]:
        client, answers, taken = Client(f"session {number}"), [], []
        for job in requests[number]:
            start = time.perf_counter()
            try:
                answers.append(ask(runtime, job, client))
            except Exception as error:
                print(f"session {number}: {error}", file=sys.stderr)
                answers.append(None)
                failed[0] += 1
            taken.append(time.perf_counter() - start)
        return answers, taken

    with ThreadPoolExecutor(len(requests)) as pool:
        found = list(pool.map(session, range(len(requests))))
    return [answers for answers, _ in found], [taken for _, taken in found], failed[0]


def bare(runtime: Runtime, requests: Sequence[Job]) -> None:
    """Do the same work in full batches in one thread."""
    groups: dict[tuple[str, bool], list[Job]] = {}
    for job in requests:
        groups.setdefault((job.entry.id, job.explain), []).append(job)
    for (_, explain), some in groups.items():
        model: LoadedModel = runtime.model(some[0].entry)
        for start in range(0, len(some), BATCH_SIZE):
            part = some[start : start + BATCH_SIZE]
            model.run(
                [model.pixels(job.image) for job in part], [ExplanationRequest() if explain else None] * len(part)
            )


def naive(requests: Sequence[Sequence[Job]], device: torch.device) -> None:
    """Do the same work as a simple app would: a lock, single pictures, a new GradCAM for each map."""
    lock, models = threading.Lock(), {}
    for job in (job for some in requests for job in some):
        if job.entry.id not in models:
            model = load_model(job.entry).to(device).requires_grad_(True)
            infos = getattr(model, "feature_info", None)
            models[job.entry.id] = (model, find_layer(model, infos[-1]["module"] if infos else "features"))
    prepare = {job.entry.id: LoadedModel(job.entry, device, "fp32").prepare for some in requests for job in some[:3]}

    def session(some: Sequence[Job]) -> None:
        for job in some:
            with lock:
                model, layer = models[job.entry.id]
                batch = prepare[job.entry.id](job.image)[None].to(device)
                with torch.no_grad():
                    best = int(model(batch).softmax(1).argmax())
                if job.explain:
                    with GradCAM(model, [layer]) as cam:
                        cam(batch, [ClassifierOutputTarget(best)])

    with ThreadPoolExecutor(len(requests)) as pool:
        list(pool.map(session, requests))


def wrong(found: Sequence[Sequence], expected: Sequence[Sequence]) -> int:
    """Number of answers or maps that differ from those of a single session."""
    count = 0
    for mine, theirs in zip(found, expected, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            far = one is None or np.abs(one[0] - other[0]).max() > PROBABILITY_TOLERANCE
            count += bool(far or (one[1] is not None and np.abs(one[1] - other[1]).mean() > MAP_TOLERANCE))
    return count


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def beside_many(runtime: Runtime, job: Job) -> tuple[float, float]:
    """Seconds of one picture on an idle engine, and while 500 of another session are waiting."""
    one = Client("one")
    alone = float(np.median([seconds(lambda: ask(runtime, job, one)) for _ in range(5)]))
    started = threading.Event()

    def many() -> None:
        tickets = []
        for n in range(500):
            tickets.append(runtime.submit(job.entry, job.image, client=Client("many")))
            if n == 100:
                started.set()
        for ticket in tickets:
            ticket.result()

    thread = threading.Thread(target=many)
    thread.start()
    started.wait()
    beside = float(np.median([seconds(lambda: ask(runtime, job, one)) for _ in range(5)]))
    thread.join()
    return alone, beside


def measure(sessions: int, each: int, precision: str) -> dict[str, float]:
    """Measure everything in one run."""
    requests = jobs(sessions, each)
    everything = [job for some in requests for job in some]
    with Runtime(precision=precision) as runtime:
        expected = [[ask(runtime, job, Client("alone")) for job in some] for some in requests]
        bare(runtime, everything)  # warms up
        taken = {"engine": [], "bare": []}
        for _ in range(3):
            start = time.perf_counter()
            found, latencies, failed = engine(runtime, requests)
            taken["engine"].append(time.perf_counter() - start)
            taken["bare"].append(seconds(lambda: bare(runtime, everything)))
        alone, beside = beside_many(runtime, everything[1])
        device = runtime.device
    slow = seconds(lambda: naive(requests, device))
    rates = np.divide(taken["bare"], taken["engine"])
    means = [float(np.mean(some)) for some in latencies]
    p50, p95 = np.percentile(np.concatenate(latencies), [50, 95])
    return {
        "wrong": wrong(found, expected),
        "errors": failed,
        "ratio_bare": float(np.median(rates)),
        "ratio_naive": slow / float(np.median(taken["engine"])),
        "p50_ms": 1000 * float(p50),
        "p95_ms": 1000 * float(p95),
        "fairness": max(means) / min(means),
        "alone_ms": 1000 * alone,
        "beside_500_ms": 1000 * beside,
        "requests_per_second": len(everything) / float(np.median(taken["engine"])),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--requests", type=int, default=12, help="of each session")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    found = measure(options.sessions, options.requests, options.precision)
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:20} {value:.2f}")


if __name__ == "__main__":
    main()
