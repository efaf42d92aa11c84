"""Search a recipe's settings on the validation split with Optuna; any number of workers share one storage.

A search space is a TOML file: how to search, and for each key of the recipe its values or range. The test split is
never touched: what is found is given to `train` with --set.
"""

from __future__ import annotations

import shutil
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from training.fit.processor.precision import with_precision
from training.fit.schedules import lower_is_better
from training.fit.stopping import DivergedError
from training.prepare.splits import Split
from training.recipe import Metric, Recipe, RecipeError, as_set
from training.run import starting_network
from zoo.files import write_text
from zoo.tables import to_csv

FOLDER = Path(__file__).parent / "spaces"
HEARTBEAT_SECONDS = 30  # between two signs of life of a worker
GRACE_SECONDS = 4 * HEARTBEAT_SECONDS  # without a sign of life, until another worker takes over its trial
MAX_RETRIES = 3  # of a trial whose worker died
OPEN_ATTEMPTS = 5  # to create the tables of a storage that other workers open at the same time
OPEN_WAIT_SECONDS = 0.3  # before the second attempt; longer before each further one
SQLITE_TIMEOUT_SECONDS = 60
LoadRecipe = Callable[[Sequence[str]], Recipe]  # from changes, as `--set` takes them
LoadData = Callable[[Recipe], tuple[Recipe, Arrays, Split]]


class SweepError(ValueError):
    """A sweep that cannot be run; the message says what to do."""


class Dimension(BaseModel):
    """Values of a setting: a list, or a range of numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    values: list[Any] | None = Field(None, min_length=1)
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False

    @model_validator(mode="after")
    def _has_values_or_range(self) -> Dimension:
        has_range = self.low is not None and self.high is not None and self.low < self.high
        if (self.values is None) != has_range:
            raise ValueError("give values = […], or low and high")
        return self

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """Let Optuna choose the value of the setting `key` for a trial."""
        if self.values is not None:
            return trial.suggest_categorical(key, self.values)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, float(self.low or 0), float(self.high or 0), log=self.log)


class Space(BaseModel):
    """Search space: the settings to search, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["grid", "random", "tpe"] = "tpe"
    trials: Annotated[int, Field(gt=0)] = Field(
        20, description="Trials of all workers together; a grid has a fixed number"
    )
    metric: Metric = "val_accuracy"
    pruning: Literal["none", "median", "hyperband"] = "none"
    seed: int = 0
    set: dict[str, Any] = Field({}, description="Keys changed in every trial, such as fewer epochs")
    keys: dict[str, Dimension] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_grid(self) -> Space:
        if self.method == "grid" and any(dimension.values is None for dimension in self.keys.values()):
            raise ValueError("a grid needs values for every key")
        return self

    @property
    def size(self) -> int:
        """Number of trials of all workers together."""
        if self.method != "grid":
            return self.trials
        return int(np.prod([len(dimension.values or []) for dimension in self.keys.values()]))


def read_space(path: Path) -> Space:
    """Read the space at `path`, or the shipped one of that name. Raises SweepError if it cannot be used."""
    file = path if path.is_file() else FOLDER / f"{path.stem}.toml"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        return Space.model_validate(content)
    except OSError as error:
        names = ", ".join(sorted(shipped.stem for shipped in FOLDER.glob("*.toml")))
        raise SweepError(f"There is no space {path}. Shipped: {names}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SweepError(f"{path.name} is not valid TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SweepError(f"{path.name}: {where}: {first['msg'].removeprefix('Value error, ')}") from error


def changes_of(space: Space, chosen: dict[str, Any]) -> list[str]:
    """The settings of a trial, as `--set` takes them."""
    return as_set({**space.set, **chosen})


def open_study(space: Space, storage: str, name: str) -> optuna.Study:
    """Open a study, or create it.

    Args:
        space: What the study searches.
        storage: Any storage URL of Optuna.
        name: Name of the study in the storage.

    Raises:
        SweepError: The storage cannot be opened, or the study searches another space.
    """
    try:
        study = optuna.create_study(
            storage=_open_storage(storage),
            sampler=_make_sampler(space),
            pruner=_make_pruner(space),
            study_name=name,
            direction="minimize" if lower_is_better(space.metric) else "maximize",
            load_if_exists=True,
        )
    except (ArgumentError, SQLAlchemyError, ModuleNotFoundError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SweepError(
            f"The storage {storage} cannot be opened ({reason}). Give a URL such as sqlite:///sweep.db."
        ) from error
    stored = study.user_attrs.get("space")
    if stored is not None and stored != space.model_dump(mode="json"):
        raise SweepError(f"The study {name} in {storage} searches another space. Choose another --name.")
    study.set_user_attr("space", space.model_dump(mode="json"))
    return study


def _make_sampler(space: Space) -> optuna.samplers.BaseSampler:
    # random and TPE get no seed: workers with the same seed would try the same settings
    if space.method == "grid":
        values = {key: dimension.values or [] for key, dimension in space.keys.items()}
        return optuna.samplers.GridSampler(values, seed=space.seed)
    if space.method == "random":
        return optuna.samplers.RandomSampler()
    return optuna.samplers.TPESampler(constant_liar=True)


def _make_pruner(space: Space) -> optuna.pruners.BasePruner:
    if space.pruning == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    if space.pruning == "hyperband":
        return optuna.pruners.HyperbandPruner()
    return optuna.pruners.NopPruner()


def _open_storage(url: str) -> RDBStorage:
    """Open a storage and create its tables. Raises what SQLAlchemy raises."""
    for attempt in range(OPEN_ATTEMPTS):
        try:
            return RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}}
                if url.startswith("sqlite")
                else None,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(MAX_RETRIES),
            )
        except DBAPIError:
            # workers that start together create the tables together; all but one find them at the next attempt
            if attempt == OPEN_ATTEMPTS - 1:
                raise
            time.sleep(OPEN_WAIT_SECONDS * (attempt + 1))
    raise AssertionError("the last attempt returns or raises")


