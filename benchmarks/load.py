"""Does the app stay right and quick with many users at once? Side by side in one run.

    python benchmarks/load.py [--json] [--sessions N] [--requests N] [--precision P]

So many sessions ask the engine at once, each its own pictures one after the other, classifications and explanations by
turns, of three models. Printed:
- `wrong`: answers or maps that are not those of a session alone; `errors`: requests that failed (goal: none of both);
- `ratio_bare`: requests a second over a bare loop that has everything in batches (goal: at least 0.8);
- `ratio_naive`: requests a second over a lock around each call and pytorch-grad-cam made for each map, one picture at a
  time (goal: at least 4);
- `p50_ms`, `p95_ms`: milliseconds from question to answer; `fairness`: the slowest session's mean over the fastest's;
- `alone_ms`, `beside_500_ms`: one picture of a session that comes alone, and while another's 500 are waiting.
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
from zoo.serving.loaded import LoadedModel
from zoo.serving.loading import load_model
from zoo.serving.requests import Client, ExplanationRequest
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import get_entry

MODELS = ("pbc8-efficientnet-lite0", "wbc4-efficientnet-lite0", "cnn60")
SAME_SHARE, SAME_MAP = 0.02, 0.05  # largest difference of a probability; mean difference of a map's values


@dataclass(frozen=True)
class Job:
    """A request: which model, which picture, and whether a map is wanted."""

    entry: Entry
    image: Image.Image
    explain: bool


def jobs(sessions: int, requests: int) -> list[list[Job]]:
    """What each session asks, all pictures different."""
    entries = [get_entry(name) for name in MODELS]
    return [
        [
            Job(entries[(one + n) % len(entries)], decode(draw(one * requests + n)), (one + n // 3) % 2 == 0)
            for n in range(requests)
        ]
        for one in range(sessions)
    ]


def ask(runtime: Runtime, job: Job, client: Client) -> tuple[np.ndarray, np.ndarray | None]:
    """Probabilities, and the map where one is wanted, as the app would get them."""
    if not job.explain:
        return runtime.submit(job.entry, job.image, client=client).result().probabilities, None
    found = runtime.explain(job.entry, job.image, client=client)
    return np.array(list(found.prediction.probabilities.values())), found.values


def engine(runtime: Runtime, asked: Sequence[Sequence[Job]]) -> tuple[list[list], list[list[float]], int]:
    """Every session in a thread of its own: answers, seconds a request, and how many failed."""
    failed = [0]

    def session(number: int) -> tuple[list, list[float]]:
        client, answers, taken = Client(f"session {number}"), [], []
        for job in asked[number]:
            start = time.perf_counter()
            try:
                answers.append(ask(runtime, job, client))
            except Exception as error:
                print(f"session {number}: {error}", file=sys.stderr)
                answers.append(None)
                failed[0] += 1
            taken.append(time.perf_counter() - start)
        return answers, taken

    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(session, range(len(asked))))
    return [answers for answers, _ in found], [taken for _, taken in found], failed[0]


def bare(runtime: Runtime, asked: Sequence[Job]) -> None:
    """The same work in full batches, one after the other, in one thread."""
    groups: dict[tuple[str, bool], list[Job]] = {}
    for job in asked:
        groups.setdefault((job.entry.id, job.explain), []).append(job)
    for (_, explain), some in groups.items():
        model: LoadedModel = runtime.model(some[0].entry)
        for start in range(0, len(some), BATCH_SIZE):
            part = some[start : start + BATCH_SIZE]
            model.run(
                [model.pixels(job.image) for job in part], [ExplanationRequest() if explain else None] * len(part)
            )


def naive(asked: Sequence[Sequence[Job]], device: torch.device) -> None:
    """What apps usually do: a lock, one picture, a GradCAM made for each map."""
    lock, models = threading.Lock(), {}
    for job in (job for some in asked for job in some):
        if job.entry.id not in models:
            model = load_model(job.entry).to(device).requires_grad_(True)
            infos = getattr(model, "feature_info", None)
            models[job.entry.id] = (model, find_layer(model, infos[-1]["module"] if infos else "features"))
    prepare = {job.entry.id: LoadedModel(job.entry, device, "fp32").prepare for some in asked for job in some[:3]}

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

    with ThreadPoolExecutor(len(asked)) as pool:
        list(pool.map(session, asked))


def wrong(found: Sequence[Sequence], expected: Sequence[Sequence]) -> int:
    """How many answers or maps are not those of a session alone."""
    count = 0
    for mine, theirs in zip(found, expected, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            far = one is None or np.abs(one[0] - other[0]).max() > SAME_SHARE
            count += bool(far or (one[1] is not None and np.abs(one[1] - other[1]).mean() > SAME_MAP))
    return count


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def beside_many(runtime: Runtime, job: Job) -> tuple[float, float]:
    """Seconds of one picture alone, and while another session's 500 wait."""
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


def measure(sessions: int, requests: int, precision: str) -> dict[str, float]:
    """All figures."""
    asked = jobs(sessions, requests)
    everything = [job for some in asked for job in some]
    with Runtime(precision=precision) as runtime:
        expected = [[ask(runtime, job, Client("alone")) for job in some] for some in asked]
        bare(runtime, everything)  # warms up
        taken = {"engine": [], "bare": []}
        for _ in range(3):
            start = time.perf_counter()
            found, latencies, failed = engine(runtime, asked)
            taken["engine"].append(time.perf_counter() - start)
            taken["bare"].append(seconds(lambda: bare(runtime, everything)))
        alone, beside = beside_many(runtime, everything[1])
        device = runtime.device
    slow = seconds(lambda: naive(asked, device))
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
    """Run from the command line."""
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
