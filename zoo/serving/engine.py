"""Who is answered next when many people ask at once? One thread a device, fair between clients, in batches.

Nothing but that thread ever runs a network, so that predictions and explanations cannot disturb each other. Clients
take turns: five hundred pictures of one do not hold up another's one. Slow explanations go on step by step between the
batches.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from zoo.attribution import PREDICTED
from zoo.serving.loaded import Answer, ExplanationRequest, LoadedModel

BATCH_SIZE = 32
MAX_WAITING_PER_CLIENT = 128  # requests of one client that may wait
MAX_WAITING = 2048  # of all clients
SUBMIT_TIMEOUT = 60.0  # seconds a client waits for a place in a full lane
BATCH_WAIT = 0.002  # seconds a batch that is not full waits for more
REST = 1.0  # seconds without a question after which memory is given back
REMEMBERED = 2000  # requests that speeds are told from
RECENT = 30.0  # seconds over which images a second are counted
LOG = logging.getLogger(__name__)


class BusyError(RuntimeError):
    """What keeps the device from answering; the message says what to do."""


class StoppedError(RuntimeError):
    """Nobody waits for this any more."""


@dataclass(frozen=True)
class Client:
    """Who asks: all requests of one `name` wait in one lane. What nobody is `alive` for is dropped."""

    name: str = ""
    alive: Callable[[], bool] = field(default=lambda: True, compare=False)


class Ticket(Future[Any]):
    """The future of a request, how far it is, and the way to stop it. It may stand for several `parts`."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: Sequence[Ticket] = ()
        self.stopped = False
        self._share = 0.0

    @property
    def progress(self) -> float:
        """Share that is done, 0..1."""
        return sum(part.progress for part in self.parts) / len(self.parts) if self.parts else self._share

    def advance(self, share: float) -> None:
        """Tell how far it is."""
        self._share = share

    def stop(self) -> None:
        """Ask for no answer any more; a step that runs is ended, nothing else begun."""
        self.stopped = True
        self.cancel()
        for part in self.parts:
            part.stop()


