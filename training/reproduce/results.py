"""Train the recipes of the published systems and write the table of results, docs/results.md."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from training.fit.averaging import has_unfinished_run
from training.fit.checkpoint import CheckpointError
from training.fit.networks.network import WeightsError
from training.fit.stopping import FitError
from training.recipe import (
    PUBLISHED,
    SCRATCH,
    Recipe,
    RecipeError,
    differences,
    load_recipe,
    read_recipe,
    recipe_ids,
)
from training.recipe.overview import count_parameters
from training.reproduce.formats import MISSING, markdown_table
from training.reproduce.texts import texts
from training.run import TrainingJob, train
from zoo.data import DataError
from zoo.entry import EVALUATION, AnyEntry, Entry, EntryError, load_entry, readable_entries
from zoo.files import atomic_folder, write_text

MAX_WEIGHTS_BYTES = 10_000_000  # of a file in the built-in zoo
WEIGHT_SUFFIXES = (".safetensors", ".skops")
ENTRIES = "entries"  # folder of whole entries, below that of the running states
OURS = "Ours"  # title of the recipes that belong to no published system
LAST = "Z"  # sorts recipes of no system behind the systems
NOT_TRAINED = "not yet"
EARLIER = "†"  # after figures of entries that were trained with an earlier version of their recipe
COLUMNS = (
    "recipe",
    "reported",
    "published protocol",
    "leak",
    "leak-free protocol",
    "cells",
    "minutes",
    "images/s",
    "parameters",
)


@dataclass(frozen=True)
class Folders:
    """Folders that reproduction reads from and writes to.

    Attributes:
        data: Folder that holds the data sets' folders.
        zoo: Folder of the entries, without weights that are too large or saw a leaky split.
        runs: Folder of the running states and, in `entries`, of the whole entries.
    """

    data: Path
    zoo: Path
    runs: Path


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on a test split with its 95 % interval over source cells, and what it was measured on.

    `earlier` tells that the entry was trained with an earlier version of its recipe.
    """

    value: float
    low: float
    high: float
    images: int
    cells: int
    leak_share: float
    earlier: bool = False


@dataclass(frozen=True)
class Row:
    """A recipe's line of the table; `published` and `honest` (leak-free) are None where nothing was trained yet."""

    id: str
    system: str
    title: str
    reported: str
    published: Accuracy | None
    honest: Accuracy | None
    minutes: float | None
    images_per_second: float | None
    parameters: int | None


def training_order(system: str | None = None, only: Sequence[str] | None = None) -> list[str]:
    """Ids of recipes in the order in which they can be trained: a recipe follows those it builds on.

    Args:
        system: Letter of one published system; None takes all recipes but the starter.
        only: Ids of the recipes to order, instead.
    """
    recipes = [load_recipe(name) for name in (only or recipe_ids())]
    chosen = [r for r in recipes if only or (r.system == system if system else r.id != "starter")]
    return [recipe.id for recipe in sorted(chosen, key=lambda r: (r.system or LAST, steps_before(r), r.id))]


def steps_before(recipe: Recipe) -> int:
    """Length of the longest chain of recipes to be trained before this one."""
    bases = list(recipe.ensemble.members) if recipe.ensemble else []
    if recipe.model and recipe.model.begins_with_entry:
        bases.append(recipe.model.weights)
    if recipe.head and recipe.head.of:
        bases.append(recipe.head.of)
    known = set(recipe_ids())
    return max((1 + steps_before(load_recipe(name)) for name in bases if name in known), default=0)


def reproduce(
    names: Sequence[str],
    folders: Folders,
    budget_seconds: float,
    accelerator: Accelerator,
    log: Callable[[object], None],
) -> list[str]:
    """Train each recipe under the leak-free and the published protocol, unless its entry exists.

    Recipes whose initial weights are not available are trained from random weights, under an id that says so.

    Args:
        names: Ids of the recipes, in the order of `training_order`.
        folders: Where to read and write.
        budget_seconds: No training is started after this time.
        accelerator: Device or devices to train on.
        log: Prints a line for people.

    Returns:
        Ids of the recipes that failed.
    """
    deadline = time.monotonic() + budget_seconds
    failed = []
    for name in names:
        for published in (False, True):
            if published and not load_recipe(name).published:
                continue
            failure = _obtain_entry(name, published, folders, deadline, accelerator, log)
            if failure:
                failed.append(failure)
    return failed


def _obtain_entry(
    name: str,
    published: bool,
    folders: Folders,
    deadline: float,
    accelerator: Accelerator,
    log: Callable[[object], None],
) -> str | None:
    """Train a recipe unless its entry exists, and copy the entry into the zoo; returns its id if it failed."""
    for scratch in (False, True):
        recipe = load_recipe(name, published=published, scratch=scratch)
        if (folders.zoo / recipe.id / EVALUATION).exists():
            return None
        entry = folders.runs / ENTRIES / recipe.id
        if not (entry / EVALUATION).exists():
            if time.monotonic() > deadline:
                log(f"{recipe.id}: not started, the budget is spent")
                return None
            try:
                _train(recipe, folders, accelerator, log)
            except WeightsError as error:
                log(f"{recipe.id}: {error}")
                continue  # with random weights
            except (DataError, FitError, CheckpointError, EntryError) as error:
                log(f"{recipe.id}: {error}")
                if recipe.ensemble and isinstance(error, EntryError) and not scratch:
                    continue  # its members may exist with random weights
                return recipe.id
        copy_entry(entry, folders.zoo / recipe.id)
        return None
    return None


