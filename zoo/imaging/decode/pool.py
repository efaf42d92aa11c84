"""Decode workers of this process: started when first needed, replaced when they die. Safe to share between threads."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from zoo.imaging.decode.errors import PictureError
from zoo.imaging.decode.formats import NAMES, Format
from zoo.imaging.decode.headers import Header
from zoo.imaging.decode.reading import Picture
from zoo.imaging.decode.worker import receive, send
from zoo.limits import DECODE_MB, DECODE_SECONDS
from zoo.threads import usable_processors

MAX_WORKERS = max(1, min(4, usable_processors()))
START_SECONDS = 120  # on a busy machine
BASE_SECONDS, SECONDS_PER_MEGAPIXEL = 1.5, 0.4  # of CPU time
BASE_BYTES, BYTES_PER_PIXEL = 250_000_000, 32
WALL_FACTOR = 5  # seconds on the clock for a second of CPU time: other processes work too
SLOW = "The picture takes too long to decode: it is damaged or made to exhaust the machine. Export it again as {}."
CRASHED = "The decoder broke down over this file: it is damaged. Export it again as {}."
NO_WORKER = "This kind of picture is decoded in a process of its own, which cannot be started here. Export it as {}."


class _Worker:
    """One process."""

    def __init__(self) -> None:
        root = str(Path(__file__).parents[3])
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
            "MALLOC_ARENA_MAX": "2",  # each arena of a thread would count as 64 MB
            "OPENBLAS_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zoo.imaging.decode.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries quote the file
            env=environment,
        )
        self.used = False
        self.late = False
        self._watched(START_SECONDS, lambda: None)

    def ask(self, request: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait for its answer. Raises EOFError or OSError if the process ends before."""
        self.used = True
        return self._watched(WALL_FACTOR * request["seconds"], lambda: send(self._stdin, request, raw))

    def end(self) -> int:
        """End the process; returns its status."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with suppress(OSError):  # what was not sent yet
                    stream.close()
        return self.process.wait()

    @property
    def _stdin(self) -> Any:
        return self.process.stdin

    def _watched(self, seconds: float, send_first: Callable[[], None]) -> tuple[dict[str, Any], bytes]:
        timer = threading.Timer(seconds, self._too_late)
        timer.daemon = True
        timer.start()
        try:
            send_first()
            if self.process.stdout is None:
                raise EOFError
            return receive(self.process.stdout)
        finally:
            timer.cancel()

    def _too_late(self) -> None:
        self.late = True
        self.process.kill()


class Pool:
    """Workers that wait for a request, and a bound on how many work at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._places = threading.BoundedSemaphore(MAX_WORKERS)

    def read(self, raw: bytes, kind: Format, header: Header, page: int | None) -> Picture:
        """Decode a file in a worker. Raises PictureError."""
        answer, body = self._ask({"task": "read", "format": kind.name, "page": page}, raw, header)
        image = Image.frombytes("RGB", tuple(answer["size"]), body)
        return Picture(image, answer["page"], answer["pages"], tuple(answer["notes"]), answer["um_per_px"])

    def list_pages(self, raw: bytes, kind: Format, header: Header) -> tuple[int, bool]:
        """Count the pages of a file in a worker, and say whether they are one stack. Raises PictureError."""
        answer, _ = self._ask({"task": "list", "format": kind.name, "page": None}, raw, header)
        return answer["pages"], answer["stack"]

    def close(self) -> None:
        """End all workers that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def _ask(self, request: dict[str, Any], raw: bytes, header: Header) -> tuple[dict[str, Any], bytes]:
        megapixels = max(header.cost, len(raw)) / 1e6
        request |= {
            "seconds": min(BASE_SECONDS + SECONDS_PER_MEGAPIXEL * megapixels, DECODE_SECONDS.exact),
            "memory": int(min(BASE_BYTES + BYTES_PER_PIXEL * 1e6 * megapixels, DECODE_MB.bytes)),
        }
        with self._places:
            answer, body = self._answered(request, raw)
        if "error" in answer:
            raise PictureError(answer["error"])
        return answer, body

    def _answered(self, request: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
        while True:
            worker = self._take()
            waited = worker.used
            try:
                answer = worker.ask(request, raw)
            except (OSError, EOFError, ValueError, KeyError, json.JSONDecodeError) as error:
                status = worker.end()
                if waited and status == 0:
                    continue  # it had just ended, as idle and large workers do
                slow = worker.late or (sys.platform != "win32" and status == -signal.SIGPROF)
                raise PictureError((SLOW if slow else CRASHED).format(NAMES)) from error
            with self._lock:
                self._idle.append(worker)
            return answer

    def _take(self) -> _Worker:
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                break
            if worker.process.poll() is None:
                return worker
            worker.end()
        try:
            return _Worker()
        except (OSError, EOFError, ValueError) as error:
            raise PictureError(NO_WORKER.format(NAMES)) from error


_pools: list[Pool] = []
_lock = threading.Lock()


def shared_pool() -> Pool:
    """The pool of this process."""
    with _lock:
        if not _pools:
            _pools.append(Pool())
        return _pools[0]


def close_workers() -> None:
    """End the workers that wait; the next picture starts new ones."""
    for pool in _pools:
        pool.close()


def _forget() -> None:
    """In a forked process: the parent's workers and locks are not ours."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(close_workers)
