"""Exit statuses of the errors that the zoo's commands report in one sentence, by the full names of their classes.

Names instead of classes, because a refusal should not wait until torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping

from zoo.cli.common import FAILED, USAGE

EXIT_STATUS: Mapping[str, int] = {
    "zoo.entry.files.EntryError": USAGE,
    "zoo.serving.bulk.BulkError": USAGE,
    "zoo.scores.sample.samples.SampleError": USAGE,
    "zoo.files.LockedError": USAGE,
    "zoo.files.ExistsError": USAGE,
    "zoo.limits.LimitError": USAGE,
    "zoo.imaging.decode.errors.PictureError": FAILED,
    "zoo.attribution.features.ExplanationError": FAILED,
    "zoo.serving.requests.BusyError": FAILED,
}
