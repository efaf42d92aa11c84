"""Speed by the way in which threads wait, without neighbours and beside two busy processes.

    python benchmarks/busy.py [--json] [--model ID] [--rounds N] [--neighbours N]

Networks are run by torch. Each way of setting up OpenMP runs in a fresh process, in turn in every round; printed are
medians, and ratios to torch's default in the same round (more than 1: better than the default):
- `single`: pictures a second, one after the other;
- `batch`: pictures a second of 64 at once;
- `sessions 8`, `sessions 32`: pictures a second of so many sessions with 4 pictures each, through the app's engine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.classify import draw
from zoo.serving.batch import classify_files
from zoo.serving.requests import Client
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import get_entry

DEFAULT = "torch's default"
WAYS = {
    DEFAULT: {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
OWN = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # cleared before a way is tried
SINGLES, BATCH, SESSIONS, EACH = 12, 64, (8, 32), 4


def measure(model: str) -> dict[str, float]:
    """Pictures a second of this process, as it was set up."""
    entry, files = get_entry(model), [(str(number), draw(number)) for number in range(BATCH)]

    with Runtime("cpu", "fp32", backend="torch") as runtime:

        def classify(some: list[tuple[str, bytes]], name: str = "one") -> None:
            list(classify_files(runtime, entry, some, client=Client(name)))

        def sessions(count: int) -> None:
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(lambda number: classify(files[:EACH], f"session {number}"), range(count)))

        classify(files[:8])
        singles = [rate(1, lambda: classify(files[:1])) for _ in range(SINGLES)]
        found = {"single": statistics.median(singles), "batch": rate(BATCH, lambda: classify(files))}
        return found | {f"sessions {count}": rate(count * EACH, partial(sessions, count)) for count in SESSIONS}


def rate(pictures: int, work: Callable[[], None]) -> float:
    """Pictures a second of a call."""
    start = time.perf_counter()
    work()
    return pictures / (time.perf_counter() - start)


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """Keep so many other processes busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def run_way(way: str, model: str) -> dict[str, float]:
    """Measure in a fresh process, because OpenMP reads its settings once."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN} | WAYS[way]
    done = subprocess.run(
        [sys.executable, __file__, "--measure", "--model", model], env=environment, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def compare(model: str, rounds: int, neighbours: int) -> dict[str, dict[str, dict[str, float]]]:
    """Medians of all ways, with their ratios to the default, with so many busy neighbours."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with busy_neighbours(neighbours):
        for _ in range(rounds):
            for way in WAYS:
                found[way].append(run_way(way, model))
    return {
        way: {
            what: {
                "rate": statistics.median(row[what] for row in rows),
                "ratio": statistics.median(
                    row[what] / base[what] for row, base in zip(rows, found[DEFAULT], strict=True)
                ),
            }
            for what in rows[0]
        }
        for way, rows in found.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pbc8-efficientnet-lite0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--neighbours", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.model)))
        return
    tables = {count: compare(options.model, options.rounds, count) for count in (0, options.neighbours)}
    if options.json:
        print(json.dumps(tables))
        return
    for count, table in tables.items():
        print(f"{options.model} beside {count} busy processes: pictures a second (ratio to {DEFAULT})")
        for way, row in table.items():
            cells = (f"{what} {one['rate']:6.1f} ({one['ratio']:.2f})" for what, one in row.items())
            print(f"  {way:16} {'  '.join(cells)}")


if __name__ == "__main__":
    main()
