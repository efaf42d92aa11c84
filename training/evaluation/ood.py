"""How does an entry come to know what it does not know? Its gate, from its training cells, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from training.prepare.dataset import TrainingDataError, prepare
from training.prepare.splits import Split
from training.prepare.training_data import DataOptions, read_recipe_data, split_pictures
from training.publish.card import renew_card
from training.recipe import read_recipe
from zoo.benchmarks import corruptions, get_benchmark, laboratories_of, published
from zoo.benchmarks.leaderboard import home_benchmark
from zoo.cli.common import print_message
from zoo.data import FileSource, Item, Source, read_dataset
from zoo.data.registry import datasets
from zoo.entry import Entry
from zoo.entry.write import update_section
from zoo.imaging.decode import from_array
from zoo.imaging.localise import LOCATING_CROPS
from zoo.serving.loaded import LoadedModel
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

BATCH = 32
MOST = 4000  # training pictures that a gate is fitted on
FEW = 12  # pictures of a cell that set its limit
ELSEWHERE = 300  # cells of every other data set that set its second limit
PHOTOGRAPHS = (
    "astronaut",
    "camera",
    "chelsea",
    "coffee",
    "rocket",
    "coins",
    "clock",
    "moon",
    "brick",
    "grass",
    "gravel",
    "page",
    "text",
    "horse",
    "logo",
    "colorwheel",
)
OTHER_MEDICINE = ("retina", "microaneurysms", "cell")


def make_gate(
    runtime: Runtime, entry: Entry, items: Sequence[Item], split: Split, elsewhere: Sequence[Item] = ()
) -> OodDetector:
    """The gate of an entry from its own training and validation cells, of which few pictures each set the limit.

    Cells from `elsewhere` set the second.
    """
    labels = entry.labels
    random = np.random.default_rng(0)
    rows = split.rows["train"]
    rows = np.sort(random.choice(rows, MOST, replace=False)) if len(rows) > MOST else rows
    held = _few_a_cell(split.rows["val"], split.cells, random)
    vectors, _ = embed(runtime, entry, (items[i].source.image() for i in rows), len(rows))
    limits, sure = embed(runtime, entry, (items[i].source.image() for i in held), len(held))
    numbers = np.array([labels.index(str(items[i].label)) for i in rows])
    if len(set(numbers.tolist())) < len(labels):
        raise TrainingDataError(f"{entry.id}: some class has no training picture; a gate needs all.")
    others, unsure = None, None
    if elsewhere:
        others, unsure = embed(runtime, entry, (item.source.image() for item in elsewhere), len(elsewhere))
    if entry.config.zoo.crop not in LOCATING_CROPS:
        return fit_ood_detector(vectors, numbers, limits, others)
    # either may raise the alarm, so that each gets half of what is allowed
    half = FALSE_ALARMS / 2
    if np.quantile(sure, half) == 0:
        missed = 100 * np.mean(sure == 0)
        print_message(
            f"{entry.id}: the cell finder misses {missed:.1f} % of the validation cells, more than may be marked. "
            "The gate goes by what the network sees alone."
        )
        return fit_ood_detector(vectors, numbers, limits, others)
    gate = fit_ood_detector(vectors, numbers, limits, others, false_alarms=half)
    return with_confidence_limits(gate, sure, unsure, half)


def cells_elsewhere(entry: Entry, root: Path) -> list[Item]:
    """Cells of other laboratories than the entry's own, among those that may be trained on and that test nothing."""
    tested = {(known.data, file) for name, known in published().items() for file in get_benchmark(name).rows["file"]}
    found: list[Item] = []
    # sets of single cells before whole fields: the order in which the gates of the built-in models were fitted
    for name, known in sorted(datasets().items(), key=lambda item: item[1].pictures):
        if not known.limits_gates or known.laboratory in laboratories_of(entry) or not (root / known.place).is_dir():
            continue
        items = [
            item
            for item in read_dataset(root / known.place).items
            if item.label and item.split != "test" and (name, item.file.split("#")[0]) not in tested
        ]
        random = np.random.default_rng(0)
        found += [items[i] for i in random.permutation(len(items))[:ELSEWHERE]]
    return found


def shifted_cells(items: Sequence[Item], split: Split) -> list[Item]:
    """Validation cells, strongly shifted (`zoo.benchmarks.shift`), where no other laboratory is at hand."""
    random = np.random.default_rng(0)
    rows = _few_a_cell(split.rows["val"], split.cells, random)
    chosen = [items[row] for row in random.permutation(rows)[:ELSEWHERE]]
    return [
        replace(item, source=corruptions.CorruptedSource(item.source, item.file, corruptions.SHIFTED, 1))
        for item in chosen
    ]


