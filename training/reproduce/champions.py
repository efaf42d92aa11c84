"""Train and score the champions, the models for cells of any laboratory, and write docs/champions.md.

What is trained or scored already is not done again; into a fresh zoo folder everything is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import Accelerator

from training.evaluation import benchmarks as evaluation
from training.evaluation import leave_one_lab_out, ood
from training.recipe import load_recipe, recipe_ids
from training.reproduce import results
from training.reproduce.formats import MISSING, markdown_table, metric_of, percent
from training.reproduce.formats import TABLE as RESULTS
from training.reproduce.texts import Target, texts
from zoo.benchmarks import LEFT_OUT, get_benchmark, names
from zoo.benchmarks.eligibility import NOT_SCORED, is_scored, refusal
from zoo.benchmarks.leaderboard import home_benchmark, images_per_second
from zoo.entry import Entry, Metric, usable_entries
from zoo.files import write_text
from zoo.serving.devices import device_name
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import FolderSource, list_entries

Log = Callable[[object], None]

TABLE = RESULTS.with_name("champions.md")
PREFIX = "champion"  # of the champions' recipes
LEAVE_OUT_CHANGES = ("model.weights=imagenet", "model.views=1", "stages=[{epochs=4, lr=1e-3}]")  # shorter training
FAST_RATE = 100  # images per second on two cores, the target of the small models
PAGE = """\
# Champions

Models for cells of any laboratory, and the targets that were set for them. Generated from the entries by
`python -m training reproduce --champions`; do not edit. Percent, with 95 % bootstrap intervals over source cells;
**bold** where the target is reached.

"""


def reproduce(folders: results.Folders, budget_seconds: float, accelerator: Accelerator, log: Log) -> list[str]:
    """Train, score and measure every champion, as far as it is not done yet.

    Args:
        folders: Where to read and write.
        budget_seconds: No training is started after this time.
        accelerator: Device or devices to train on.
        log: Prints a line for people.

    Returns:
        What failed: ids of recipes, or sentences that name the entry.
    """
    order = results.training_order(only=champion_recipes())
    failed = results.reproduce(order, folders, budget_seconds, accelerator, log)
    device = accelerator.device.type
    with Runtime(device) as runtime:
        for name in names():
            benchmark = get_benchmark(name)
            unscored = [e for e in champions(folders.zoo) if not (refusal(e, benchmark) or is_scored(e, benchmark))]
            if unscored:
                pictures = benchmark.pictures(folders.data)
                failures = evaluation.evaluate(unscored, benchmark, pictures, runtime, log)
                failed += [f"{entry}: {reason}" for entry, reason in failures.items()]
    for entry in champions(folders.zoo):
        if entry.other_laboratories is None and not entry.members:
            recipe = load_recipe(entry.id, LEAVE_OUT_CHANGES)
            work = folders.runs / "loso" / recipe.id
            models = leave_one_lab_out.leave_one_laboratory_out(recipe, folders.data, work, accelerator, log)
            result = leave_one_lab_out.score_unseen_laboratories(leave_one_lab_out.predictions_of(models))
            leave_one_lab_out.add_to_entry(entry, recipe, result, device_name(accelerator.device))
        _measure_ood_and_speed(entry, folders.data, device, log)
    return failed


def _measure_ood_and_speed(entry: Entry, data: Path, device: str, log: Log) -> None:
    """Fit and measure the entry's out-of-distribution limits, and its speed, where they are missing."""
    if not entry.members and entry.evaluation.ood is None:
        with Runtime(device) as runtime:
            ood.fit(entry, data, runtime, log)
        # the limits are loaded with the model: only a new runtime sees them
        with Runtime(device) as runtime:
            ood.measure(entry, data, runtime, log)
    home = home_benchmark(entry)
    if home and images_per_second(entry) is None:
        with Runtime(device) as runtime:
            evaluation.measure_speed(entry, runtime, get_benchmark(home).pictures(data))


def champion_recipes() -> list[str]:
    """Ids of the champions' recipes."""
    return [name for name in recipe_ids() if name.startswith(PREFIX)]


def champions(zoo: Path) -> list[Entry]:
    """The usable champions in a folder of entries."""
    ids = set(champion_recipes())
    return [entry for entry in usable_entries(list_entries([FolderSource(zoo, str(zoo))])) if entry.id in ids]


def write_page(path: Path, zoo: Path) -> None:
    """Write the page of the champions in the folder `zoo`."""
    write_text(path, PAGE + render_table(champions(zoo)))


def render_table(entries: Sequence[Entry]) -> str:
    """One row per target and one column per champion; bold where the target is reached."""
    rows = []
    for target in texts().targets:
        scores = [metric_of(entry, target.benchmark, target.metric) for entry in entries]
        sign = "≤" if target.at_most else "≥"
        cells = [_cell(score, score is not None and _is_reached(target, score.value)) for score in scores]
        rows.append([target.title, f"{sign} {100 * target.value:.1f} %", *cells])
    left_out = [metric_of(entry, f"{entry.data_set}{LEFT_OUT}", "balanced_accuracy") for entry in entries]
    rows.append(["leave-one-laboratory-out, balanced accuracy (recipes are chosen by it)", "", *map(_cell, left_out)])
    rates = [_rate_cell(images_per_second(entry)) for entry in entries]
    rows.append(["images per second, two cores", f"> {FAST_RATE} for the small models", *rates])
    return markdown_table(["benchmark", "target", *(f"`{entry.id}`" for entry in entries)], rows)


def _is_reached(target: Target, value: float) -> bool:
    return value <= target.value if target.at_most else value >= target.value


def _cell(score: Metric | None, is_bold: bool = False) -> str:
    text = NOT_SCORED if score is None else percent(score, unit="")
    return f"**{text}**" if is_bold else text


def _rate_cell(rate: float | None) -> str:
    if not rate:
        return MISSING
    return f"**{rate:,.0f}**" if rate > FAST_RATE else f"{rate:,.0f}"
