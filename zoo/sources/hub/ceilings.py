"""Ceilings on what the Hub may answer: bytes, requests, seconds, hosts, and headers that name files.

They hold for requests that read, inside `ceiling`. What is published goes to other hosts and takes as long as it takes.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2
from huggingface_hub.errors import HFValidationError
from pydantic import ValidationError

from zoo import limits
from zoo.entry import EntryError
from zoo.sources.hub.schema import File

HOSTS_VARIABLE = "HEMAZOO_HUB_HOSTS"  # further hosts that a Hub may send on to, separated by commas
MAX_REQUESTS = 1000
SLACK_BYTES = 100_000  # of an answer that is no file, such as an error
HUB_HOSTS = ("huggingface.co", "hf.co")  # with all hosts below them
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHA = re.compile(r"[0-9a-f]{40}")
ETAG = re.compile(r'(?:W/)?"?[A-Za-z0-9_+=:-]{0,200}"?')  # becomes a file's name in huggingface_hub's cache
RATE_LIMIT_SECONDS = re.compile(r"(?:^|;\s*t=)(\d+)")


class CeilingError(Exception):
    """An answer of the Hub beyond a ceiling; the message is the end of a sentence for the user."""


@dataclass
class Ceiling:
    """Amounts that may still be read.

    Attributes:
        max_bytes: Of one answer.
        end: Moment (of time.monotonic) after which nothing is read.
        seconds: Length of that time.
        file: The file that is read, as it was listed; None for other answers.
        left: Bytes of all answers.
        requests: Requests so far.
    """

    max_bytes: int
    end: float
    seconds: float
    left: int
    file: File | None = None
    requests: int = 0
    outer: Ceiling | None = None

    def check_time(self) -> None:
        """Raise CeilingError if the time is over."""
        if time.monotonic() > self.end:
            raise CeilingError(f"the Hub took longer than {self.seconds:g} seconds. Try again later.")
        if self.outer:
            self.outer.check_time()

    def take(self, count: int) -> None:
        """Count bytes that have arrived. Raises CeilingError if they are too many, or too late."""
        self.left -= count
        if self.left < 0:
            raise CeilingError("the Hub sent more bytes than are read.")
        self.check_time()
        if self.outer:
            self.outer.take(count)


_current = threading.local()  # `ceiling`: of this thread


@contextmanager
def ceiling(
    max_bytes: int,
    seconds: float,
    file: File | None = None,
    outer: Ceiling | None = None,
    total: int | None = None,
) -> Iterator[Ceiling]:
    """Bound what this thread reads from the Hub while the block lasts.

    Args:
        max_bytes: Of one answer.
        seconds: For all of it.
        file: The file that is read.
        outer: A further ceiling, perhaps of several threads; by default the one that holds now.
        total: Bytes of all answers; by default any number that comes in time.
    """
    before: Ceiling | None = getattr(_current, "ceiling", None)
    end = time.monotonic() + seconds
    left = MAX_REQUESTS * max_bytes if total is None else total
    _current.ceiling = Ceiling(max_bytes, end, seconds, left, file, outer=outer or before)
    try:
        yield _current.ceiling
    finally:
        _current.ceiling = before


@contextmanager
def answer_ceiling() -> Iterator[None]:
    """Bound what this thread reads from the Hub's interface while the block lasts.

    Raises:
        CeilingError: Also where an answer is not of the expected form.
    """
    with ceiling(limits.HUB_ANSWER_MB.bytes, limits.HUB_ANSWER.exact):
        try:
            yield
        except (EntryError, ValidationError, HFValidationError):
            raise
        # the client takes every answer for the one that it expects
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise CeilingError("the Hub's answer has an unknown format.") from error


def check_request(request: httpx2.Request) -> None:
    """Refuse a request, also one that an answer sends on, to a host that is not the Hub's. Raises CeilingError."""
    found: Ceiling | None = getattr(_current, "ceiling", None)
    if found is None:
        return
    found.check_time()
    found.requests += 1
    if found.requests > MAX_REQUESTS:
        raise CeilingError(f"the Hub needed more than {MAX_REQUESTS:,} requests.")
    if not _is_hub(request.url.scheme, request.url.host):
        raise CeilingError(
            f"the Hub sends on to {request.url.host[:100]}, which is not asked. "
            f"If that host is right, name it in {HOSTS_VARIABLE}."
        )
    # what is packed could unpack without end
    request.headers["Accept-Encoding"] = "identity"


