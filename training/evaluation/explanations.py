"""Quality of a model's attribution maps, with intervals over cells, stored in the entry.

- Localisation: pointing game and energy inside the cell's box, on whole smear frames and on augmented copies of them.
- Faithfulness: ROAD, deletion and insertion on the entry's own test cells.
- Randomisation test (Adebayo et al. 2018, arXiv:1810.03292): rank correlation with the maps of the same model after its
  layers were randomised, from the last to the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import nn

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
from zoo.progress import progress_bar
from zoo.scores.bootstrap import cell_numbers, ratio_of_sums, resample_weights
from zoo.serving.models.loading import load_model
from zoo.serving.runtime import Runtime

BoxedPicture = tuple[str, Image.Image, Box]  # cell, picture, and the cell's box in its pixels

FAITHFULNESS_PICTURES = 60  # each is classified hundreds of times
RANDOMISATION_PICTURES = 24
RANDOMISED_SHARES = (0.25, 0.5, 1.0)  # of the layers, counted from the last
MIN_INLIERS = 12  # matching points that are needed to transfer a box from a frame to its copy
MIN_BOX_SIDE = 4  # of a transferred box, pixels


def measure_maps(
    entry: Entry,
    root: Path,
    runtime: Runtime,
    method: str,
    log: Callable[[str], None],
    faithfulness_pictures: int = FAITHFULNESS_PICTURES,
    randomisation_pictures: int = RANDOMISATION_PICTURES,
) -> dict[str, Any]:
    """Measure the quality of one method's maps and store it in the entry's evaluation, under `explanations`.

    Args:
        entry: The entry.
        root: Folder that holds the data sets.
        runtime: Runs the entry.
        method: Name of an attribution method.
        log: Called with a line for each measure.
        faithfulness_pictures: Largest number of pictures that faithfulness is measured on.
        randomisation_pictures: Largest number of pictures of the randomisation test.

    Returns:
        Measure → result, as stored.

    Raises:
        TrainingDataError: Neither pictures with boxes nor the entry's own data are under `root`.
        ExplanationError: The method cannot explain the entry.
    """
    measured: dict[str, Any] = {}
    for name, pictures in boxed_sets(root).items():
        boxed = list(pictures)
        if boxed:
            measured[name] = _localisation(entry, boxed, runtime, method, name)
    home = home_benchmark(entry)
    if home in published() and not entry.members:
        measured |= _faithfulness(entry, _sample(home, root, faithfulness_pictures), runtime, method)
        if METHODS[method].quick:
            sources = [source for source, _ in _sample(home, root, randomisation_pictures)]
            measured["sanity"] = _randomisation_test(entry, sources, method)
    if not measured:
        raise TrainingDataError(f"There is nothing under {root} that {entry.id} could be measured on.")
    update_explanations(entry.folder, method, measured)
    renew_card(entry.folder)
    for line in describe(measured):
        log(f"{entry.id}, {METHODS[method].title}: {line}")
    return measured


def describe(measured: Mapping[str, Any]) -> Iterator[str]:
    """One line a measure."""
    for name, result in measured.items():
        if "pointing" in result:
            yield (
                f"{name}: {_percent(result['pointing'])} of maps have their maximum in the cell's box, "
                f"{_percent(result['energy'])} of their energy lies in it; by chance {100 * result['chance']:.0f} % "
                f"({result['images']} pictures)"
            )
    for name in ("road", "deletion", "insertion"):
        if name in measured:
            result = measured[name]
            yield f"{name}: {result['value']:.3f} ({result['low']:.3f} to {result['high']:.3f})"
    for share, correlation in measured.get("sanity", {}).items():
        yield f"rank correlation with maps of the model with {share} of its layers randomised: {correlation:.2f}"


def boxed_sets(root: Path) -> dict[str, Iterator[BoxedPicture]]:
    """Pictures under `root` whose cell's box is known, by the name under which results on them are stored.

    These are the whole frames that benchmarks of crops were cut from and, where a benchmark's pictures are augmented
    copies of such frames, one copy of each.
    """
    sets: dict[str, Iterator[BoxedPicture]] = {}
    known = published()
    for name, definition in known.items():
        if definition.part == "frames" and (root / definition.data_set.place).is_dir():
            sets[f"{definition.data}{FRAMES_SUFFIX}"] = frames_with_box(name, root / definition.data_set.place)
    for name, definition in known.items():
        for copied, original in augmented_sets():
            here = (root / copied.place).is_dir() and (root / original.place).is_dir()
            if definition.data == copied.name and definition.part == "test" and here:
                sets[name] = copies_with_box(name, root, root / original.place)
    return sets


def frames_with_box(benchmark: str, folder: Path) -> Iterator[BoxedPicture]:
    """The whole frames in `folder`, with one white cell each, that a benchmark's crops were cut from."""
    boxes = _boxes(folder)
    for row in get_benchmark(benchmark).rows.to_dict("records"):
        if len(boxes.get(row["cell"], [])) == 1:
            path, box = boxes[row["cell"]][0]
            yield str(row["cell"]), FileSource(path, None).image(), box


