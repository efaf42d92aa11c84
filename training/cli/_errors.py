"""Exit statuses of the errors that the training commands report in one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from training.fit.checkpoint import CheckpointError
from training.fit.network import WeightsError
from training.fit.stopping import FitError, TrainingStopped
from training.prepare.fetch import FetchError
from training.recipe import RecipeError
from training.sweep import SweepError
from zoo.attribution import ExplanationError
from zoo.cli.common import FAILED, INTERRUPTED, USAGE
from zoo.data import DataError
from zoo.entry import EntryError
from zoo.serving.runtime import BusyError

EXIT_STATUS: Mapping[type[Exception], int] = {
    RecipeError: USAGE,
    SweepError: USAGE,
    TrainingStopped: INTERRUPTED,
    DataError: FAILED,
    CheckpointError: FAILED,
    FitError: FAILED,
    WeightsError: FAILED,
    EntryError: FAILED,
    ExplanationError: FAILED,
    BusyError: FAILED,
    FetchError: FAILED,
}
