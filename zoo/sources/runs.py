"""What is being trained now? The running states that `training train` keeps, read for the app to show."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

VARIABLE = "HEMAZOO_RUNS"
DEFAULT = "runs"
STATE, HISTORY = "run.json", "history.json"
SILENT = 300.0  # seconds without a sign of life after which a run counts as stopped
MOST_BYTES = 5_000_000


class State(BaseModel):
    """Where a run is: the epoch it is in (from 1), the step in it, and when that was written (seconds since 1970)."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    title: str = Field(max_length=200)
    recipe: str = Field(max_length=200)
    epoch: int = Field(ge=1)
    epochs: int = Field(ge=1)
    step: int = Field(ge=0)
    steps: int = Field(ge=1)
    images_per_second: float = Field(ge=0)
    updated: float


@dataclass(frozen=True)
class Run:
    """A run in training, with its curves so far (one row an epoch; none in the first)."""

    name: str
    state: State
    history: pd.DataFrame

    @property
    def share(self) -> float:
        """How much of all epochs is done, 0..1."""
        done = self.state.epoch - 1 + min(self.state.step / self.state.steps, 1)
        return min(done / self.state.epochs, 1.0)

    @property
    def alive(self) -> bool:
        """Whether it has given a sign of life lately."""
        return time.time() - self.state.updated < SILENT


def list_runs(folder: Path | None = None) -> list[Run]:
    """Runs of a folder (HEMAZOO_RUNS, or `runs`), the latest first; what cannot be read is left out."""
    place = folder or Path(os.environ.get(VARIABLE) or DEFAULT).expanduser()
    found = []
    # of a recipe of several runs each has a folder of its own
    for state in (*place.glob(f"*/{STATE}"), *place.glob(f"*/run-*/{STATE}")):
        try:
            known = State.model_validate(_read(state))
        except (OSError, ValueError, ValidationError):
            continue  # half-made or foreign: nothing a visitor could act on
        found.append(Run(state.parent.relative_to(place).as_posix(), known, _history(state.parent / HISTORY)))
    return sorted(found, key=lambda run: -run.state.updated)


def _history(path: Path) -> pd.DataFrame:
    try:
        return pd.DataFrame(_read(path))
    except (OSError, ValueError):
        return pd.DataFrame()


def _read(path: Path) -> object:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is too large")
    return json.loads(path.read_text(encoding="utf-8"))