def check_response(response: httpx2.Response) -> None:
    """Refuse an answer that is too large, packed, of another file, or names odd files. Raises CeilingError."""
    found: Ceiling | None = getattr(_current, "ceiling", None)
    if found is None:
        return
    headers = response.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        raise CeilingError("the Hub sent a packed answer that was not asked for.")
    size = headers.get("Content-Length", "")
    if response.request.method != "HEAD" and size.isdecimal() and int(size[:30]) > found.max_bytes:
        raise CeilingError(f"the Hub sends {int(size[:30]):,} bytes; at most {found.max_bytes:,} are read.")
    _check_names(headers)
    if response.status_code == 429:
        _check_wait(headers, found.end - time.monotonic())
    if found.file and response.request.method == "HEAD" and "X-Repo-Commit" in headers and response.status_code < 400:
        _check_file(headers, found.file)
    if isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _Counted(response.stream, found)


def _check_names(headers: httpx2.Headers) -> None:
    """Refuse headers that huggingface_hub would make paths of. Raises CeilingError."""
    sound = SHA.fullmatch(headers.get("X-Repo-Commit", "0" * 40)) is not None
    if not sound or not all(ETAG.fullmatch(headers.get(name, "")) for name in ("ETag", "X-Linked-Etag")):
        raise CeilingError("the Hub names a file or commit by no digest.")


def _check_wait(headers: httpx2.Headers, left: float) -> None:
    """Refuse to wait for longer than is left. Raises CeilingError."""
    texts = (headers.get("Retry-After", ""), headers.get("RateLimit", ""))
    waits = [int(number[:12]) for text in texts for number in RATE_LIMIT_SECONDS.findall(text)]
    if waits and max(waits) > left:
        raise CeilingError(f"the Hub has a rate limit. Try again in {max(waits)} seconds.")


def _check_file(headers: httpx2.Headers, file: File) -> None:
    """Refuse a file of another digest or size than listed. Raises CeilingError."""
    etag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    size = headers.get("X-Linked-Size") or (None if "Location" in headers else headers.get("Content-Length"))
    if etag != file.oid or (size is not None and size != str(file.size)):
        raise CeilingError("the Hub has another file than it listed. Refresh the list.")


class _Counted(httpx2.SyncByteStream):
    """An answer's body, counted while it arrives."""

    def __init__(self, stream: httpx2.SyncByteStream, found: Ceiling) -> None:
        self.stream, self.found = stream, found

    def __iter__(self) -> Iterator[bytes]:
        count = 0
        for chunk in self.stream:
            count += len(chunk)
            if count > self.found.max_bytes:
                raise CeilingError(f"the Hub sends more than the {self.found.max_bytes:,} bytes that are read.")
            self.found.take(len(chunk))
            yield chunk

    def close(self) -> None:
        self.stream.close()


def _is_hub(scheme: str, host: str) -> bool:
    """Whether a host is the Hub that is used now, one that it keeps files on, or one that the owner allows."""
    from zoo.sources.hub.client import endpoint  # noqa: PLC0415 (the client calls this module)

    asked = urlsplit(endpoint())
    if asked.scheme == "https" and scheme != "https":
        return False
    own = asked.hostname or ""
    allowed = {own, *(name.strip() for name in os.environ.get(HOSTS_VARIABLE, "").split(",") if name.strip())}
    if host in allowed or (own in LOOPBACK and host in LOOPBACK):
        return True
    return scheme == "https" and any(_is_below(host, name) for name in HUB_HOSTS)


def _is_below(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")