@dataclass(frozen=True)
class EngineStatus:
    """What the engine does now: requests waiting, slow ones under way, and of late the mean size of a batch, the median
    and the 95th percentile of seconds from question to answer, and images a second; `answered` since it began.
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
class _Request:
    model: LoadedModel
    pixels: torch.Tensor
    wish: ExplanationRequest | None
    ticket: Ticket
    client: Client
    born: float
    confidence: float = 1.0


@dataclass(eq=False)
class _Slow:
    """Work in steps; `finish` makes the answer of what they return and the seconds they took."""

    request: _Request
    steps: Generator[float, None, Any]
    finish: Callable[[Any, float], Any]
    seconds: float = 0.0


class Engine:
    """The one thread that runs networks on a device. Safe to share between threads."""

    def __init__(self, name: str, batch_size: int = BATCH_SIZE, batch_wait: float = BATCH_WAIT) -> None:
        self.batch_size, self.batch_wait = batch_size, batch_wait
        self._name = name
        self._changed = threading.Condition()
        # a lane for each client and model; whoever was served goes to the end
        self._lanes: OrderedDict[tuple[str, int], deque[_Request]] = OrderedDict()
        self._slow: deque[_Slow] = deque()
        self._now: list[_Request] = []
        self._closing = False
        self._restarts = self._answered = 0
        self._finished: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)  # when, seconds from question to answer
        self._sizes: deque[int] = deque(maxlen=REMEMBERED // 4)
        self._thread = self._begin()

    def submit(
        self,
        model: LoadedModel,
        pixels: torch.Tensor,
        wish: ExplanationRequest | None,
        client: Client,
        wait: bool = True,
        confidence: float = 1.0,
    ) -> Ticket:
        """Queue a picture as `model.pixels` gives it. Raises BusyError if the client's lane, or the queue, stays full.

        Without `wait` there is always room. `confidence` that there is a cell in it, for the gate.
        """
        request = _Request(model, pixels, wish, Ticket(), client, time.monotonic(), confidence)
        key = (client.name, id(model))
        deadline = request.born + SUBMIT_TIMEOUT
        with self._changed:
            while wait and self._is_full(key) and not self._closing:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise BusyError(f"{self.waiting()} requests are waiting. Try again in a minute.")
            if self._closing:
                raise BusyError("The app is being closed.")
            self._lanes.setdefault(key, deque()).append(request)
            self._changed.notify_all()
        return request.ticket

    def _is_full(self, key: tuple[str, int]) -> bool:
        waiting = sum(map(len, self._lanes.values()))
        return len(self._lanes.get(key, ())) >= MAX_WAITING_PER_CLIENT or waiting >= MAX_WAITING

    def work(self, model: LoadedModel, do: Callable[[], Any], client: Client) -> Ticket:
        """Have the thread that owns the model do something with it, between two batches. Raises BusyError."""

        def once() -> Generator[float, None, Any]:
            return do()
            yield

        request = _Request(model, torch.empty(0), None, Ticket(), client, time.monotonic())
        request.ticket.set_running_or_notify_cancel()
        with self._changed:
            if self._closing:
                raise BusyError("The app is being closed.")
            self._slow.append(_Slow(request, once(), lambda found, _: found))
            self._changed.notify_all()
        return request.ticket

    def waiting(self) -> int:
        """How many requests nobody works on yet."""
        with self._changed:
            return sum(map(len, self._lanes.values()))

    def ahead(self, ticket: Ticket) -> int:
        """How many requests will be begun before this one; 0 when it is next or under way."""
        with self._changed:
            for key, lane in self._lanes.items():
                place = next((i for i, request in enumerate(lane) if request.ticket is ticket), None)
                if place is not None:
                    # clients take turns: of every other lane as many go first as of this one
                    others = sum(min(len(other), place + 1) for k, other in self._lanes.items() if k != key)
                    return place + others
        return 0

    def status(self) -> EngineStatus:
        """What the engine does now."""
        with self._changed:
            waiting, slow = sum(map(len, self._lanes.values())), len(self._slow)
            finished, sizes = list(self._finished), list(self._sizes)
        seconds = [took for _, took in finished]
        now = time.monotonic()
        recent = [at for at, _ in finished if now - at < RECENT]
        span = now - recent[0] if len(recent) > 1 else RECENT
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

    def _begin(self) -> threading.Thread:
        thread = threading.Thread(target=self._live, name=self._name, daemon=True)
        thread.start()
        return thread

    def _live(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            self._die(error)

    def _die(self, error: BaseException) -> None:
        """Tell everybody whose request was being worked on, and let a new thread go on with the others."""
        LOG.error("the worker of %s ended", self._name, exc_info=error)
        said = BusyError(
            f"The worker that ran this model ended unexpectedly ({type(error).__name__}); a new one took its place. "
            "Try again."
        )
        with self._changed:
            hit = [*self._now, *(slow.request for slow in self._slow)]
            self._now, self._restarts = [], self._restarts + 1
            self._slow.clear()
            self._thread = self._begin()
        for request in hit:
            if not request.ticket.done():
                request.ticket.set_exception(said)

    def _turn(self) -> bool:
        """A batch, and a step of a slow explanation; False when all is done and no more will come."""
        rested = False
        with self._changed:
            while not self._lanes and not self._slow:
                if self._closing:
                    return False
                if not self._changed.wait(None if rested else REST):
                    rested = True
                    give_back()
            self._gather()
            requests = self._now = self._pick()
            self._changed.notify_all()  # there is room in the lanes again
        if requests:
            self._answer(requests)
        self._now = []
        if self._slow:
            self._step(self._slow[0])
            with self._changed:
                self._slow.rotate(-1)
        return True

    def _gather(self) -> None:
        """Wait a moment for a fuller batch, if nothing else is to be done."""
        if not self._lanes or self._slow:
            return
        deadline = min(lane[0].born for lane in self._lanes.values()) + self.batch_wait
        while sum(map(len, self._lanes.values())) < self.batch_size and not self._closing:
            left = deadline - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                return

    def _pick(self) -> list[_Request]:
        """The next batch: of the model whose turn it is, one request of each client in turn until it is full."""
        for key, lane in list(self._lanes.items()):
            # a client may have gone, or given up a request, while it was waiting
            if not lane[0].client.alive():
                for request in lane:
                    request.ticket.stop()
            left = deque(request for request in lane if not request.ticket.cancelled())
            if left:
                self._lanes[key] = left
            else:
                del self._lanes[key]
        if not self._lanes:
            return []
        model = next(iter(self._lanes.values()))[0].model
        keys = [key for key in self._lanes if key[1] == id(model)]
        picked: list[_Request] = []
        room = min(self.batch_size, model.max_batch)
        while len(picked) < room and any(self._lanes[key] for key in keys):
            for key in keys:
                if self._lanes[key] and len(picked) < room:
                    request = self._lanes[key].popleft()
                    if request.ticket.set_running_or_notify_cancel():
                        picked.append(request)
        for key in keys:
            self._lanes.move_to_end(key)
            if not self._lanes[key]:
                del self._lanes[key]
        return picked

    def _answer(self, requests: list[_Request]) -> None:
        """Run a batch. What fails in company is tried alone; what does not fit into memory, in halves."""
        model = requests[0].model
        try:
            answers = model.run(
                [r.pixels for r in requests], [r.wish for r in requests], [r.confidence for r in requests]
            )
        except Exception as error:
            if len(requests) == 1:
                requests[0].ticket.set_exception(_in_words(error, model))
                return
            size = 1
            if is_out_of_memory(error):
                size = model.max_batch = (len(requests) + 1) // 2
                LOG.warning("%s: %d pictures do not fit into memory, %d are tried", model.entry.id, len(requests), size)
                _free(model)
            for start in range(0, len(requests), size):
                self._answer(requests[start : start + size])
            return
        self._sizes.append(len(requests))
        for request, answer in zip(requests, answers, strict=True):
            if request.wish is None or request.wish.quick:
                self._finish(request, answer)
            else:
                self._begin_slow(request, answer)

    def _begin_slow(self, request: _Request, answer: Answer) -> None:
        wish = request.wish
        if wish is None:
            return
        if wish.target == PREDICTED:
            wish = replace(wish, target=int(answer.probabilities.argmax()))

        def finish(cam: np.ndarray, seconds: float) -> Answer:
            return replace(answer, cam=cam, seconds=answer.seconds + seconds)

        with self._changed:
            self._slow.append(_Slow(request, request.model.steps(request.pixels, wish), finish))

    def _step(self, slow: _Slow) -> None:
        """One step of a slow explanation, or its end."""
        request, start = slow.request, time.perf_counter()
        self._now = [request]
        try:
            if request.ticket.stopped or not request.client.alive():
                raise StoppedError("This explanation was stopped.")
            request.ticket.advance(next(slow.steps))
            slow.seconds += time.perf_counter() - start
            return
        except StopIteration as end:
            request.ticket.advance(1.0)
            self._finish(request, slow.finish(end.value, slow.seconds + time.perf_counter() - start))
        except Exception as error:
            slow.steps.close()
            request.ticket.set_exception(_in_words(error, request.model))
        finally:
            self._now = []
        with self._changed:
            self._slow.remove(slow)
            self._slow.rotate(1)  # the client moves on by one

    def _finish(self, request: _Request, answer: Any) -> None:
        now = time.monotonic()
        self._finished.append((now, now - request.born))
        self._answered += 1
        request.ticket.set_result(answer)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _in_words(error: Exception, model: LoadedModel) -> Exception:
    if is_out_of_memory(error):
        _free(model)
        return BusyError(
            f"{model.entry.id} does not fit into the memory that is left, even with one picture at a time. Choose a "
            "smaller model, or try again when fewer models are in use."
        )
    if isinstance(error, torch.AcceleratorError):
        return BusyError(f"The GPU reported an error ({str(error).splitlines()[0]}). The app must be started anew.")
    return error


def _free(model: LoadedModel) -> None:
    if model.device.type == "cuda":
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


def give_back() -> None:
    """Let the C library give memory that is free back to the system; left alone it keeps what many threads used."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
