"""Ways in which training ends before its last epoch: errors with advice, and Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from tqdm import tqdm


class TrainingStopped(Exception):
    """Training was stopped before its last epoch; the message says where and how to continue."""


class FitError(ValueError):
    """Training cannot continue; the message says where, what is kept and what to change."""


class DivergedError(FitError):
    """The loss is no longer a number."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of the GPU, is exhausted."""
    text = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
    )


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag, so that no step is interrupted; a second one stops at once.

    Yields:
        A function that tells whether Ctrl-C was pressed. Outside the main thread, which alone receives signals, it is
        always False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    interrupted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        tqdm.write("Stopping after this step; the state is saved. Press Ctrl-C again to stop at once.", file=sys.stderr)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: interrupted
    finally:
        signal.signal(signal.SIGINT, before)