def copies_with_box(benchmark: str, root: Path, originals: Path) -> Iterator[BoxedPicture]:
    """A benchmark's first copy of each of the frames in `originals`, its box found by matching both."""
    boxes, done = _boxes(originals), set()
    for _, cell, _, source in get_benchmark(benchmark).pictures(root):
        if cell in done or len(boxes.get(cell, [])) != 1:
            continue
        path, box = boxes[cell][0]
        picture = source.image()
        transferred = transfer_box(FileSource(path, None).image(), picture, box)
        if transferred:
            done.add(cell)
            yield cell, picture, transferred


def transfer_box(frame: Image.Image, picture: Image.Image, box: Box) -> Box | None:
    """Find a frame's box in a rotated, moved or mirrored copy of the frame.

    Args:
        frame: The frame.
        picture: The copy.
        box: Left, top, right and bottom in pixels of the frame.

    Returns:
        The box that encloses the transformed one, in pixels of the copy; None if the pictures do not match.
    """
    first, second = (scaled_grey(np.asarray(image)) for image in (picture, frame))
    fit = compare(detect(first), detect(second))
    if fit.matrix is None or fit.inliers < MIN_INLIERS:
        return None
    scale, back = second.shape[1] / frame.width, picture.width / first.shape[1]
    left, top, right, bottom = (edge * scale for edge in box)
    corners = np.array([(x, y) for x in (left, right) for y in (top, bottom)])
    if fit.mirrored:
        corners = corners * (-1, 1)
    moved = (corners @ fit.matrix[:, :2].T + fit.matrix[:, 2]) * back
    left, top = np.maximum(moved.min(0), 0)
    right, bottom = np.minimum(moved.max(0), picture.size)
    if min(right - left, bottom - top) <= MIN_BOX_SIDE:
        return None
    return float(left), float(top), float(right), float(bottom)


def _boxes(folder: Path) -> dict[str, list[tuple[Path, Box]]]:
    """Cell → its frames and boxes."""
    found: dict[str, list[tuple[Path, Box]]] = {}
    for item in read_dataset(folder).items:
        if isinstance(item.source, FileSource) and item.source.box and item.cell:
            left, top, right, bottom = map(float, item.source.box)
            found.setdefault(item.cell, []).append((item.source.path, (left, top, right, bottom)))
    return found


def _localisation(
    entry: Entry, boxed: Sequence[BoxedPicture], runtime: Runtime, method: str, name: str
) -> dict[str, Any]:
    rows, seconds = [], []
    for cell, picture, box in progress_bar(boxed, f"{entry.id}, {name}", unit="map"):
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


def _faithfulness(entry: Entry, sample: Sequence[tuple[Source, str]], runtime: Runtime, method: str) -> dict[str, Any]:
    rows = []
    for source, cell in progress_bar(sample, f"{entry.id}, faithfulness", unit="map"):
        explanation = runtime.explain(entry, source.image(), method=method)
        measured = runtime.measure_faithfulness(entry, explanation)
        rows.append((cell, measured.road, measured.deletion, measured.insertion))
    table = pd.DataFrame(rows, columns=["cell", "road", "deletion", "insertion"])
    return {name: {**_mean(table, name), "images": len(table)} for name in ("road", "deletion", "insertion")}


def _randomisation_test(entry: Entry, sources: Sequence[Source], method: str) -> dict[str, float]:
    """Mean absolute rank correlation of maps with those after randomisation, by the share of randomised layers."""
    prepare = preprocessor(entry.config.pretrained_cfg.model_dump(), entry.config.zoo.crop)
    batch = torch.stack([prepare(source.image()) for source in sources])
    model = load_model(entry)
    targets = explain_batch(model, batch, torch.full((len(batch),), PREDICTED), method).logits.argmax(1)
    true = explain_batch(model, batch, targets, method).maps
    layers = [m for m in model.modules() if hasattr(m, "reset_parameters") and any(True for _ in m.parameters(False))]
    found = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for share in RANDOMISED_SHARES:
            for layer in layers[len(layers) - max(1, round(share * len(layers))) :]:
                _randomise(layer)
            other = explain_batch(model, batch, targets, method).maps
            pairs = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(true, other, strict=True)]
            # a constant map has no rank correlation; it counts as 0
            found[f"{100 * share:.0f} %"] = float(np.mean(np.abs(np.nan_to_num(pairs))))
    return found


def _randomise(layer: nn.Module) -> None:
    for parameter in layer.parameters(recurse=False):
        parameter.requires_grad_(False)
    reset = getattr(layer, "reset_parameters")  # noqa: B009 torch types the attribute as a tensor
    reset()


def _sample(benchmark: str, root: Path, count: int) -> list[tuple[Source, str]]:
    """Random pictures of a benchmark and their cells: one picture a cell, classes in turn."""
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
    if table.empty:  # every map was constant
        return {"value": 0.0, "low": 0.0, "high": 0.0}
    cells, count = cell_numbers(table["cell"])
    sums = np.bincount(cells, table[column].astype(float), count)
    interval = ratio_of_sums(sums, np.bincount(cells, minlength=count), resample_weights(count)).interval
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _percent(result: Mapping[str, float]) -> str:
    return f"{100 * result['value']:.1f} % ({100 * result['low']:.1f} to {100 * result['high']:.1f})"
