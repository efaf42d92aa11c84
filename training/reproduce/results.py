"""What did the published systems report, and what do we find? Trains their recipes and writes the table of results."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from training.fit.averaging import has_unfinished_run
from training.fit.checkpoint import CheckpointError
from training.fit.network import WeightsError
from training.fit.stopping import FitError
from training.recipe import PUBLISHED, SCRATCH, Recipe, load_recipe, recipe_ids
from training.recipe.overview import count_parameters
from training.reproduce.texts import texts
from training.run import TrainingJob, train
from zoo.data import DataError
from zoo.entry import EVALUATION, AnyEntry, Entry, EntryError, load_entry, readable_entries
from zoo.files import atomic_folder, write_text

MAX_WEIGHTS = 10_000_000  # bytes of a file in the built-in zoo
TABLE = Path(__file__).parents[2] / "docs" / "results.md"
ENTRIES = "entries"  # folder of whole entries, below that of the running states


@dataclass(frozen=True)
class Figure:
    """Accuracy on a test split with its 95 % interval over source cells, and what it was measured on."""

    value: float
    low: float
    high: float
    images: int
    cells: int
    leak_share: float


@dataclass(frozen=True)
class Row:
    """A recipe's line of the table; figures are None where nothing was trained yet."""

    id: str
    system: str
    title: str
    reported: str
    published: Figure | None
    honest: Figure | None
    minutes: float | None
    images_per_second: float | None
    parameters: int | None


def wanted(system: str | None = None, only: Sequence[str] | None = None) -> list[str]:
    """Recipes in the order in which they can be trained: what others build on comes first."""
    recipes = [load_recipe(name) for name in (only or recipe_ids())]
    named = [r for r in recipes if only or (r.system == system if system else r.id != "starter")]

    return [recipe.id for recipe in sorted(named, key=lambda r: (r.system or "Z", steps_before(r), r.id))]


def steps_before(recipe: Recipe) -> int:
    """How many recipes have to be trained one after the other before this one can be."""
    built_on = list(recipe.ensemble.members) if recipe.ensemble else []
    if recipe.model and recipe.model.begins_with_entry:
        built_on.append(recipe.model.weights)
    if recipe.head and recipe.head.of:
        built_on.append(recipe.head.of)
    known = set(recipe_ids())
    return max((1 + steps_before(load_recipe(name)) for name in built_on if name in known), default=0)


def reproduce(
    names: Sequence[str],
    data: Path,
    zoo: Path,
    runs: Path,
    seconds: float,
    accelerator: Accelerator,
    say: Callable[[object], None],
) -> list[str]:
    """Train each recipe honestly and as published, beginning nothing after `seconds`; returns what failed.

    Whole entries are kept in `runs/entries`; `zoo` gets them too, without weights that are too large or that come from
    a leaky split. Weights that cannot be reached are left out for random ones, under an id that says so.
    """
    start, failed = time.monotonic(), []
    for name in names:
        for published in (False, True):
            if published and not load_recipe(name).published:
                continue
            for scratch in (False, True):
                recipe = load_recipe(name, published=published, scratch=scratch)
                if (zoo / recipe.id / EVALUATION).exists():
                    break
                if not (runs / ENTRIES / recipe.id / EVALUATION).exists():
                    if time.monotonic() - start > seconds:
                        say(f"{recipe.id}: not has_unfinished_run, the budget is spent")
                        break
                    try:
                        _train(recipe, data, runs, accelerator, say)
                    except WeightsError as error:
                        say(f"{recipe.id}: {error}")
                        continue  # from random weights, then
                    except (DataError, FitError, CheckpointError, EntryError) as error:
                        say(f"{recipe.id}: {error}")
                        if recipe.ensemble and isinstance(error, EntryError) and not scratch:
                            continue  # of members from random weights, if there are such
                        failed.append(recipe.id)
                        break
                publish(runs / ENTRIES / recipe.id, zoo / recipe.id)
                break
    return failed


