"""Progress bars: tqdm's in a terminal; elsewhere (a file, a pipe, a service's log) one plain line every few seconds."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

LINE_SECONDS = 5.0  # between two lines; what is done earlier prints none
COUNTED = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt} {unit}s, {remaining} left{postfix}"
SHARE = "{desc}: {percentage:.0f} %, {remaining} left{postfix}"  # of what is counted in percent


def progress_bar(iterable: Iterable | None = None, description: str = "", **options: Any) -> tqdm:
    """Make a progress bar on stderr.

    Args:
        iterable: What is gone through; None where the caller updates the bar.
        description: What is done.
        options: Further options of tqdm: `total`, `unit`, `initial`, `disable`.
    """
    if sys.stderr.isatty():
        return tqdm(iterable, description, smoothing=0.05, **options)
    lines: Any = _Lines(sys.stderr)
    return tqdm(
        iterable,
        description,
        file=lines,
        bar_format=SHARE if options.get("unit") == "%" else COUNTED,
        delay=LINE_SECONDS,
        mininterval=LINE_SECONDS,
        miniters=1,
        **options,
    )


class _Lines(io.TextIOBase):
    """Writes what tqdm draws over and over as lines, each once."""

    def __init__(self, target: TextIO) -> None:
        self.target, self.last = target, ""

    def write(self, text: str) -> int:
        """Write one state of a bar as a line."""
        line = text.strip()
        if line and line != self.last:
            self.target.write(f"{line}\n")
            self.last = line
        return len(text)

    def flush(self) -> None:
        """Flush the target."""
        self.target.flush()


def duration(seconds: float) -> str:
    """A time in words, as exact as an estimate can be.

    Example:
        >>> duration(200)
        '3 minutes'
    """
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} seconds"
    if seconds < 5400:
        minutes = max(1, round(seconds / 60))
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{seconds / 3600:.1f} hours"
