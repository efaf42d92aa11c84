"""Exit statuses of the errors that the training commands report in one sentence, by the full names of their classes.

Names instead of classes, because a refusal should not wait until torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping

from zoo.cli.common import FAILED, INTERRUPTED, USAGE

EXIT_STATUS: Mapping[str, int] = {
    "training.errors.UsageError": USAGE,
    "training.recipe.errors.RecipeError": USAGE,
    "training.sweep.SweepError": USAGE,
    "zoo.scores.sample.samples.SampleError": USAGE,
    "zoo.files.LockedError": USAGE,
    "zoo.files.ExistsError": USAGE,
    "zoo.limits.LimitError": USAGE,
    "training.fit.stopping.TrainingStopped": INTERRUPTED,
    "zoo.data.table.DataError": FAILED,
    "training.fit.checkpoint.CheckpointError": FAILED,
    "training.fit.stopping.FitError": FAILED,
    "training.fit.networks.network.WeightsError": FAILED,
    "zoo.entry.files.EntryError": FAILED,
    "zoo.attribution.features.ExplanationError": FAILED,
    "zoo.serving.requests.BusyError": FAILED,
    "training.prepare.fetch.FetchError": FAILED,
    "training.backbones.store.FetchError": FAILED,
}
