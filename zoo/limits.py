"""Limits of size, number, time and memory, in one place.

Each can be changed by an environment variable, `HEMAZOO_` and its name; docs/operations.md lists them all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

MB = 1_000_000
PREFIX = "HEMAZOO_"
SECONDS = "seconds"  # unit of the limits that may be fractions


class LimitError(ValueError):
    """An environment variable of a limit that is no positive number; the message is a sentence for the owner."""


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        name: Name of the constant below; the environment variable is `HEMAZOO_` and this name.
        default: Value without the environment variable.
        unit: Unit of the value.
        bounds: Quantity that is limited, for people.
    """

    name: str
    default: int
    unit: str
    bounds: str

    @property
    def variable(self) -> str:
        """Environment variable that changes the limit."""
        return PREFIX + self.name

    @property
    def value(self) -> int:
        """Value that holds now. Raises LimitError where the environment variable is no number from 1."""
        return int(self.exact)

    @property
    def exact(self) -> float:
        """Value with its fraction, as of a time in seconds. Raises LimitError as `value` does."""
        text = os.environ.get(self.variable, "").strip()
        try:
            number = float(text) if text else float(self.default)
        except ValueError:
            number = math.nan
        if not (0 < number < math.inf) or (self.unit != SECONDS and number < 1):
            raise LimitError(f"{self.variable} is {text!r}: give a number above 0 ({self.unit}).")
        return number

    @property
    def bytes(self) -> int:
        """Value of a limit in MB, in bytes."""
        return round(MB * self.exact)


