"""Fitting and measuring an entry's out-of-distribution detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from training.evaluation.foreign_pictures import foreign_pictures
from training.prepare.dataset import TrainingDataError, prepare
from training.prepare.splits import Split
from training.prepare.training_data import DataOptions, read_recipe_data, split_pictures
from training.publish.card import renew_card
from training.recipe import read_recipe
from zoo.benchmarks import corruptions, get_benchmark, laboratories_of, published
from zoo.benchmarks.leaderboard import home_benchmark
from zoo.data import Item, Source, read_dataset
from zoo.data.registry import datasets
from zoo.entry import Entry
from zoo.entry.write import update_section
from zoo.imaging.localise import LOCATING_CROPS
from zoo.progress import progress_bar
from zoo.serving.models.loaded import LoadedModel
from zoo.serving.ood import (
    FALSE_ALARMS,
    SHIFTED,
    UNKNOWN,
    OodDetector,
    fit_ood_detector,
    with_confidence_limits,
    write_ood_detector,
)
from zoo.serving.requests import Client
from zoo.serving.runtime import Runtime

BATCH_SIZE = 32
MAX_TRAINING_PICTURES = 4000
MAX_PICTURES_PER_CELL = 12  # of those that set a limit
MAX_OTHER_CELLS = 300  # of each other data set that sets the second limit

Log = Callable[[str], None]


@dataclass(frozen=True)
class Embedded:
    """Pictures as the detector gets them.

    Attributes:
        vectors: Features of the entry's network, (n, d).
        confidence: Confidence of the cell finder, (n,), see `zoo.imaging.localise.LocatedCell`; 0 where it found none.
    """

    vectors: np.ndarray
    confidence: np.ndarray


def fit(entry: Entry, root: Path, runtime: Runtime, log: Log) -> None:
    """Fit an entry's detector on the cells of its own recipe, and write it into the entry.

    Its second limit is set by cells of other laboratories that may be trained on, else by strongly shifted cells.

    Args:
        entry: The entry.
        root: Folder that holds the data sets.
        runtime: Runs the entry.
        log: Called with a remark.

    Raises:
        TrainingDataError: The entry has no recipe of its own, its data are not in `root`, or a class has no training
            picture.
    """
    if not entry.recipe or entry.members:
        raise TrainingDataError(f"{entry.id} has no recipe of its own: its detector cannot be fitted.")
    recipe = read_recipe(entry.recipe, entry.id)
    data = root if recipe.data.mix else root / recipe.data.name
    if not data.is_dir():
        raise TrainingDataError(f"{entry.id} was trained on {recipe.data.name}, which is not in {root}.")
    prepared = prepare(read_recipe_data(recipe, data), recipe.data.packed, recipe.data.crop)
    split = split_pictures(recipe, DataOptions(data), prepared)
    others = other_laboratories_cells(entry, root) or shifted_cells(prepared.data.items, split)
    write_ood_detector(entry.folder, make_detector(runtime, entry, prepared.data.items, split, others, log))


def make_detector(
    runtime: Runtime, entry: Entry, items: Sequence[Item], split: Split, others: Sequence[Item], log: Log
) -> OodDetector:
    """Fit a detector on training cells; few validation pictures of each cell set its limit.

    Args:
        runtime: Runs the entry.
        entry: The entry.
        items: Pictures of its data set.
        split: How they are split.
        others: Cells of other laboratories, which set the second limit; may be empty.
        log: Called with a remark.

    Returns:
        The detector.

    Raises:
        TrainingDataError: A class has no training picture.
    """
    random = np.random.default_rng(0)
    rows = split.rows["train"]
    if len(rows) > MAX_TRAINING_PICTURES:
        rows = np.sort(random.choice(rows, MAX_TRAINING_PICTURES, replace=False))
    limit_rows = _few_per_cell(split.rows["val"], split.cells, random)
    training = embed(runtime, entry, (items[i].source.image() for i in rows), len(rows))
    validation = embed(runtime, entry, (items[i].source.image() for i in limit_rows), len(limit_rows))
    classes = np.array([entry.labels.index(str(items[i].label)) for i in rows])
    if len(set(classes.tolist())) < len(entry.labels):
        raise TrainingDataError(f"{entry.id}: a class has no training picture; the detector needs all classes.")
    other = embed(runtime, entry, (item.source.image() for item in others), len(others)) if others else None
    locates = entry.config.zoo.crop in LOCATING_CROPS
    return fit_with_finder(
        training.vectors, classes, validation, other, locates, lambda text: log(f"{entry.id}: {text}")
    )


def fit_with_finder(
    training: np.ndarray, classes: np.ndarray, validation: Embedded, other: Embedded | None, locates: bool, log: Log
) -> OodDetector:
    """Fit a detector on features and, for an entry that locates its cell, on the confidence of the cell finder.

    Args:
        training: Features of training cells, (n, d).
        classes: Their class numbers, (n,).
        validation: Validation cells, which set the first limit.
        other: Cells of other laboratories, which set the second limit.
        locates: Whether the entry crops to the located cell.
        log: Called if the finder misses too many cells to be of use.

    Returns:
        The detector.
    """
    other_vectors = other.vectors if other else None
    if not locates:
        return fit_ood_detector(training, classes, validation.vectors, other_vectors)
    # either of the two may raise an alarm, so that each gets half of the allowed false alarms
    half = FALSE_ALARMS / 2
    if np.quantile(validation.confidence, half) == 0:
        missed = 100 * np.mean(validation.confidence == 0)
        log(
            f"the cell finder misses {missed:.1f} % of the validation cells, more than the allowed false alarms. The "
            "detector uses the network's features alone."
        )
        return fit_ood_detector(training, classes, validation.vectors, other_vectors)
    detector = fit_ood_detector(training, classes, validation.vectors, other_vectors, false_alarms=half)
    return with_confidence_limits(detector, validation.confidence, other.confidence if other else None, half)


def other_laboratories_cells(entry: Entry, root: Path) -> list[Item]:
    """Cells of other laboratories than the entry's own.

    Args:
        entry: The entry.
        root: Folder that holds the data sets.

    Returns:
        At most MAX_OTHER_CELLS of each data set that may set limits; none that is part of a benchmark or a test split.
    """
    tested = {(known.data, file) for name, known in published().items() for file in get_benchmark(name).rows["file"]}
    cells: list[Item] = []
    # sets of single cells before whole fields: the order in which the detectors of the built-in models were fitted
    for name, known in sorted(datasets().items(), key=lambda item: item[1].pictures):
        if not known.limits_gates or known.laboratory in laboratories_of(entry) or not (root / known.place).is_dir():
            continue
        items = [
            item
            for item in read_dataset(root / known.place).items
            if item.label and item.split != "test" and (name, item.file.split("#")[0]) not in tested
        ]
        random = np.random.default_rng(0)
        cells += [items[i] for i in random.permutation(len(items))[:MAX_OTHER_CELLS]]
    return cells


def shifted_cells(items: Sequence[Item], split: Split) -> list[Item]:
    """Strongly shifted validation cells (`zoo.benchmarks.shift`), a substitute for cells of other laboratories."""
    random = np.random.default_rng(0)
    rows = _few_per_cell(split.rows["val"], split.cells, random)
    chosen = [items[row] for row in random.permutation(rows)[:MAX_OTHER_CELLS]]
    return [
        replace(item, source=corruptions.CorruptedSource(item.source, item.file, corruptions.SHIFTED, 1))
        for item in chosen
    ]


def embed(runtime: Runtime, entry: Entry, images: Iterator[Image.Image], count: int) -> Embedded:
    """Compute features and cell-finder confidence of pictures, with the preprocessing that users get.

    Args:
        runtime: Runs the entry.
        entry: The entry.
        images: The pictures.
        count: Their number, for the progress bar.

    Returns:
        One row a picture.
    """
    model, client = runtime.model(entry), Client("gate")
    vectors: list[np.ndarray] = []
    confidence: list[float] = []
    batch: list[np.ndarray] = []
    with progress_bar(None, f"features, {entry.id}", total=count, unit="image") as progress:
        for image in images:
            prepared = model.prepare.input(image)
            batch.append(prepared.pixels)
            confidence.append(prepared.confidence)
            if len(batch) == BATCH_SIZE:
                vectors.append(_features(runtime, model, batch, client))
                progress.update(len(batch))
                batch = []
        if batch:
            vectors.append(_features(runtime, model, batch, client))
            progress.update(len(batch))
    return Embedded(np.concatenate(vectors), np.array(confidence))


def _features(runtime: Runtime, model: LoadedModel, batch: list[np.ndarray], client: Client) -> np.ndarray:
    return runtime.engine.work(model, lambda: model.embed(batch), client).result()


def _few_per_cell(rows: np.ndarray, cells: Sequence[str], random: np.random.Generator) -> list[int]:
    """At most MAX_PICTURES_PER_CELL random pictures of each cell, so that cells with many copies do not dominate."""
    chosen: dict[str, list[int]] = {}
    for row in random.permutation(rows).tolist():
        chosen.setdefault(cells[row], []).append(row)
    return sorted(row for of_cell in chosen.values() for row in of_cell[:MAX_PICTURES_PER_CELL])


def measure(entry: Entry, root: Path, runtime: Runtime, log: Log) -> dict[str, Any]:
    """Measure an entry's detector and store the result in its evaluation, under `gate`.

    Args:
        entry: The entry.
        root: Folder that holds the data sets.
        runtime: Runs the entry.
        log: Called with a line for each result.

    Returns:
        `false_alarms`: shares of cells of the entry's own test set that are flagged (`marked`) and rejected
        (`held_back`), and the number of images. `strangers`: the same for each kind of picture without a blood cell,
        and the AUROC against the test cells. `cells_elsewhere`: the same for blood cells of other laboratories, which
        should mostly not be rejected.

    Raises:
        TrainingDataError: The entry was scored on no benchmark of its own data.
    """
    home = home_benchmark(entry)
    if home is None or home not in published():
        raise TrainingDataError(f"{entry.id} was scored on no benchmark of its own data: measuring needs one.")
    known = _benchmark_distances(entry, home, root, runtime)
    foreign = {kind: _distances(entry, images, runtime) for kind, images in foreign_pictures(root).items()}
    other = {
        name: _benchmark_distances(entry, name, root, runtime)
        for name, definition in published().items()
        if name != home and not definition.corruptions and (root / definition.data_set.place).is_dir()
    }
    all_foreign = np.concatenate(list(foreign.values()))
    result = {
        "false_alarms": {"benchmark": home, **_alarms(known)},
        "strangers": _against(known, {"all": all_foreign, **foreign}),
        "cells_elsewhere": {name: _alarms(distances) for name, distances in other.items()},
    }
    update_section(entry.folder, "gate", result)
    renew_card(entry.folder)
    log(f"{entry.id}, own test cells: {_describe(result['false_alarms'])}")
    for kind, alarms in result["strangers"].items():
        log(f"  {kind}: AUROC {alarms['auroc']:.4f}, {_describe(alarms)}")
    for name, alarms in result["cells_elsewhere"].items():
        log(f"  {name}: {_describe(alarms)}")
    return result


def _alarms(distances: np.ndarray) -> dict[str, Any]:
    """Shares of pictures that are flagged and rejected, and their number."""
    return {
        "marked": float((distances > SHIFTED).mean()),
        "held_back": float((distances > UNKNOWN).mean()),
        "images": len(distances),
    }


def _describe(alarms: Mapping[str, Any]) -> str:
    flagged, rejected = 100 * alarms["marked"], 100 * alarms["held_back"]
    return f"{flagged:.1f} % of {alarms['images']} flagged, {rejected:.1f} % rejected"


def _benchmark_distances(entry: Entry, name: str, root: Path, runtime: Runtime) -> np.ndarray:
    """Distances of a benchmark's pictures, the first one of each cell."""
    first: dict[str, Source] = {}
    for _, cell, _, source in get_benchmark(name).pictures(root):
        first.setdefault(cell, source)
    images = progress_bar(
        (one.image() for one in first.values()), f"{entry.id}, {name}", total=len(first), unit="image"
    )
    return _distances(entry, images, runtime)


def _distances(entry: Entry, images: Iterable[Image.Image], runtime: Runtime) -> np.ndarray:
    # all are submitted first, so that they are answered in batches; the engine bounds the number that waits
    return np.array([ticket.result().distance for ticket in [runtime.submit(entry, image) for image in images]])


def _against(known: np.ndarray, foreign: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """AUROC of each kind of foreign picture against known cells, and its alarms."""
    return {
        kind: {
            "auroc": float(
                roc_auc_score(np.r_[np.zeros(len(known)), np.ones(len(distances))], np.r_[known, distances])
            ),
            **_alarms(distances),
        }
        for kind, distances in foreign.items()
    }
