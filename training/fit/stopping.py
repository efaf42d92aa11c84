"""Ways in which training ends before its last epoch: errors with advice, and Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from tqdm import tqdm

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

STEP_SECONDS = 1.5  # that a step may take after it was told to stop
WITHIN_A_STEP = (
    "Stopped within a step, which could not be waited for. Give the same command with --resume to continue from what "
    "was saved before, once a minute and after each epoch."
)
HAS_ALARM = hasattr(signal, "setitimer")  # Windows has none


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
    """Turn the first Ctrl-C or SIGTERM into a flag, so that no step is interrupted; a second one stops at once.

    A step that takes longer than STEP_SECONDS after it is given up; what was saved before it is kept.

    Yields:
        A function that tells whether to stop. Outside the main thread, which alone receives signals, it is always
        False.

    Raises:
        TrainingStopped: A step took too long, or its workers were ended too.
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
        _set_alarm(STEP_SECONDS)
        if HAS_ALARM:  # where SIGTERM goes to the workers too, torch would raise an error for their end, at any time
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        tqdm.write("Stopping after this step; the state is saved. Press Ctrl-C again to stop at once.", file=sys.stderr)

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TrainingStopped(WITHIN_A_STEP)

    def told() -> bool:
        if interrupted:
            _set_alarm(0)
        return interrupted

    handlers = {signal.SIGINT: note, signal.SIGTERM: note} | ({signal.SIGALRM: give_up} if HAS_ALARM else {})
    try:
        with _handled(handlers):
            yield told
    except (RuntimeError, ConnectionError, EOFError) as error:
        if not interrupted:
            raise
        # the step waited for a picture of a worker that was told to end too
        raise TrainingStopped(WITHIN_A_STEP) from error


@contextmanager
def _handled(handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    """Handle signals in the block, by their number."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        _set_alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def without_interruption() -> Iterator[None]:
    """Let no step be given up in the block, which writes a checkpoint."""
    if not HAS_ALARM:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _set_alarm(seconds: float) -> None:
    """Give the running step up after some seconds; 0: do not."""
    if HAS_ALARM:
        signal.setitimer(signal.ITIMER_REAL, seconds)
