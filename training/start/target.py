"""Checks of what a training writes, before anything slow."""

from __future__ import annotations

from pathlib import Path

from training.errors import UsageError
from training.fit.averaging import has_unfinished_run, unfinished_runs
from training.fit.checkpoint import check_recipe, read_facts
from training.recipe import PUBLISHED, SCRATCH, Recipe
from zoo.entry import CONFIG, ID
from zoo.files import ExistsError, check_target

NO_NAME = "{!r} is not an entry name: use letters, digits, dots, dashes and underscores."


def check_name(recipe: Recipe, out: Path) -> None:
    """Raise UsageError if an entry of the recipe cannot have the name of the folder `out`."""
    endings = [ending for ending in (SCRATCH + PUBLISHED, SCRATCH, PUBLISHED) if recipe.id.endswith(ending)]
    if endings and not out.name.endswith(endings[0]):
        raise UsageError(
            f"End the entry's name in {endings[0]}, so that it is not mistaken for another: --out {out}{endings[0]}"
        )
    if not ID.match(out.name):
        raise UsageError(NO_NAME.format(out.name))


def check_run(out: Path, work: Path, data: Path | None, resume: bool, finish: bool, restart: bool) -> None:
    """Raise UsageError if no run can be started, resumed or finished in the folder `work` for the entry `out`."""
    unfinished = has_unfinished_run(work)
    if unfinished and not (resume or finish or restart):
        raise UsageError(
            f"There is an unfinished run in {work}. Add --resume to continue it, or --restart to start again."
        )
    if finish and not unfinished:
        raise UsageError(f"There is no unfinished run in {work}.")
    if resume and not unfinished:
        raise UsageError(f"There is nothing to resume: no unfinished run is in {work}. Leave --resume out to train.")
    try:
        check_target(out, restart or resume or finish, (CONFIG,), [data] if data else [])
    except ExistsError as error:
        raise UsageError(str(error)) from error


def check_same_recipe(work: Path, recipe: Recipe) -> None:
    """Raise CheckpointError, which names keys and values, if an unfinished run in `work` has another recipe."""
    for path in unfinished_runs(work):
        number = path.parent.name.removeprefix("run-")
        one = recipe.of_run(int(number) - 1) if recipe.schedule.runs > 1 and number.isdigit() else recipe
        check_recipe(read_facts(path), one.fingerprint(), path)