def _train(recipe: Recipe, data: Path, runs: Path, accelerator: Accelerator, say: Callable[[object], None]) -> None:
    work = runs / recipe.id
    say(f"== {recipe.id}")
    place = None if recipe.ensemble else data if recipe.data.mix else data / recipe.data.name
    resume = has_unfinished_run(work)
    train(TrainingJob(recipe, place, runs / ENTRIES / recipe.id, work, resume=resume), accelerator)


def publish(entry: Path, place: Path) -> None:
    """Copy an entry into the zoo, without its weights if they are too large, only a step, or saw a leaky split."""
    with atomic_folder(place) as temporary:
        shutil.copytree(entry, temporary, dirs_exist_ok=True)
        heavy = [path for path in temporary.iterdir() if path.stat().st_size >= MAX_WEIGHTS]
        light = place.name.endswith(PUBLISHED) or load_entry(entry).recipe.get("step", False)
        for path in temporary.iterdir():
            if path.suffix in (".safetensors", ".skops") and (light or heavy):
                path.unlink()


def rows(names: Sequence[str], entries: Sequence[AnyEntry]) -> list[Row]:
    """The table's rows: one a recipe, and one for what began with random weights instead."""
    found = {entry.id: entry for entry in readable_entries(entries)}
    made = []
    for name in names:
        for end in ("", SCRATCH):
            honest, leaky = found.get(name + end), found.get(name + end + PUBLISHED)
            if end and honest is None and leaky is None:
                continue
            made.append(_row(load_recipe(name, scratch=bool(end)), honest, leaky))
    return made


def _row(recipe: Recipe, honest: Entry | None, published: Entry | None) -> Row:
    entry = honest or published
    training = entry.config.zoo.training if entry else {}
    return Row(
        recipe.id,
        recipe.system,
        recipe.title,
        recipe.reported,
        _figure(published),
        _figure(honest),
        training["seconds"] / 60 if "seconds" in training else None,
        training.get("images_per_second"),
        count_parameters(recipe),
    )


def _figure(entry: Entry | None) -> Figure | None:
    tests = [b for b in entry.evaluation.benchmarks.values() if b.role == "test"] if entry else []
    if not tests or "accuracy" not in tests[0].metrics:
        return None
    found = tests[0].metrics["accuracy"]
    return Figure(
        found.value,
        found.low if found.low is not None else found.value,
        found.high if found.high is not None else found.value,
        tests[0].n_images,
        tests[0].n_cells,
        tests[0].leak_share,
    )


OURS = "Ours"  # title of the recipes that belong to no published system
COLUMNS = "| recipe | reported | published protocol | leak | honest | cells | minutes | images/s | parameters |"


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as Markdown, a table a system."""
    parts = [texts().results]
    for system, title in (*texts().systems.items(), ("", OURS)):
        own = [row for row in rows if row.system == system]
        if own:
            lines = [COLUMNS, "|" + "---|" * (COLUMNS.count("|") - 1), *map(_line, own)]
            parts.append(f"## {system + ': ' if system else ''}{title}\n\n" + "\n".join(lines) + "\n")
    write_text(path, "\n".join(parts))


def _line(row: Row) -> str:
    none = "–"
    leak = f"{100 * row.published.leak_share:.0f} %" if row.published else none
    cells = f"{row.honest.cells:,}" if row.honest else none
    columns = [
        f"`{row.id}`",
        row.reported or none,
        _percent(row.published) if row.system or row.published else none,
        leak,
        _percent(row.honest),
        cells,
        f"{row.minutes:.0f}" if row.minutes is not None else none,
        f"{row.images_per_second:,.0f}" if row.images_per_second else none,
        f"{row.parameters:,}" if row.parameters is not None else none,
    ]
    return "| " + " | ".join(columns) + " |"


def _percent(figure: Figure | None) -> str:
    if figure is None:
        return "not yet"
    return f"{100 * figure.value:.1f} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"