def embed(runtime: Runtime, entry: Entry, images: Iterator[Image.Image], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The vectors (n, d) that the entry's network sees in pictures, as it is run for users.

    And how sure the cell finder was of each (n,), see `zoo.imaging.localise.LocatedCell`.
    """
    model, client, found = runtime.model(entry), Client("gate"), []
    part: list[torch.Tensor] = []
    sure: list[float] = []
    with tqdm(total=count, desc=f"looking, {entry.id}", unit="image") as progress:
        for image in images:
            seen = model.prepare.input(image)
            part.append(seen.pixels)
            sure.append(seen.confidence)
            if len(part) == BATCH:
                found.append(_ask(runtime, model, part, client))
                progress.update(len(part))
                part = []
        if part:
            found.append(_ask(runtime, model, part, client))
            progress.update(len(part))
    return np.concatenate(found), np.array(sure)


def _ask(runtime: Runtime, model: LoadedModel, part: list[torch.Tensor], client: Client) -> np.ndarray:
    return runtime.engine.work(model, lambda: model.embed(part), client).result()


def _few_a_cell(rows: np.ndarray, cells: Sequence[str], random: np.random.Generator) -> list[int]:
    """At most FEW pictures of every cell, by chance: else the cells with most copies would set the limit."""
    chosen: dict[str, list[int]] = {}
    for row in random.permutation(rows).tolist():
        chosen.setdefault(cells[row], []).append(row)
    return sorted(row for some in chosen.values() for row in some[:FEW])


def strangers(root: Path | None, size: int = 256) -> dict[str, list[Image.Image]]:
    """Pictures that are no blood cell, by kind; empty regions of smears where `root` holds whole fields with boxes."""
    random = np.random.default_rng(0)
    tissue = _crops(_shipped("immunohistochemistry"), random, size, 40)
    made = {
        "photographs": [crop for name in PHOTOGRAPHS for crop in _crops(_shipped(name), random, size)]
        + [crop for image in load_sample_images().images for crop in _crops(from_array(image), random, size)],
        "histology": tissue,
        "other medicine": [crop for name in OTHER_MEDICINE for crop in _crops(_shipped(name), random, size, 12)],
        "text": [_text(random, size) for _ in range(40)],
        "noise": [from_array(random.integers(0, 256, (size, size, 3), np.uint8)) for _ in range(20)],
        "smooth noise": [_clouds(random, size) for _ in range(20)],
        "plain colours": [
            Image.new("RGB", (size, size), tuple(random.integers(0, 256, 3).tolist())) for _ in range(40)
        ],
    }
    fields = fields_with_boxes(root) if root is not None else None
    if fields is not None:
        made["empty smear"] = _empty(fields, random)
    return made


def _shipped(name: str) -> Image.Image:
    """A picture that comes with scikit-image, as RGB."""
    pixels = np.asarray(getattr(skimage.data, name)())
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    return from_array(pixels[..., :3] if pixels.ndim == 3 else pixels)


def _crops(image: Image.Image, random: np.random.Generator, size: int, count: int = 5) -> list[Image.Image]:
    """The whole picture, and squares of it."""
    made = [image]
    for _ in range(count - 1):
        side = int(min(image.size) * random.uniform(0.3, 0.9))
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        made.append(image.crop((left, top, left + side, top + side)).resize((size, size)))
    return made


def _text(random: np.random.Generator, size: int) -> Image.Image:
    page = Image.new("RGB", (size, size), tuple(random.integers(200, 256, 3).tolist()))
    draw = ImageDraw.Draw(page)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz 0123456789"))
    for line in range(4, size - 12, int(random.integers(11, 24))):
        draw.text((6, line), "".join(random.choice(letters, 40)), fill=tuple(random.integers(0, 120, 3).tolist()))
    return page


def _clouds(random: np.random.Generator, size: int) -> Image.Image:
    """Smooth noise in the colours of a smear: without a cell in it."""
    coarse = random.uniform(120, 255, (int(random.integers(4, 24)),) * 2 + (3,)).astype(np.uint8)
    return from_array(coarse).resize((size, size), Image.Resampling.BICUBIC)


def fields_with_boxes(root: Path) -> Path | None:
    """Folder below `root` of the first data set of whole smear fields whose cells have boxes that we can read."""
    for known in datasets().values():
        if known.pictures == "fields" and known.readable and (root / known.place).is_dir():
            return root / known.place
    return None


def _empty(folder: Path, random: np.random.Generator, count: int = 120) -> list[Image.Image]:
    """Squares of smear fields that touch no white cell's box, red cells and all."""
    boxes: dict[Path, list[tuple[int, int, int, int]]] = {}
    for item in read_dataset(folder).items:
        if isinstance(item.source, FileSource) and item.source.box:
            boxes.setdefault(item.source.path, []).append(item.source.box)
    found = []
    for path in sorted(boxes):
        with Image.open(path) as opened:
            frame = opened.convert("RGB")
        for _ in range(8):
            side = int(random.integers(140, 240))
            left, top = (int(random.integers(0, length - side + 1)) for length in frame.size)
            clear = all(b[0] >= left + side or b[2] <= left or b[1] >= top + side or b[3] <= top for b in boxes[path])
            if clear:
                found.append(frame.crop((left, top, left + side, top + side)))
                break
        if len(found) == count:
            break
    return found


def fit(entry: Entry, root: Path, runtime: Runtime) -> None:
    """Fit the entry's gate on the cells that its own recipe trains and validates on, and write it into the entry.

    Its second limit is set by other data sets in `root`, where they may be trained on, else by cells strongly shifted.

    Raises TrainingDataError where the entry keeps no recipe, or its data are not among the folders of `root`.
    """
    if not entry.recipe or entry.members:
        raise TrainingDataError(f"{entry.id} keeps no recipe of its own: its gate cannot be fitted.")
    recipe = read_recipe(entry.recipe, entry.id)
    data = root if recipe.data.mix else root / recipe.data.name
    if not data.is_dir():
        raise TrainingDataError(f"{entry.id} was trained on {recipe.data.name}, which is not in {root}.")
    prepared = prepare(read_recipe_data(recipe, data), recipe.data.packed, recipe.data.crop)
    split = split_pictures(recipe, DataOptions(data), prepared)
    others = cells_elsewhere(entry, root) or shifted_cells(prepared.data.items, split)
    write_ood_detector(entry.folder, make_gate(runtime, entry, prepared.data.items, split, others))


def measure(entry: Entry, root: Path, runtime: Runtime, say: Callable[[object], None]) -> dict[str, Any]:
    """How good the entry's gate is, also written into its evaluation.json under `gate`.

    `false_alarms`: shares of cells of its own test set that are marked (not familiar) and held back (unknown), with the
    number of images. `strangers`: the same of each kind of picture that is no blood cell, and the AUROC against these
    cells. `cells_elsewhere`: of blood cells of other laboratories, which should mostly not be held back.
    """
    home = home_benchmark(entry)
    if home not in published():
        raise TrainingDataError(f"{entry.id} was scored on no benchmark of its own data; its gate cannot be judged.")
    known = _of_benchmark(entry, home, root, runtime)
    kinds = {kind: _distances(entry, images, runtime) for kind, images in strangers(root).items()}
    elsewhere = {
        name: _of_benchmark(entry, name, root, runtime)
        for name, known in published().items()
        if name != home and not known.corruptions and (root / known.data_set.place).is_dir()
    }
    every = np.concatenate(list(kinds.values()))
    found = {
        "false_alarms": {"benchmark": home, **_shares(known)},
        "strangers": _against(known, {"all": every, **kinds}),
        "cells_elsewhere": {name: _shares(d) for name, d in elsewhere.items()},
    }
    update_section(entry.folder, "gate", found)
    renew_card(entry.folder)
    say(f"{entry.id}, cells at home: {_told(found['false_alarms'])}")
    for kind, told in found["strangers"].items():
        say(f"  {kind}: AUROC {told['auroc']:.4f}, {_told(told)}")
    for name, told in found["cells_elsewhere"].items():
        say(f"  {name}: {_told(told)}")
    return found


def _shares(distances: np.ndarray) -> dict[str, Any]:
    return {
        "marked": float((distances > SHIFTED).mean()),
        "held_back": float((distances > UNKNOWN).mean()),
        "images": len(distances),
    }


def _told(shares: Mapping[str, Any]) -> str:
    marked, held_back = 100 * shares["marked"], 100 * shares["held_back"]
    return f"{marked:.1f} % of {shares['images']} marked, {held_back:.1f} % held back"


def _of_benchmark(entry: Entry, name: str, root: Path, runtime: Runtime) -> np.ndarray:
    """Distances of a benchmark's pictures; of every cell the first, where copies were made."""
    first: dict[str, Source] = {}
    for _, cell, _, source in get_benchmark(name).pictures(root):
        first.setdefault(cell, source)
    images = tqdm((source.image() for source in first.values()), f"{entry.id}, {name}", len(first), unit="image")
    return _distances(entry, images, runtime)


def _distances(entry: Entry, images: Iterable[Image.Image], runtime: Runtime) -> np.ndarray:
    # submitted ahead, so that they are answered in batches; the engine's own bound keeps the memory small
    return np.array([ticket.result().distance for ticket in [runtime.submit(entry, image) for image in images]])


def _against(known: np.ndarray, unknown: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    return {
        kind: {
            "auroc": float(roc_auc_score(np.r_[np.zeros(len(known)), np.ones(len(d))], np.r_[known, d])),
            **_shares(d),
        }
        for kind, d in unknown.items()
    }
