"""The engine: one thread that runs all networks of a device, in batches, with clients taking turns.

No other thread ever runs a network, so predictions and explanations cannot disturb each other. Five hundred pictures of
one client do not hold up one picture of another. Slow explanations advance by one step between two batches.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.attribution import PREDICTED
from zoo.lazy import lazy_module
from zoo.serving.client_queues import ClientQueues, QueuedRequest, QueueLimits
from zoo.serving.models.loaded import LoadedModel
from zoo.serving.requests import BATCH_SIZE, Answer, BusyError, Client, ExplanationRequest, StoppedError, Ticket

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

BATCH_WAIT = 0.002  # seconds that a batch which is not full waits for more requests
MORE_WAIT = 0.2  # the same while only clients wait that send more: files that are being read
IDLE_SECONDS = 1.0  # without a request, after which memory is returned to the system
MAX_TIMINGS = 2000  # finished requests from which latencies are computed
RECENT_SECONDS = 30.0  # over which images per second are counted
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineStatus:
    """State of the engine.

    Attributes:
        waiting: requests that nobody works on yet.
        slow: slow explanations under way.
        batch_size: mean size of recent batches.
        p50: median seconds from request to answer.
        p95: 95th percentile of the same.
        images_per_second: of the last RECENT_SECONDS.
        restarts: times that the thread ended and was replaced.
        answered: requests since the start.
    """

    waiting: int
    slow: int
    batch_size: float
    p50: float
    p95: float
    images_per_second: float
    restarts: int
    answered: int = 0


@dataclass(eq=False)
class _SlowWork:
    """Work in steps; `finish` makes the answer of what they return and the seconds they took."""

    request: QueuedRequest
    steps: Generator[float, None, Any]
    finish: Callable[[Any, float], Any]
    seconds: float = 0.0


class Engine:
    """The thread that runs networks on a device. Its methods may be called from any thread."""

    def __init__(
        self,
        name: str,
        batch_size: int = BATCH_SIZE,
        batch_wait: float = BATCH_WAIT,
        limits: QueueLimits | None = None,
    ) -> None:
        self.batch_size, self.batch_wait = batch_size, batch_wait
        self.limits = limits or QueueLimits()
        self._name = name
        self._changed = threading.Condition()
        self._queues = ClientQueues(self.limits)
        self._slow: deque[_SlowWork] = deque()
        self._running: list[QueuedRequest] = []
        self._closing = False
        self._restarts = self._answered = 0
        # (time of the answer, seconds from request to answer)
        self._timings: deque[tuple[float, float]] = deque(maxlen=MAX_TIMINGS)
        self._batch_sizes: deque[int] = deque(maxlen=MAX_TIMINGS // 4)
        self._thread = self._start_thread()

    def submit(
        self,
        model: LoadedModel,
        pixels: np.ndarray,
        explanation: ExplanationRequest | None,
        client: Client,
        wait: bool = True,
        confidence: float = 1.0,
    ) -> Ticket:
        """Queue a picture.

        Args:
            model: network to run.
            pixels: uint8 (3, H, W), as `model.pixels` gives it.
            explanation: map that is wanted, or None.
            client: who asks.
            wait: whether to respect the limits of the queues; False always finds room.
            confidence: 0..1 that there is a cell in the picture, for the out-of-distribution check.

        Returns:
            Ticket of an `Answer`.

        Raises:
            BusyError: the client's queue, or all queues together, stayed full; or the engine is closed.
        """
        request = QueuedRequest(model, pixels, explanation, Ticket(), client, time.monotonic(), confidence)
        deadline = request.submitted + self.limits.timeout
        with self._changed:
            while wait and self._queues.is_full(request) and not self._closing:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise BusyError(f"{self.waiting()} requests are waiting. Try again in a minute.")
            self._check_open()
            self._queues.add(request)
            self._changed.notify_all()
        return request.ticket

    def work(self, model: LoadedModel, do: Callable[[], Any], client: Client) -> Ticket:
        """Call `do` in the thread that owns the model, between two batches. Raises BusyError if closed."""

        def once() -> Generator[float, None, Any]:
            return do()
            yield

        request = QueuedRequest(model, np.empty(0), None, Ticket(), client, time.monotonic())
        request.ticket.set_running_or_notify_cancel()
        with self._changed:
            self._check_open()
            self._slow.append(_SlowWork(request, once(), lambda result, _: result))
            self._changed.notify_all()
        return request.ticket

    def waiting(self) -> int:
        """Number of requests that nobody works on yet."""
        with self._changed:
            return len(self._queues)

    def ahead(self, ticket: Ticket) -> int:
        """Number of requests that are begun before this one; 0 when it is next or under way."""
        with self._changed:
            return self._queues.ahead_of(ticket)

    def status(self) -> EngineStatus:
        """Measure the state of the engine."""
        with self._changed:
            waiting, slow = len(self._queues), len(self._slow)
            timings, sizes = list(self._timings), list(self._batch_sizes)
        seconds = [taken for _, taken in timings]
        now = time.monotonic()
        recent = [at for at, _ in timings if now - at < RECENT_SECONDS]
        span = now - recent[0] if len(recent) > 1 else RECENT_SECONDS
        p50, p95 = np.percentile(seconds, [50, 95]) if seconds else (0.0, 0.0)
        size = float(np.mean(sizes)) if sizes else 0.0
        rate = len(recent) / max(span, 1e-3)
        return EngineStatus(waiting, slow, size, float(p50), float(p95), rate, self._restarts, self._answered)

    def close(self) -> None:
        """Answer what is queued, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _check_open(self) -> None:
        if self._closing:
            raise BusyError("The app is being closed.")

    def _start_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            self._replace_thread(error)

    def _replace_thread(self, error: BaseException) -> None:
        """Fail the requests that were being worked on, and start a new thread for the others."""
        LOG.error("the worker of %s ended", self._name, exc_info=error)
        failure = BusyError(
            f"The worker that ran this model ended unexpectedly ({type(error).__name__}); a new one took its place. "
            "Try again."
        )
        with self._changed:
            lost = [*self._running, *(slow.request for slow in self._slow)]
            self._running, self._restarts = [], self._restarts + 1
            self._slow.clear()
            self._thread = self._start_thread()
        for request in lost:
            if not request.ticket.done():
                request.ticket.set_exception(failure)

    def _turn(self) -> bool:
        """Run a batch and one step of a slow explanation; False when all is done and the engine is closed."""
        rested = False
        with self._changed:
            while not self._queues and not self._slow:
                if self._closing:
                    return False
                if not self._changed.wait(None if rested else IDLE_SECONDS):
                    rested = True
                    return_memory()
            self._fill_batch()
            batch = self._running = self._queues.next_batch(self.batch_size)
            self._changed.notify_all()  # there is room in the queues again
        if batch:
            self._answer(batch)
        self._running = []
        if self._slow:
            self._step(self._slow[0])
            with self._changed:
                self._slow.rotate(-1)
        return True

    def _fill_batch(self) -> None:
        """Wait a moment for a fuller batch, if there is no other work."""
        if not self._queues or self._slow:
            return
        while len(self._queues) < self.batch_size and not self._closing:
            wait = MORE_WAIT if self._queues.all_send_more() else self.batch_wait
            left = self._queues.oldest() + wait - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                return

    def _answer(self, batch: list[QueuedRequest]) -> None:
        """Run a batch. On error, retry its pictures one by one; on out-of-memory, in half batches."""
        model = batch[0].model
        try:
            answers = model.run(
                [r.pixels for r in batch], [r.explanation for r in batch], [r.confidence for r in batch]
            )
        except Exception as error:
            self._retry(batch, error)
            return
        self._batch_sizes.append(len(batch))
        for request, answer in zip(batch, answers, strict=True):
            if request.explanation is None or request.explanation.quick:
                self._finish(request, answer)
            else:
                self._begin_slow(request, request.explanation, answer)

    def _retry(self, batch: list[QueuedRequest], error: Exception) -> None:
        model = batch[0].model
        if len(batch) == 1:
            batch[0].ticket.set_exception(_readable(error, model))
            return
        size = 1
        if is_out_of_memory(error):
            size = model.max_batch = (len(batch) + 1) // 2
            LOG.warning("%s: %d pictures do not fit into memory, %d are tried", model.entry.id, len(batch), size)
            _empty_cache(model)
        for start in range(0, len(batch), size):
            self._answer(batch[start : start + size])

    def _begin_slow(self, request: QueuedRequest, explanation: ExplanationRequest, answer: Answer) -> None:
        if explanation.target == PREDICTED:
            explanation = replace(explanation, target=int(answer.probabilities.argmax()))

        def finish(cam: np.ndarray, seconds: float) -> Answer:
            return replace(answer, cam=cam, seconds=answer.seconds + seconds)

        with self._changed:
            self._slow.append(_SlowWork(request, request.model.steps(request.pixels, explanation), finish))

    def _step(self, slow: _SlowWork) -> None:
        """Take one step of a slow explanation, or end it."""
        request, start = slow.request, time.perf_counter()
        self._running = [request]
        try:
            if request.ticket.stopped or not request.client.is_active():
                raise StoppedError("This explanation was stopped.")
            request.ticket.advance(next(slow.steps))
            slow.seconds += time.perf_counter() - start
            return
        except StopIteration as end:
            request.ticket.advance(1.0)
            self._finish(request, slow.finish(end.value, slow.seconds + time.perf_counter() - start))
        except Exception as error:
            slow.steps.close()
            request.ticket.set_exception(_readable(error, request.model))
        finally:
            self._running = []
        with self._changed:
            self._slow.remove(slow)
            self._slow.rotate(1)  # the caller rotates by one as well

    def _finish(self, request: QueuedRequest, answer: Any) -> None:
        now = time.monotonic()
        self._timings.append((now, now - request.submitted))
        self._answered += 1
        request.ticket.set_result(answer)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def return_memory() -> None:
    """Let the C library return free memory to the system; by itself it keeps what many threads used."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _readable(error: Exception, model: LoadedModel) -> Exception:
    """The error as a sentence for the user, where it is the device's."""
    if is_out_of_memory(error):
        _empty_cache(model)
        return BusyError(
            f"{model.entry.id} does not fit into the memory that is left, even with one picture at a time. Choose a "
            "smaller model, or try again when fewer models are in use."
        )
    if isinstance(error, torch.AcceleratorError):
        return BusyError(f"The GPU reported an error ({str(error).splitlines()[0]}). Restart the app.")
    return error


def _empty_cache(model: LoadedModel) -> None:
    if model.device_name.startswith("cuda"):
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