def _train(recipe: Recipe, folders: Folders, accelerator: Accelerator, log: Callable[[object], None]) -> None:
    log(f"== {recipe.id}")
    data: Path | None = folders.data
    if recipe.ensemble:
        data = None
    elif not recipe.data.mix:
        data = folders.data / recipe.data.name
    work = folders.runs / recipe.id
    out = folders.runs / ENTRIES / recipe.id
    train(TrainingJob(recipe, data, out, work, resume=has_unfinished_run(work)), accelerator)


def copy_entry(entry: Path, target: Path) -> None:
    """Copy an entry into the zoo; without weights that are too large, saw a leaky split or are only a step."""
    with atomic_folder(target) as temporary:
        shutil.copytree(entry, temporary, dirs_exist_ok=True)
        files = list(temporary.iterdir())
        too_large = any(path.stat().st_size >= MAX_WEIGHTS_BYTES for path in files)
        unwanted = target.name.endswith(PUBLISHED) or load_entry(entry).recipe.get("step", False)
        for path in files:
            if path.suffix in WEIGHT_SUFFIXES and (unwanted or too_large):
                path.unlink()


def result_rows(names: Sequence[str], entries: Sequence[AnyEntry]) -> list[Row]:
    """Rows of the table: one per recipe, and one more where a recipe was trained from random weights instead."""
    by_id = {entry.id: entry for entry in readable_entries(entries)}
    rows = []
    for name in names:
        for ending in ("", SCRATCH):
            honest, published = by_id.get(name + ending), by_id.get(name + ending + PUBLISHED)
            if not ending or honest or published:
                rows.append(_row(load_recipe(name, scratch=bool(ending)), honest, published))
    return rows


def _row(recipe: Recipe, honest: Entry | None, published: Entry | None) -> Row:
    entry = honest or published
    training = entry.config.zoo.training if entry else {}
    return Row(
        recipe.id,
        recipe.system,
        recipe.title,
        recipe.reported,
        _accuracy_of(published),
        _accuracy_of(honest),
        training["seconds"] / 60 if "seconds" in training else None,
        training.get("images_per_second"),
        count_parameters(recipe),
    )


def _accuracy_of(entry: Entry | None) -> Accuracy | None:
    tests = [b for b in entry.evaluation.benchmarks.values() if b.role == "test"] if entry else []
    if entry is None or not tests or "accuracy" not in tests[0].metrics:
        return None
    accuracy = tests[0].metrics["accuracy"]
    return Accuracy(
        accuracy.value,
        accuracy.low if accuracy.low is not None else accuracy.value,
        accuracy.high if accuracy.high is not None else accuracy.value,
        tests[0].n_images,
        tests[0].n_cells,
        tests[0].leak_share,
        _is_of_an_earlier_recipe(entry),
    )


def _is_of_an_earlier_recipe(entry: Entry) -> bool:
    """Whether the recipe that an entry was trained with is another one today."""
    name = entry.id.removesuffix(PUBLISHED).removesuffix(SCRATCH)
    try:
        made = read_recipe(entry.recipe, entry.id)
        named = load_recipe(name, published=entry.id.endswith(PUBLISHED), scratch=SCRATCH in entry.id)
    except RecipeError:
        return True
    return bool(differences(made, named) or differences(named, made))


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as Markdown, one table per system."""
    parts = [texts().results]
    for system, title in (*texts().systems.items(), ("", OURS)):
        cells = [_cells(row) for row in rows if row.system == system]
        if cells:
            parts.append(f"## {system + ': ' if system else ''}{title}\n\n" + markdown_table(COLUMNS, cells))
    write_text(path, "\n".join(parts))


def _cells(row: Row) -> list[str]:
    return [
        f"`{row.id}`",
        row.reported or MISSING,
        _percent(row.published) if row.system or row.published else MISSING,
        f"{100 * row.published.leak_share:.0f} %" if row.published else MISSING,
        _percent(row.honest),
        f"{row.honest.cells:,}" if row.honest else MISSING,
        f"{row.minutes:.0f}" if row.minutes is not None else MISSING,
        f"{row.images_per_second:,.0f}" if row.images_per_second else MISSING,
        f"{row.parameters:,}" if row.parameters is not None else MISSING,
    ]


def _percent(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return NOT_TRAINED
    mark = EARLIER if accuracy.earlier else ""
    return f"{100 * accuracy.value:.1f}{mark} ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})"
