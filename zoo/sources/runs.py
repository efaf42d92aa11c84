"""Training runs in progress, read from the state files that `training train` writes."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

VARIABLE = "HEMAZOO_RUNS"
DEFAULT = "runs"
STATE, HISTORY = "run.json", "history.json"
MAX_SILENT_SECONDS = 300.0  # a run without an update for longer counts as stopped
MAX_BYTES = 5_000_000  # of a state file or history


class State(BaseModel):
    """Progress of a run: current epoch (from 1), step within it, and time of writing (seconds since 1970)."""

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
    """A training run with its curves so far (one row an epoch; none during the first epoch)."""

    name: str
    state: State
    history: pd.DataFrame

    @property
    def progress(self) -> float:
        """Completed share of all epochs, 0..1."""
        done = self.state.epoch - 1 + min(self.state.step / self.state.steps, 1)
        return min(done / self.state.epochs, 1.0)

    @property
    def alive(self) -> bool:
        """Whether it has written its state within the last minutes."""
        return time.time() - self.state.updated < MAX_SILENT_SECONDS


def list_runs(folder: Path | None = None) -> list[Run]:
    """Runs in a folder (default: HEMAZOO_RUNS, or `runs`), the latest first; unreadable ones are left out."""
    root = folder or Path(os.environ.get(VARIABLE) or DEFAULT).expanduser()
    runs = []
    # a recipe with several runs has one folder for each
    for path in (*root.glob(f"*/{STATE}"), *root.glob(f"*/run-*/{STATE}")):
        try:
            state = State.model_validate(_read(path))
        except (OSError, ValueError, ValidationError):
            continue  # half-written or not ours: nothing a visitor could act on
        runs.append(Run(path.parent.relative_to(root).as_posix(), state, _history(path.parent / HISTORY)))
    return sorted(runs, key=lambda run: -run.state.updated)


def _history(path: Path) -> pd.DataFrame:
    try:
        return pd.DataFrame(_read(path))
    except (OSError, ValueError):
        return pd.DataFrame()


def _read(path: Path) -> Any:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is too large")
    return json.loads(path.read_text(encoding="utf-8"))