@dataclass(frozen=True)
class _Objective:
    """Trains one trial and returns the best value of its metric."""

    space: Space
    load: LoadRecipe
    load_data: LoadData
    work: Path
    accelerator: Accelerator

    def __call__(self, trial: optuna.Trial) -> float:
        space = self.space
        chosen = {key: dimension.suggest(trial, key) for key, dimension in space.keys.items()}
        recipe, arrays, split = self.load_data(self.load(changes_of(space, chosen)))
        values: list[float] = []

        def after_epoch(epoch: dict[str, float]) -> None:
            values.append(epoch[space.metric])
            trial.report(epoch[space.metric], int(epoch["epoch"]))
            if trial.should_prune():
                raise optuna.TrialPruned

        # each trial has its own folder below `work`, which other workers may still use when this one ends
        self.work.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix=f"trial-{trial.number}-", dir=self.work))
        try:
            start = starting_network(recipe, split, folder)
            settled = with_precision(recipe, self.accelerator)
            fitted = train(settled, arrays, split, folder, self.accelerator, start=start, hooks=Hooks(after_epoch))
        except DivergedError as error:
            trial.set_user_attr("reason", str(error))
            raise optuna.TrialPruned from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        trial.set_user_attr("seconds", round(fitted.seconds, 1))
        trial.set_user_attr("epochs", len(fitted.history))
        return min(values) if lower_is_better(space.metric) else max(values)


def run(
    study: optuna.Study,
    space: Space,
    load: LoadRecipe,
    load_data: LoadData,
    work: Path,
    accelerator: Accelerator,
    log: Callable[[str], None],
) -> None:
    """Run trials until all workers together have reached the space's number.

    A trial whose worker died is started again by another worker.

    Args:
        study: The study, from `open_study`.
        space: Its search space.
        load: Loads the recipe with a trial's changes.
        load_data: Loads the data and split of a trial's recipe; completes the recipe's labels if it names none.
        work: Folder of the running states.
        accelerator: Device or devices to train on.
        log: Prints a line per trial.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # `log` replaces Optuna's own messages

    def after_trial(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        value = "" if trial.value is None else f" {trial.value:.4f}"
        log(f"trial {trial.number}: {trial.state.name.lower()}{value} {trial.params}")
        if finished(study) >= space.size:
            study.stop()

    if finished(study) < space.size:
        objective = _Objective(space, load, load_data, work, accelerator)
        study.optimize(objective, callbacks=[after_trial], n_trials=None)


def finished(study: optuna.Study) -> int:
    """Number of trials that are complete or pruned."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def table(study: optuna.Study) -> pd.DataFrame:
    """One row per trial, best first: number, state, value, seconds, epochs and settings."""
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
    ascending = study.direction == optuna.study.StudyDirection.MINIMIZE
    trials = pd.DataFrame(rows)
    return trials.sort_values("value", ascending=ascending, na_position="last") if len(trials) else trials


def write_report(study: optuna.Study, space: Space, out: Path) -> None:
    """Write `trials.csv` and `trials.html`, a parallel-coordinates plot, into `out`."""
    write_text(out / "trials.csv", to_csv(table(study)))
    figure = optuna.visualization.plot_parallel_coordinate(study, params=list(space.keys), target_name=space.metric)
    figure.update_layout(title=f"{study.study_name}: {space.metric}")
    write_text(out / "trials.html", figure.to_html(include_plotlyjs=True))


def check_keys(space: Space, load: LoadRecipe) -> None:
    """Raise RecipeError if a key of the space is not a key of the recipe, or the recipe is an ensemble."""
    for key, dimension in space.keys.items():
        value = dimension.values[0] if dimension.values is not None else dimension.low
        load(changes_of(space, {key: value}))
    if (recipe := load([])).model is None:
        raise RecipeError(f"{recipe.id} is an ensemble: it has no settings to search.")
