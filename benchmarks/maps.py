"""Faithfulness and cost of finer explanation maps beside the usual one, on the same cells.

    PYTHONPATH=. python benchmarks/maps.py champion8-fine --data ROOT [--cells 200] [--method integrated-gradients]

A map is fine from `FINE` squares a side. Compared with Grad-CAM at the model's usual layer are Grad-CAM and LayerCAM at
the last layer that is fine, and the methods that are named. A row shows the map's squares, its median seconds, its mean
ROAD (0: no better than chance, 1: all), and the mean difference to the usual map with its paired 95 % interval. The
cells are test cells of the model's own laboratory, one picture a cell, classes in turn. Rows are printed again after
every few cells.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from zoo.attribution import METHODS
from zoo.benchmarks import get_benchmark
from zoo.benchmarks.leaderboard import home_benchmark
from zoo.entry import Entry
from zoo.scores.bootstrap import percentile_interval, resample_weights
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import get_entry

FINE = 12  # squares a side
USUAL = "grad-cam"
FINER = ("grad-cam", "layer-cam")  # at a finer layer
EVERY = 4  # cells between two tables

Way = tuple[str, str | None]  # method and layer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--method", choices=METHODS, action="append", default=[], help="can be repeated")
    options = parser.parse_args()
    entry = get_entry(options.entry)
    pictures = sample(entry, options.data, options.cells)
    rows: list[tuple[str, int, float, float]] = []
    with Runtime() as runtime:
        ways = [(USUAL, None), *((method, None) for method in options.method)]
        layer = fine_layer(runtime, entry, pictures[0])
        ways += [(method, layer) for method in FINER if layer is not None]
        for number, picture in enumerate(pictures, 1):
            rows += [measure(runtime, entry, picture, way) for way in ways]
            if number % EVERY == 0 or number == len(pictures):
                print(f"\n{number} cells\n{table(rows).to_string(index=False)}", flush=True)


def sample(entry: Entry, root: Path, count: int) -> list[Image.Image]:
    """Pictures of different test cells of the entry's laboratory, classes in turn."""
    first: dict[str, tuple[str, int]] = {}
    listed = list(get_benchmark(home_benchmark(entry) or "").pictures(root))
    for number, (_, cell, label, _) in enumerate(listed):
        first.setdefault(cell, (label, number))
    cells = np.random.default_rng(0).permutation(sorted(first)).tolist()
    found = pd.DataFrame([first[cell] for cell in cells], columns=["label", "number"])
    order = found.assign(turn=found.groupby("label").cumcount()).sort_values("turn", kind="stable")
    return [listed[number][3].image() for number in order["number"][:count]]


def fine_layer(runtime: Runtime, entry: Entry, picture: Image.Image) -> str | None:
    """The last layer whose maps are fine; None where there is none."""
    for layer in reversed(runtime.layers(entry)):
        cam = runtime.explain(entry, picture, method=USUAL, layer=layer).cam
        if cam is not None and min(cam.shape) >= FINE:
            return layer
    return None


def measure(runtime: Runtime, entry: Entry, picture: Image.Image, way: Way) -> tuple[str, int, float, float]:
    """Name, squares a side, seconds and ROAD of one map."""
    method, layer = way
    begin = time.perf_counter()
    found = runtime.explain(entry, picture, method=method, layer=layer)
    seconds = time.perf_counter() - begin
    name = METHODS[method].title + (f", {layer}" if layer else "")
    squares = min(found.cam.shape) if found.cam is not None else 0
    return name, squares, seconds, runtime.measure_faithfulness(entry, found).road


def table(rows: list[tuple[str, int, float, float]]) -> pd.DataFrame:
    """A row a way: means over the cells, and the difference to the first."""
    listed = pd.DataFrame(rows, columns=["map", "squares", "seconds", "road"])
    by_way = {str(name): part for name, part in listed.groupby("map", sort=False)}
    usual, shown = next(iter(by_way.values()))["road"].to_numpy(), []
    for name, part in by_way.items():
        gap = part["road"].to_numpy() - usual
        weights = resample_weights(len(gap))
        interval = percentile_interval(float(gap.mean()), weights @ gap.astype(np.float32) / len(gap))
        told = f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
        shown.append((name, int(part["squares"].iloc[0]), part["seconds"].median(), part["road"].mean(), told))
    return pd.DataFrame(shown, columns=["map", "squares", "seconds", "ROAD", "difference"]).round(3)


if __name__ == "__main__":
    main()