PICTURE_MB = Limit("PICTURE_MB", 100, "MB", "picture file; set the browser's limit (maxUploadSize) to match")
PICTURE_MEGAPIXELS = Limit("PICTURE_MEGAPIXELS", 49, "megapixels", "size of a picture")
PICTURE_RATIO = Limit("PICTURE_RATIO", 1500, "times", "decoded over stored size of a picture")
JPEG_SCANS = Limit("JPEG_SCANS", 100, "scans", "scans of a progressive JPEG")
TIFF_PAGES = Limit("TIFF_PAGES", 5000, "pages", "pages of a TIFF, levels of pyramids included")
STACK_SLICES = Limit("STACK_SLICES", 50, "slices", "slices of a stack among which the sharpest is sought")
DECODE_SECONDS = Limit("DECODE_SECONDS", 40, SECONDS, "processor time of a decode worker for one picture")
DECODE_MB = Limit("DECODE_MB", 2500, "MB", "memory of a decode worker for one picture")
DECODED_MB = Limit("DECODED_MB", 500, "MB", "decoded pictures that the pages keep for all sessions")
DATA_MB = Limit("DATA_MB", 1000, "MB", "arrays of a data set that are kept for its pictures, for each kind of file")
MAPS_MB = Limit("MAPS_MB", 200, "MB", "explanation maps that a session keeps")
KEPT_MB = Limit("KEPT_MB", 2000, "MB", "reviews kept on the server's disk; the oldest are erased")
ALIKE_MB = Limit("ALIKE_MB", 200, "MB", "vectors of known cells on disk; the least recently used are removed")
ANSWERS_MB = Limit("ANSWERS_MB", 100, "MB", "found cells and their answers that a session keeps")
SESSION_PICTURES = Limit("SESSION_PICTURES", 1000, "pictures", "pictures that a session keeps")
SESSION_MB = Limit("SESSION_MB", 500, "MB", "memory for the pictures of a session")
ALL_SESSIONS_MB = Limit("ALL_SESSIONS_MB", 4000, "MB", "memory for the pictures of all sessions")
SESSION_WAITING = Limit("SESSION_WAITING", 128, "requests", "waiting requests of a session for one model")
ALL_WAITING = Limit("ALL_WAITING", 2048, "requests", "waiting requests of all sessions")
REQUEST_MB = Limit("REQUEST_MB", 200, "MB", "request to `zoo serve`")
REQUEST_FILES = Limit("REQUEST_FILES", 500, "files", "files of a request to `zoo serve`")
UPLOADS_MB = Limit("UPLOADS_MB", 1000, "MB", "requests to `zoo serve` that are in memory at once")
MODELS_MB = Limit("MODELS_MB", 4000, "MB", "loaded models; the least recently used are unloaded")
CONVERTED_MB = Limit("CONVERTED_MB", 2000, "MB", "converted networks on disk; the least recently used are removed")
CONVERTED_WAIT = Limit("CONVERTED_WAIT", 120, SECONDS, "wait for another process that converts the same network")
BACKEND_TRIAL = Limit("BACKEND_TRIAL", 2, SECONDS, "comparison of a backend's speed with torch's")
PARAMETERS = Limit("PARAMETERS", 1_000_000_000, "parameters", "size of a network")
INPUT_SIDE = Limit("INPUT_SIDE", 1024, "pixels", "side of a network's input")
WINDOW_SIDE = Limit("WINDOW_SIDE", 64, "positions", "side of a network's attention windows")
ACTIVATIONS_MB = Limit("ACTIVATIONS_MB", 4000, "MB", "results of a network's operations for one picture")
MODEL_CHECK = Limit("MODEL_CHECK", 120, SECONDS, "check of a network before it is built")
HEAD_MB = Limit("HEAD_MB", 200, "MB", "unpacked classical head of an entry")
JSON_MB = Limit("JSON_MB", 20, "MB", "JSON file of an entry")
PREDICTION_ROWS = Limit("PREDICTION_ROWS", 2_000_000, "rows", "rows of a prediction table")
PREDICTION_MB = Limit("PREDICTION_MB", 500, "MB", "unpacked prediction table")
HUB_TIMEOUT = Limit("HUB_TIMEOUT", 20, SECONDS, "one response of the Hub")
HUB_ANSWER = Limit("HUB_ANSWER", 60, SECONDS, "one request to the Hub with its answer; a file may take longer")
HUB_ANSWER_MB = Limit("HUB_ANSWER_MB", 20, "MB", "one answer of the Hub that is no file")
HUB_RATE = Limit("HUB_RATE", 20, "kB/s", "slowest download of a file that is waited for")
HUB_FILES = Limit("HUB_FILES", 1000, "files", "files of one model on the Hub")
HUB_LISTING = Limit("HUB_LISTING", 300, SECONDS, "reading of all models of a place on the Hub")
HUB_LISTING_MB = Limit("HUB_LISTING_MB", 500, "MB", "files read for all models of a place on the Hub")
HUB_REPOS = Limit("HUB_REPOS", 200, "repositories", "models of one namespace or collection that are listed")
FREE_DISK_MB = Limit("FREE_DISK_MB", 100, "MB", "disk space that must stay free after a download")
REPORT_MB = Limit("REPORT_MB", 300, "MB", "file of a data-set audit that is opened")
SET_FILES = Limit("SET_FILES", 1_000_000, "files", "files of a data set, in a folder or archive")
SET_LEVELS = Limit("SET_LEVELS", 50, "levels", "folders in folders of a data set")
ARCHIVE_MB = Limit("ARCHIVE_MB", 100_000, "MB", "unpacked content of a data set's archive")
ARCHIVE_RATIO = Limit("ARCHIVE_RATIO", 200, "times", "content of an archive to its size, from 100 MB on")
PACKED_MB = Limit("PACKED_MB", 50_000, "MB", "decoded pictures of data sets that are kept in the cache folder")
FEATURES_MB = Limit("FEATURES_MB", 20_000, "MB", "features of frozen backbones that are kept in the cache folder")
TABLE_MB = Limit("TABLE_MB", 500, "MB", "table or annotation file of a data set")
TRIAL_SECONDS = Limit("TRIAL_SECONDS", 20, SECONDS, "trial of number and memory formats before a training")
TABLE_ROWS = Limit("TABLE_ROWS", 2_000_000, "rows", "rows of a data set's table")
XML_MB = Limit("XML_MB", 20, "MB", "XML annotation of a picture")


def every_limit() -> Iterator[Limit]:
    """All limits, in the order of this module."""
    return (limit for limit in globals().values() if isinstance(limit, Limit))
