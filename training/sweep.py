"""Which settings of a recipe are best? Optuna's search on validation alone; any number of workers share one storage.

A space is a TOML file: how to search, and for each key of the recipe its values or range. The test split is never
touched: what is found is given to `train` with --set.
"""

from __future__ import annotations

import shutil
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any, Literal

import numpy as np
import optuna
import pandas as pd
from accelerate import Accelerator
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from training.fit.batches import Arrays
from training.fit.loop import Hooks, train
from training.fit.schedules import lower_is_better
from training.fit.stopping import DivergedError
from training.prepare.splits import Split
from training.recipe import Metric, Recipe, RecipeError, as_set, load_recipe
from training.run import starting_network
from zoo.files import write_text

FOLDER = Path(__file__).parent / "spaces"
BEAT = 30  # seconds between two signs of life of a worker
GONE = 4 * BEAT  # seconds without one after which another worker takes over its trial
RETRIES = 3
TURNS = 5  # at opening a storage that others open, too


class SweepError(ValueError):
    """A sweep that cannot be run; the message says what to do."""


class Dimension(BaseModel):
    """Values to choose from, or a range of numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    values: list[Any] | None = Field(None, min_length=1)
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False

    @model_validator(mode="after")
    def _one_of(self) -> Dimension:
        ranged = self.low is not None and self.high is not None and self.low < self.high
        if (self.values is None) != ranged:
            raise ValueError("give values = […], or low and high")
        return self

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """The trial's choice."""
        if self.values is not None:
            return trial.suggest_categorical(key, self.values)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, float(self.low or 0), float(self.high or 0), log=self.log)


