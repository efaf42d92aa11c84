"""Waiting requests, in one queue for each client and model, from which batches are taken fairly.

Not thread-safe: the engine guards it with its own lock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np

from zoo.limits import ALL_WAITING, SESSION_WAITING
from zoo.serving.models.loaded import LoadedModel
from zoo.serving.requests import Client, ExplanationRequest, Ticket


@dataclass(frozen=True)
class QueueLimits:
    """Bounds of the waiting requests.

    Attributes:
        per_client: requests of one client and model that may wait.
        total: requests of all clients that may wait.
        timeout: seconds that a client waits for a place in a full queue.
    """

    per_client: int = field(default_factory=lambda: SESSION_WAITING.value)
    total: int = field(default_factory=lambda: ALL_WAITING.value)
    timeout: float = 60.0


@dataclass(eq=False)
class QueuedRequest:
    """A request on its way through the engine.

    Attributes:
        model: network to run.
        pixels: uint8 (3, H, W), as `LoadedModel.pixels` gives it.
        explanation: map that is wanted, or None.
        ticket: future of the answer.
        client: who asked.
        submitted: time of the request, in seconds of `time.monotonic`.
        confidence: 0..1 that the picture shows a cell, for the out-of-distribution check.
    """

    model: LoadedModel
    pixels: np.ndarray
    explanation: ExplanationRequest | None
    ticket: Ticket
    client: Client
    submitted: float
    confidence: float = 1.0


QueueKey = tuple[str, int]  # client's name, id of the model


class ClientQueues:
    """Queues of waiting requests. Clients take turns: the one that was served goes to the end."""

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self._queues: OrderedDict[QueueKey, deque[QueuedRequest]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, request: QueuedRequest) -> None:
        """Append a request to its client's queue."""
        self._queues.setdefault(_key(request), deque()).append(request)

    def is_full(self, request: QueuedRequest) -> bool:
        """Whether there is no room for this request."""
        waiting = len(self._queues.get(_key(request), ()))
        return waiting >= self.limits.per_client or len(self) >= self.limits.total

    def oldest(self) -> float:
        """Time at which the request that waits longest was submitted."""
        return min(queue[0].submitted for queue in self._queues.values())

    def all_send_more(self) -> bool:
        """Whether each client whose requests wait will send more in a moment."""
        return all(queue[0].client.sends_more() for queue in self._queues.values())

    def ahead_of(self, ticket: Ticket) -> int:
        """Number of requests that are begun before this one; 0 when it is next or not waiting."""
        for key, queue in self._queues.items():
            place = next((number for number, request in enumerate(queue) if request.ticket is ticket), None)
            if place is not None:
                # clients take turns: of every other queue as many go first as of this one
                others = sum(min(len(other), place + 1) for k, other in self._queues.items() if k != key)
                return place + others
        return 0

    def next_batch(self, batch_size: int) -> list[QueuedRequest]:
        """Take the next batch: of the model whose turn it is, one request of each client in turn until it is full."""
        self._drop_abandoned()
        if not self._queues:
            return []
        model = next(iter(self._queues.values()))[0].model
        keys = [key for key in self._queues if key[1] == id(model)]
        batch: list[QueuedRequest] = []
        room = min(batch_size, model.max_batch)
        while len(batch) < room and any(self._queues[key] for key in keys):
            for key in keys:
                if self._queues[key] and len(batch) < room:
                    request = self._queues[key].popleft()
                    if request.ticket.set_running_or_notify_cancel():
                        batch.append(request)
        for key in keys:
            self._queues.move_to_end(key)
            if not self._queues[key]:
                del self._queues[key]
        return batch

    def _drop_abandoned(self) -> None:
        """Remove cancelled requests, and all requests of clients that have gone."""
        for key, queue in list(self._queues.items()):
            # a name may have requests of work that was stopped before ones of work that goes on
            clients = {id(request.client): request.client for request in queue}
            gone = {number for number, client in clients.items() if not client.is_active()}
            for request in queue:
                if id(request.client) in gone:
                    request.ticket.stop()
            left = deque(request for request in queue if not request.ticket.cancelled())
            if left:
                self._queues[key] = left
            else:
                del self._queues[key]


def _key(request: QueuedRequest) -> QueueKey:
    return request.client.name, id(request.model)
