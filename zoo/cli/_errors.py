"""Exit statuses of the errors that the zoo's commands report in one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.attribution import ExplanationError
from zoo.cli.common import FAILED, USAGE
from zoo.entry import EntryError
from zoo.imaging.decode import ImageError
from zoo.serving.bulk import BulkError
from zoo.serving.runtime import BusyError

EXIT_STATUS: Mapping[type[Exception], int] = {
    EntryError: USAGE,
    BulkError: USAGE,
    ImageError: FAILED,
    ExplanationError: FAILED,
    BusyError: FAILED,
}
