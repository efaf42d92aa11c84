"""Requests to the engine and the futures of their answers.

A `Ticket` is the future of one answer. `mean_answer` and `answer_after` make one ticket of several: for ensembles, for
test-time augmentation, and for explanations that need the answer first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.attribution import DEFAULT, PREDICTED, method_of
from zoo.scores.averages import Mean, mean_probabilities

BATCH_SIZE = 32  # pictures that a network is given at once


class BusyError(RuntimeError):
    """The device cannot answer now; the message says what to do."""


class StoppedError(RuntimeError):
    """The request was cancelled."""


@dataclass(frozen=True)
class Client:
    """A session or command that sends requests.

    Attributes:
        name: requests of one name wait in one queue.
        is_active: whether the client still waits for answers; its requests are dropped when it does not.
        sends_more: whether further requests of the client are on their way, so that a batch may wait for them.
    """

    name: str = ""
    is_active: Callable[[], bool] = field(default=lambda: True, compare=False)
    sends_more: Callable[[], bool] = field(default=lambda: False, compare=False)


@dataclass(frozen=True)
class ExplanationRequest:
    """The map that a client asks for.

    Attributes:
        target: number of the label to explain, or PREDICTED.
        method: a key of `zoo.attribution.METHODS`.
        against: number of the label to set `target` off from; None for all.
        layer: path of the layer to explain; None for the entry's own.
    """

    target: int = PREDICTED
    method: str = DEFAULT
    against: int | None = None
    layer: str | None = None

    @property
    def quick(self) -> bool:
        """Whether whole batches of such requests are computed at once."""
        return method_of(self.method).quick


@dataclass(frozen=True)
class Answer:
    """Result computed for one picture.

    Attributes:
        probabilities: float64 (classes,).
        cam: map (h, w) of the network's input, or None.
        seconds: time that its batch took.
        distance: out-of-distribution distance, see `zoo.serving.ood.familiarity`; None where the entry has no detector.
        backend: the library that ran the network, or several.
        deciding: float64 (classes,), probabilities that decide on acceptance; None where `probabilities` do.
    """

    probabilities: np.ndarray
    cam: np.ndarray | None
    seconds: float
    distance: float | None = None
    backend: str = ""
    deciding: np.ndarray | None = None


class Ticket(Future[Any]):
    """The future of an answer, with its progress and a way to cancel it; it may stand for several `parts`."""

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
        """Set the share that is done, 0..1."""
        self._share = share

    def stop(self) -> None:
        """Cancel the request: the step that runs is finished, no other is begun."""
        self.stopped = True
        self.cancel()
        for part in self.parts:
            part.stop()


def mean_answer(
    tickets: Sequence[Ticket],
    weights: Sequence[float] | None = None,
    read: Callable[[int, np.ndarray], np.ndarray] = lambda _, probabilities: probabilities,
    mean_of: Mean = "arithmetic",
    deciding: int | None = None,
) -> Ticket:
    """Make one ticket for the weighted mean of several answers.

    A picture is as far from the training data as from those of the model that it is farthest from: that model's share
    of the mean is as doubtful as it is alone.

    Args:
        tickets: tickets of the answers.
        weights: one for each ticket; None for equal weights.
        read: maps (number of the ticket, probabilities) to the probabilities to average.
        mean_of: how they are averaged.
        deciding: number of the ticket whose probabilities decide on acceptance; None where the mean does.
    """
    whole = Ticket()
    whole.set_running_or_notify_cancel()

    def mean() -> Answer:
        answers: list[Answer] = [ticket.result() for ticket in tickets]
        known = [answer.distance for answer in answers if answer.distance is not None]
        distance = max(known) if len(known) == len(answers) else None
        parts = [read(number, answer.probabilities) for number, answer in enumerate(answers)]
        seconds = max(answer.seconds for answer in answers)
        backend = ", ".join(sorted({answer.backend for answer in answers}))
        decides = None if deciding is None else parts[deciding]
        return Answer(mean_probabilities(parts, weights, mean_of), None, seconds, distance, backend, decides)

    _when_all(tickets, mean, whole)
    return whole


def answer_after(
    first: Ticket, send: Callable[[Answer], list[Ticket]], join: Callable[[Answer, list[Answer]], Answer]
) -> Ticket:
    """Make one ticket for work that needs an answer first.

    Args:
        first: ticket of the answer.
        send: sends the further requests once that answer is known; must not wait.
        join: makes the final answer of the first and the further ones.
    """
    ticket = Ticket()
    ticket.set_running_or_notify_cancel()

    def known(_: Future[Answer]) -> None:
        try:
            if ticket.stopped:
                raise StoppedError("This explanation was stopped.")
            answer = first.result()
            parts = send(answer)
        except BaseException as error:
            ticket.set_exception(error)
            return
        _when_all(parts, lambda: join(answer, [part.result() for part in parts]), ticket)

    first.add_done_callback(known)
    return ticket


def wait_for(ticket: Ticket, watch: Callable[[Ticket], None] | None, interval: float) -> Answer:
    """Wait for an answer, calling `watch` every `interval` seconds. An error that ends the waiting cancels the work."""
    try:
        while True:
            try:
                return ticket.result(interval if watch else None)
            except TimeoutError:
                if watch is None or ticket.done():
                    raise
                watch(ticket)
    except BaseException:
        ticket.stop()
        raise


def _when_all(tickets: Sequence[Ticket], make: Callable[[], Answer], whole: Ticket) -> None:
    """Set the result of `whole` once all tickets are done; they become its parts."""
    left = threading.Semaphore(len(tickets) - 1)
    whole.parts = tuple(tickets)

    def arrived(_: Future[Answer]) -> None:
        if left.acquire(blocking=False):
            return  # others are still to come
        try:
            whole.set_result(make())
        except BaseException as error:
            whole.set_exception(error)

    for ticket in tickets:
        ticket.add_done_callback(arrived)
