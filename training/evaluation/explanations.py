"""Are a model's maps to be believed? Measured on many pictures, with intervals over cells, and kept with the entry.

Pointing game and energy inside the cell's box on whole smear frames and, through the frames that they were made of, on
augmented copies; ROAD, deletion and insertion on the entry's own test cells; and how much the maps depend on the
weights at all (sanity check of Adebayo et al. 2018, arXiv:1810.03292, layers randomised from the last to the first).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import nn
from tqdm import tqdm

from training.audit.matching import compare, detect, scaled_grey
from training.prepare.dataset import TrainingDataError
from training.publish.card import renew_card
from zoo.attribution import METHODS, PREDICTED, explain_batch
from zoo.attribution.faithfulness import Box, energy_inside, points_inside, share_of
from zoo.benchmarks import get_benchmark, published
from zoo.benchmarks.leaderboard import home_benchmark
from zoo.data import FileSource, Source, read_dataset
from zoo.data.registry import augmented_sets
from zoo.entry import Entry
from zoo.entry.schema import FRAMES_SUFFIX
from zoo.entry.write import update_explanations
from zoo.imaging.preprocess import preprocessor
from zoo.scores.bootstrap import cell_numbers, ratio_of_sums, resample_weights
from zoo.serving.loading import load_model
from zoo.serving.runtime import Explanation, Runtime

FAITHFUL, SANE = 60, 24  # pictures that the model is asked about many times, and that maps are compared on
Boxed = tuple[str, Image.Image, Box]  # cell, picture, and the cell's box in its pixels
BLOCKS = (0.25, 0.5, 1.0)  # share of the layers, from the last on, that are randomised
LEAST_INLIERS = 12  # points that must agree before a box is carried from a frame to its copy


def quality(entry: Entry, root: Path, runtime: Runtime, method: str, say: Callable[[object], None]) -> dict[str, Any]:
    """Measure one method's maps and keep what was found in the entry's evaluation.json, under `explanations`.

    Raises TrainingDataError if neither pictures with boxes nor the entry's own data are under `root`, and
    ExplanationError if the method cannot explain the entry.
    """
    found: dict[str, Any] = {}
    for name, pictures in boxed_sets(root).items():
        boxed = list(pictures)
        if boxed:
            found[name] = _inside(entry, boxed, runtime, method, name)
    home = home_benchmark(entry)
    if home in published() and not entry.members:
        found |= _faithful(entry, home, root, runtime, method)
        if METHODS[method].quick:
            found["sanity"] = _sanity(entry, [source for source, _ in _sample(home, root, SANE)], method)
    if not found:
        raise TrainingDataError(f"There is nothing under {root} that {entry.id} could be measured on.")
    update_explanations(entry.folder, method, found)
    renew_card(entry.folder)
    for line in in_words(found):
        say(f"{entry.id}, {METHODS[method].title}: {line}")
    return found


def in_words(found: dict[str, Any]) -> Iterator[str]:
    """What was found, a line a measure."""
    for name, told in found.items():
        if "pointing" in told:
            yield (
                f"{name}: {_percent(told['pointing'])} of maps point into the cell's box, {_percent(told['energy'])} "
                f"of their energy lies in it; by chance {100 * told['chance']:.0f} % ({told['images']} pictures)"
            )
    for name in ("road", "deletion", "insertion"):
        if name in found:
            yield f"{name}: {found[name]['value']:.3f} ({found[name]['low']:.3f} to {found[name]['high']:.3f})"
    for name, value in found.get("sanity", {}).items():
        yield f"rank correlation with the map of a model, {name} of whose layers are random: {value:.2f}"


def boxed_sets(root: Path) -> dict[str, Iterator[Boxed]]:
    """Pictures under `root` whose cell's box is known, by the name that what is measured on them is kept under.

    These are the whole frames that benchmarks of crops were cut from, and, where a benchmark's pictures are augmented
    copies of such frames, one copy of each.
    """
    sets: dict[str, Iterator[Boxed]] = {}
    known = published()
    for name, definition in known.items():
        if definition.part == "frames" and (root / definition.data_set.place).is_dir():
            sets[f"{definition.data}{FRAMES_SUFFIX}"] = frames(name, root / definition.data_set.place)
    for name, definition in known.items():
        for copied, original in augmented_sets():
            here = (root / copied.place).is_dir() and (root / original.place).is_dir()
            if definition.data == copied.name and definition.part == "test" and here:
                sets[name] = copies(name, root, root / original.place)
    return sets


def frames(benchmark: str, folder: Path) -> Iterator[Boxed]:
    """The whole frames in `folder`, with one white cell each, that a benchmark's crops were cut from."""
    boxes = _boxes(folder)
    for row in get_benchmark(benchmark).rows.to_dict("records"):
        if len(boxes.get(row["cell"], [])) == 1:
            path, box = boxes[row["cell"]][0]
            yield str(row["cell"]), FileSource(path, None).image(), box


def copies(benchmark: str, root: Path, originals: Path) -> Iterator[Boxed]:
    """A benchmark's first copy of each of the frames in `originals`, its box found by matching both."""
    boxes, done = _boxes(originals), set()
    for _, cell, _, source in get_benchmark(benchmark).pictures(root):
        if cell in done or len(boxes.get(cell, [])) != 1:
            continue
        path, box = boxes[cell][0]
        picture = source.image()
        carried = carry(FileSource(path, None).image(), picture, box)
        if carried:
            done.add(cell)
            yield cell, picture, carried


