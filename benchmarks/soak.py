"""Memory, threads and open files of the engine over a long run.

    python benchmarks/soak.py [--minutes N] [--sessions N] [--json]

Sessions start and end; they classify and explain with three models, by quick and slow methods, upload files that are no
pictures, and leave before the last answer. Models are unloaded and loaded again. Every minute all sessions end, and
memory, threads and open files are recorded. Prints memory at the end relative to that after the first minute (goal:
within 2 %), and the increase of threads and open files (goal: none).
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.classify import draw
from benchmarks.load import MODELS
from zoo.entry import Entry
from zoo.imaging.decode import PictureError, decode
from zoo.serving.requests import Client, StoppedError
from zoo.serving.runtime import BusyError, Runtime
from zoo.sources.catalogue import get_entry

METHODS = ("grad-cam", "layer-cam", "eigen-cam", "occlusion")
MAX_MODEL_BYTES = 15_000_000  # less than all three models need together


def visit(runtime: Runtime, entries: Sequence[Entry], seed: int, until: float) -> None:
    """Run sessions, one after the other, until the time is up."""
    chance = random.Random(seed)
    while time.monotonic() < until:
        here = [True]
        client = Client(f"visitor {chance.random()}", lambda here=here: here[0])
        for _ in range(chance.randint(1, 6)):
            entry = chance.choice(entries)
            try:
                content = b"no picture" if chance.random() < 0.05 else draw(chance.randrange(1000))
                image = decode(content)
                if chance.random() < 0.5:
                    runtime.submit(entry, image, client=client).result()
                else:
                    runtime.explain(entry, image, method=chance.choice(METHODS), client=client)
            except (PictureError, BusyError, StoppedError):
                continue
        runtime.submit(entries[0], decode(draw(1)), client=client)
        here[0] = False  # leaves without waiting for the last answer


def state() -> tuple[int, int, int]:
    """Memory in bytes, threads and open files of this process."""
    gc.collect()
    process = psutil.Process()
    return process.memory_info().rss, process.num_threads(), process.num_fds()


def soak(minutes: float, sessions: int) -> dict[str, float]:
    """Run the sessions; returns changes since the first minute, or the first fifth of a short run."""
    begin = time.monotonic()
    entries = [get_entry(name) for name in MODELS]
    seen = []
    with Runtime(max_bytes=MAX_MODEL_BYTES) as runtime:
        while time.monotonic() < begin + 60 * minutes - 1:
            until = time.monotonic() + min(60.0, 12 * minutes)
            given = [(runtime, entries, 1000 * len(seen) + seed, until) for seed in range(sessions)]
            threads = [threading.Thread(target=visit, args=one) for one in given]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # memory is comparable only while the engine is idle
            while runtime.waiting():
                time.sleep(0.1)
            time.sleep(5)
            seen.append(state())
            measured = f"{seen[-1][0] / 1e6:.0f} MB, {seen[-1][1]} threads, {seen[-1][2]} files"
            print(f"{(time.monotonic() - begin) / 60:.1f} min: {measured}", file=sys.stderr, flush=True)
        load = runtime.status()
    first, last = seen[0], seen[-1]
    return {
        "memory_ratio": last[0] / first[0],
        "highest_memory_ratio": max(one[0] for one in seen) / first[0],
        "threads_more": last[1] - first[1],
        "files_more": last[2] - first[2],
        "answered": load.answered,
        "restarts": load.restarts,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    options = parser.parse_args()
    found = soak(options.minutes, options.sessions)
    print(json.dumps(found) if options.json else "\n".join(f"{name:22} {value:.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