class Space(BaseModel):
    """How a recipe's settings are searched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["grid", "random", "tpe"] = "tpe"
    trials: Annotated[int, Field(gt=0)] = Field(20, description="In all, of all workers; a grid has as many as it has")
    metric: Metric = "val_accuracy"
    pruning: Literal["none", "median", "hyperband"] = "none"
    seed: int = 0
    set: dict[str, Any] = Field({}, description="Keys changed in every trial, as fewer epochs")
    keys: dict[str, Dimension] = Field(min_length=1)

    @model_validator(mode="after")
    def _a_grid_has_values(self) -> Space:
        if self.method == "grid" and any(dimension.values is None for dimension in self.keys.values()):
            raise ValueError("a grid needs values for every key")
        return self

    @property
    def size(self) -> int:
        """Trials in all."""
        if self.method != "grid":
            return self.trials
        return int(np.prod([len(dimension.values or []) for dimension in self.keys.values()]))


def read_space(path: Path) -> Space:
    """The space at `path`, or the shipped one of that name. Raises SweepError if it cannot be used."""
    place = path if path.is_file() else FOLDER / f"{path.stem}.toml"
    try:
        content = tomllib.loads(place.read_text(encoding="utf-8"))
        return Space.model_validate(content)
    except OSError as error:
        shipped = ", ".join(sorted(found.stem for found in FOLDER.glob("*.toml")))
        raise SweepError(f"There is no space {path}. Shipped: {shipped}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SweepError(f"{path.name} is not valid TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SweepError(f"{path.name}: {where}: {first['msg'].removeprefix('Value error, ')}") from error


def changes_of(space: Space, chosen: dict[str, Any]) -> list[str]:
    """Settings as --set takes them."""
    return as_set({**space.set, **chosen})


def open_study(space: Space, storage: str, name: str) -> optuna.Study:
    """The study called `name` in `storage` (any URL of Optuna's), made if it is not there.

    Raises SweepError if the storage cannot be opened or the study has another aim.
    """
    direction = "minimize" if lower_is_better(space.metric) else "maximize"
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "grid": lambda: optuna.samplers.GridSampler(
            {key: dimension.values or [] for key, dimension in space.keys.items()}, seed=space.seed
        ),
        # workers that share a seed would try the same: only the grid needs none of its own
        "random": optuna.samplers.RandomSampler,
        "tpe": lambda: optuna.samplers.TPESampler(constant_liar=True),
    }
    pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
        "none": optuna.pruners.NopPruner,
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        "hyperband": optuna.pruners.HyperbandPruner,
    }
    try:
        study = optuna.create_study(
            storage=_open_storage(storage),
            sampler=samplers[space.method](),
            pruner=pruners[space.pruning](),
            study_name=name,
            direction=direction,
            load_if_exists=True,
        )
    except (ArgumentError, SQLAlchemyError, ModuleNotFoundError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SweepError(
            f"The storage {storage} cannot be opened ({reason}). Give a URL such as sqlite:///sweep.db."
        ) from error
    kept = study.user_attrs.get("space")
    if kept is not None and kept != space.model_dump(mode="json"):
        raise SweepError(f"The study {name} in {storage} searches another space. Choose another --name.")
    study.set_user_attr("space", space.model_dump(mode="json"))
    return study


def _open_storage(url: str) -> RDBStorage:
    """The storage, its tables made. Raises what SQLAlchemy raises."""
    for turn in range(TURNS):
        try:
            return RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
                heartbeat_interval=BEAT,
                grace_period=GONE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(RETRIES),
            )
        except DBAPIError:
            # workers that begin together make the tables together; all but one find them there the next time
            if turn == TURNS - 1:
                raise
            time.sleep(0.3 * (turn + 1))
    raise AssertionError("the last turn returns or raises")


def run(
    study: optuna.Study,
    space: Space,
    recipe_name: str,
    ready: Callable[[Recipe], tuple[Recipe, Arrays, Split]],
    work: Path,
    accelerator: Accelerator,
    say: Callable[[str], None],
) -> None:
    """Run trials of `study` until the space's number is reached, together with all other workers.

    A trial that was interrupted with its worker is begun again by another. `ready` gives a recipe, with the labels of
    its data if it has none, and its data and split.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # we tell ourselves what was found

    def objective(trial: optuna.Trial) -> float:
        chosen = {key: dimension.suggest(trial, key) for key, dimension in space.keys.items()}
        recipe, arrays, split = ready(load_recipe(recipe_name, changes_of(space, chosen)))
        seen: list[float] = []

        def after_epoch(entry: dict[str, float]) -> None:
            seen.append(entry[space.metric])
            trial.report(entry[space.metric], int(entry["epoch"]))
            if trial.should_prune():
                raise optuna.TrialPruned

        # a folder of its own, in one that stays: other workers go on when this one is done
        work.mkdir(parents=True, exist_ok=True)
        place = Path(mkdtemp(prefix=f"trial-{trial.number}-", dir=work))
        try:
            start = starting_network(recipe, split, place)
            fitted = train(recipe, arrays, split, place, accelerator, start=start, hooks=Hooks(after_epoch))
        except DivergedError as error:
            trial.set_user_attr("reason", str(error))
            raise optuna.TrialPruned from error
        finally:
            shutil.rmtree(place, ignore_errors=True)
        trial.set_user_attr("seconds", round(fitted.seconds, 1))
        trial.set_user_attr("epochs", len(fitted.history))
        return min(seen) if lower_is_better(space.metric) else max(seen)

    def enough(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        value = "" if trial.value is None else f" {trial.value:.4f}"
        say(f"trial {trial.number}: {trial.state.name.lower()}{value} {trial.params}")
        if finished(study) >= space.size:
            study.stop()

    if finished(study) < space.size:
        study.optimize(objective, callbacks=[enough], n_trials=None)


def finished(study: optuna.Study) -> int:
    """Trials that need no more work."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def table(study: optuna.Study) -> pd.DataFrame:
    """One row a trial, the best first: number, state, value, seconds, epochs and its settings."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "seconds": trial.user_attrs.get("seconds"),
            "epochs": trial.user_attrs.get("epochs"),
            **trial.params,
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.RUNNING
    ]
    best_first = study.direction == optuna.study.StudyDirection.MINIMIZE
    found = pd.DataFrame(rows)
    return found.sort_values("value", ascending=best_first, na_position="last") if len(found) else found


def write_report(study: optuna.Study, space: Space, out: Path) -> None:
    """Write `trials.csv` and `trials.html`, a parallel-coordinates plot, into `out`."""
    write_text(out / "trials.csv", table(study).to_csv(index=False))
    figure = optuna.visualization.plot_parallel_coordinate(study, params=list(space.keys), target_name=space.metric)
    figure.update_layout(title=f"{study.study_name}: {space.metric}")
    write_text(out / "trials.html", figure.to_html(include_plotlyjs=True))


def check_keys(space: Space, recipe_name: str) -> None:
    """Raises RecipeError if a key of the space is none of the recipe's."""
    for key, dimension in space.keys.items():
        value = dimension.values[0] if dimension.values is not None else dimension.low
        load_recipe(recipe_name, changes_of(space, {key: value}))
    if recipe_name and load_recipe(recipe_name).model is None:
        raise RecipeError(f"{recipe_name} is an ensemble; there is nothing to sweep.")