def carry(frame: Image.Image, picture: Image.Image, box: Box) -> Box | None:
    """A box of a frame, as it lies in a turned, moved or mirrored copy of it; None if the two do not match."""
    first, second = (scaled_grey(np.asarray(image)) for image in (picture, frame))
    fit = compare(detect(first), detect(second))
    if fit.matrix is None or fit.inliers < LEAST_INLIERS:
        return None
    scale, back = second.shape[1] / frame.width, picture.width / first.shape[1]
    left, top, right, bottom = (edge * scale for edge in box)
    corners = np.array([(x, y) for x in (left, right) for y in (top, bottom)])
    if fit.mirrored:
        corners = corners * (-1, 1)
    moved = (corners @ fit.matrix[:, :2].T + fit.matrix[:, 2]) * back
    left, top = np.maximum(moved.min(0), 0)
    right, bottom = np.minimum(moved.max(0), picture.size)
    return (float(left), float(top), float(right), float(bottom)) if right - left > 4 and bottom - top > 4 else None


def _boxes(folder: Path) -> dict[str, list[tuple[Path, Box]]]:
    found: dict[str, list[tuple[Path, Box]]] = {}
    for item in read_dataset(folder).items:
        if isinstance(item.source, FileSource) and item.source.box and item.cell:
            left, top, right, bottom = map(float, item.source.box)
            found.setdefault(item.cell, []).append((item.source.path, (left, top, right, bottom)))
    return found


def _inside(entry: Entry, boxed: Sequence[Boxed], runtime: Runtime, method: str, name: str) -> dict[str, Any]:
    rows, seconds = [], []
    for cell, picture, box in tqdm(boxed, f"{entry.id}, {name}", unit="map"):
        start = time.perf_counter()
        found = runtime.explain(entry, picture, method=method)
        seconds.append(time.perf_counter() - start)
        energy = energy_inside(found.values, box)
        rows.append((cell, points_inside(found.values, box), energy, share_of(box, picture.size)))
    table = pd.DataFrame(rows, columns=["cell", "pointing", "energy", "chance"])
    return {
        "pointing": _mean(table, "pointing"),
        "energy": _mean(table.dropna(), "energy"),
        "chance": float(table["chance"].mean()),
        "images": len(table),
        "empty": int(table["energy"].isna().sum()),
        "seconds_per_map": float(np.median(seconds)),
    }


def _faithful(entry: Entry, home: str, root: Path, runtime: Runtime, method: str) -> dict[str, Any]:
    rows = []
    for source, cell in tqdm(_sample(home, root, FAITHFUL), f"{entry.id}, faithfulness", unit="map"):
        picture = source.image()
        found: Explanation = runtime.explain(entry, picture, method=method)
        worth = runtime.measure_faithfulness(entry, found)
        rows.append((cell, worth.road, worth.deletion, worth.insertion))
    table = pd.DataFrame(rows, columns=["cell", "road", "deletion", "insertion"])
    return {name: {**_mean(table, name), "images": len(table)} for name in ("road", "deletion", "insertion")}


def _sanity(entry: Entry, sources: Sequence[Source], method: str) -> dict[str, float]:
    """Mean absolute rank correlation of maps with those of the model whose last layers are random, by their share."""
    prepare = preprocessor(entry.config.pretrained_cfg.model_dump(), entry.config.zoo.crop)
    batch = torch.stack([prepare(source.image()) for source in sources])
    model = load_model(entry)
    targets = explain_batch(model, batch, torch.full((len(batch),), PREDICTED), method).logits.argmax(1)
    true = explain_batch(model, batch, targets, method).maps
    layers = [m for m in model.modules() if hasattr(m, "reset_parameters") and any(True for _ in m.parameters(False))]
    found = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for share in BLOCKS:
            for layer in layers[len(layers) - max(1, round(share * len(layers))) :]:
                _reset(layer)
            other = explain_batch(model, batch, targets, method).maps
            pairs = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(true, other, strict=True)]
            # a map without any evidence is like no other
            found[f"{100 * share:.0f} %"] = float(np.mean(np.abs(np.nan_to_num(pairs))))
    return found


def _reset(layer: nn.Module) -> None:
    for parameter in layer.parameters(recurse=False):
        parameter.requires_grad_(False)
    layer.reset_parameters()


def _sample(benchmark: str, root: Path, count: int) -> list[tuple[Source, str]]:
    """Pictures of a benchmark with their cells: one a cell, classes in turn, by chance."""
    first: dict[str, tuple[str, Source]] = {}
    for _, cell, label, source in get_benchmark(benchmark).pictures(root):
        first.setdefault(cell, (label, source))
    cells = np.random.default_rng(0).permutation(sorted(first)).tolist()
    table = pd.DataFrame({"cell": cells, "label": [first[cell][0] for cell in cells]})
    turn = table.groupby("label").cumcount()
    chosen = table.assign(turn=turn).sort_values("turn", kind="stable")["cell"][:count]
    return [(first[cell][1], cell) for cell in chosen]


def _mean(table: pd.DataFrame, column: str) -> dict[str, float]:
    """Mean of a column with its 95 % interval by bootstrap over cells."""
    if table.empty:  # not one map showed anything
        return {"value": 0.0, "low": 0.0, "high": 0.0}
    cells, count = cell_numbers(table["cell"])
    sums = np.bincount(cells, table[column].astype(float), count)
    interval = ratio_of_sums(sums, np.bincount(cells, minlength=count), resample_weights(count)).interval
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _percent(told: dict[str, float]) -> str:
    return f"{100 * told['value']:.1f} % ({100 * told['low']:.1f} to {100 * told['high']:.1f})"
