"""From a detector's recipe and its fields to an entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import skimage.data
from PIL import Image

from training.detection.loop import Fitted, Report, fit
from training.detection.pictures.close_ups import read_close_ups
from training.detection.pictures.composites import CutCell, cut_cells
from training.detection.pictures.crops import Marked, marked
from training.detection.pictures.samples import CropStream, Mix
from training.detection.recipe import DetectorRecipe
from zoo.data import read_dataset
from zoo.data.kinds import name_labels, rename
from zoo.data.options import ReadOptions
from zoo.data.table import DataError
from zoo.detection.detector import ARCHITECTURE
from zoo.detection.fields import Field, read_fields
from zoo.detection.found import Found
from zoo.detection.matching import Matches, iou, match
from zoo.detection.network import run_network
from zoo.detection.objects import OBJECTS
from zoo.detection.scan import CREDIBLE, MEAN, STD, search
from zoo.entry import write as entry_files
from zoo.imaging.decode import PictureError
from zoo.version import __version__

TABLES = Path(__file__).parent / "tables"
SIDES = ("train", "validation", "test")
SAME_SIDES = {"val": "validation", "train": "train", "test": "test"}
STRANGERS = ("astronaut", "chelsea", "coffee", "rocket", "retina", "immunohistochemistry")  # without blood cells
DEFAULT_LIMIT = 0.3  # confidence from which an object counts that validation does not show
SAME_CELL = 0.4  # overlap of two boxes of one cell, one of which may hold its nucleus only
LIMITS = [round(0.05 + 0.01 * step, 2) for step in range(91)]  # that are tried
INPUT_SIDE = 640  # pixels: longer side of a picture of usual size, as it is searched

Log = Callable[[str], None]


@dataclass(frozen=True)
class Sides:
    """Fields of each side of a split."""

    train: list[Field]
    validation: list[Field]
    test: list[Field]


def read_sides(recipe: DetectorRecipe, folder: Path) -> Sides:
    """Fields of the recipe's data set in `folder`, by side.

    Raises:
        DataError: The folder cannot be read, marks no cells, or leaves nothing to train or to validate on.
    """
    data = read_dataset(folder, options=ReadOptions(layout=recipe.data.layout, labels=recipe.data.labels))
    found = {item.label for item in data.items if item.label}
    fields = read_fields(rename(data, name_labels(found, recipe.data.labels)))
    known: Mapping[str, str] = {}
    if recipe.data.sides:
        table = pd.read_csv(TABLES / f"{recipe.data.sides}.csv")
        known = dict(zip(table["file"], table["side"], strict=True))
        fields = [field for field in fields if field.file in known]
    sides: dict[str, list[Field]] = {side: [] for side in SIDES}
    for field in fields:
        sides[known.get(field.file) or SAME_SIDES.get(field.split or "train", "train")].append(field)
    for side in SIDES[:2]:
        if not sides[side]:
            raise DataError(f"{folder} has no fields for the side {side}. Name sides with folders train and val.")
    return Sides(**sides)


def load(fields: Sequence[Field], log: Log) -> list[Marked]:
    """Decode fields; one that cannot be read is named and left out."""
    loaded = []
    for field in fields:
        try:
            image = field.image()
        except PictureError as error:
            log(f"{field.file}: {error}")
            continue
        loaded.append(marked(np.asarray(image), field.boxes(image.size), field.numbers))
    return loaded


def train_detector(recipe: DetectorRecipe, folder: Path, out: Path, work: Path, workers: int, log: Log) -> Fitted:
    """Train a recipe on the fields in `folder` and write the entry `out`.

    Args:
        recipe: The recipe.
        folder: The data set.
        out: Folder of the entry, which is replaced.
        work: Folder of the checkpoint; a training goes on from it.
        workers: Processes that make crops.
        log: Called with a line for each step forward.

    Raises:
        DataError: The fields cannot be used.
        CheckpointError: The checkpoint is damaged, or of another recipe.
    """
    sides = read_sides(recipe, folder)
    fields = load(sides.train, log)
    cells = [cell for field in fields for cell in cut_cells(field)]
    log(f"{len(fields):,} training fields, {len(cells):,} cells to paste, {len(sides.validation):,} validation fields.")
    weights = source_weights([field.file for field in sides.train])
    stream = _stream(recipe, fields, cells, weights)
    work.mkdir(parents=True, exist_ok=True)
    fitted = fit(recipe, stream, work / "checkpoint.safetensors", workers, _report(recipe, log))
    if (refined := recipe.refined()) and recipe.refinement:
        close_ups = [
            _with_found_box(fitted, one) for one in read_close_ups(recipe.close_ups, folder.parent, recipe.seed)
        ]
        log(f"{len(close_ups):,} pictures of one cell to refine with.")
        share = recipe.refinement.share if close_ups else 0.0
        both = np.concatenate([(1 - share) * weights, np.full(len(close_ups), share / max(1, len(close_ups)))])
        stream = _stream(refined, [*fields, *close_ups], cells, both)
        path = work / "refined.safetensors"
        fitted = fit(refined, stream, path, workers, _report(refined, log), fitted.network)
    limits = best_limits(fitted, load(sides.validation, log))
    write_detector(recipe, fitted, limits, out)
    return fitted


def _with_found_box(fitted: Fitted, close_up: Marked) -> Marked:
    """A close-up with the box that the first training finds for its cell, which is tighter than that of its stain."""
    found = found_in(fitted, close_up, CREDIBLE)
    overlap = iou(found.boxes, close_up.boxes)[:, 0] * (found.numbers == close_up.numbers[0])
    if not len(overlap) or overlap.max() < SAME_CELL:
        return close_up
    return replace(close_up, boxes=found.boxes[overlap.argmax()][None])


def _stream(recipe: DetectorRecipe, fields: list[Marked], cells: list[CutCell], weights: np.ndarray) -> CropStream:
    return CropStream(
        fields,
        cells,
        [np.asarray(getattr(skimage.data, name)())[..., :3] for name in STRANGERS],
        Mix(recipe.crops.side, recipe.crops.composites, recipe.crops.without_cells),
        recipe.schedule.steps * recipe.schedule.batch_size,
        recipe.seed,
        weights,
    )


def _report(recipe: DetectorRecipe, log: Log) -> Report:
    return lambda step, loss: log(f"step {step:,} of {recipe.schedule.steps:,}: loss {loss:.3f}")


def source_weights(files: Sequence[str]) -> np.ndarray:
    """Probability of each field, so that every source (the first word of a name) is drawn alike."""
    sources = pd.Series([Path(file).name.partition("_")[0] for file in files])
    weights = 1 / sources.map(sources.value_counts()).to_numpy()
    return np.asarray(weights / weights.sum())


def found_in(fitted: Fitted, field: Marked, least: float) -> Found:
    """Objects that a detector finds in a field."""
    return search(Image.fromarray(field.pixels), partial(run_network, fitted.network), least).found


def best_limits(fitted: Fitted, fields: Sequence[Marked]) -> dict[str, float]:
    """Confidence from which each object counts, by these fields."""
    found = [found_in(fitted, field, 0.05) for field in fields]
    limits = {}
    for number, name in enumerate(OBJECTS):
        matches = [match(one, field.boxes, field.numbers, number) for one, field in zip(found, fields, strict=True)]
        limits[name] = best_limit(matches)
    return limits


def best_limit(matches: Sequence[Matches]) -> float:
    """Confidence with the smallest relative errors of the fields' counts; F1 decides between equals.

    By F1 alone more red cells are found than there are, because halves at edges are taken for cells.
    """
    marked_cells = np.array([one.marked for one in matches])
    confidences = np.concatenate([one.confidences for one in matches])
    if not marked_cells.sum() or not len(confidences):
        return DEFAULT_LIMIT
    scores = []
    for limit in LIMITS:
        found = np.array([(one.confidences >= limit).sum() for one in matches])
        hits = sum(int(one.correct[0][one.confidences >= limit].sum()) for one in matches)
        error = float((np.abs(found - marked_cells) / np.maximum(marked_cells, 1)).mean())
        scores.append((round(error, 3), -2 * hits / (found.sum() + marked_cells.sum()), limit))
    return min(scores)[2]


def write_detector(recipe: DetectorRecipe, fitted: Fitted, limits: Mapping[str, float], out: Path) -> None:
    """Write a detector's entry, whole or not at all."""
    with entry_files.create_entry(out) as place:
        entry_files.write_config(
            place,
            {
                "architecture": ARCHITECTURE,
                "num_classes": len(OBJECTS),
                "label_names": list(OBJECTS),
                "model_args": {"backbone": recipe.model.backbone, "width": recipe.model.width},
                "pretrained_cfg": {
                    "input_size": (3, INPUT_SIDE, INPUT_SIDE),
                    "mean": (MEAN,) * 3,
                    "std": (STD,) * 3,
                    "interpolation": "bilinear",
                },
                "zoo": {
                    "schema_version": 1,
                    "hemazoo_version": __version__,
                    "title": recipe.title,
                    "task": "detection of cells",
                    "summary": recipe.summary,
                    "detector": {"limits": dict(limits)},
                    "recipe": recipe.model_dump(mode="json"),
                },
            },
        )
        state = fitted.network.state_dict()
        halves = {key: value.half() if value.dtype.is_floating_point else value for key, value in state.items()}
        entry_files.write_weights(place, halves)
