"""Error messages for failures of the Hub, the network and the disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pydantic import ValidationError

from zoo.entry import EntryError
from zoo.sources.hub.ceilings import CeilingError
from zoo.sources.hub.client import cache_root, request_timeout

MESSAGES: Sequence[tuple[type[Exception], str]] = (  # the first that fits is used: subclasses stand before their bases
    (
        GatedRepoError,
        "access has to be granted. Ask for it on the repository's page, then log in with `hf auth login`.",
    ),
    (
        RepositoryNotFoundError,
        "there is no such repository, or it is private. If it is yours, log in with `hf auth login`.",
    ),
    (RevisionNotFoundError, "there is no such revision; choose another."),
    (OfflineModeIsEnabled, "not on this computer, and the Hub cannot be reached."),
    (LocalEntryNotFoundError, "not on this computer, and the Hub cannot be reached."),
    (EntryNotFoundError, "the file is not in the repository any more."),
    (HFValidationError, "the Hub does not allow this name."),
    (ValidationError, "the Hub's answer has an unknown format."),
)


@contextmanager
def hub_errors(subject: str) -> Iterator[None]:
    """Turn failures of the Hub, the network and the disk into EntryError.

    Args:
        subject: Repository, place or file that the message begins with.

    Raises:
        EntryError: With a sentence that says what failed and what to do. Other errors pass unchanged.
    """
    try:
        yield
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        raise EntryError(f"{subject}: {message}") from error


def _message(error: Exception) -> str | None:
    """Meaning of an error of the Hub's client; None for any other error."""
    known = next((text for kind, text in MESSAGES if isinstance(error, kind)), None)
    if known:
        return known
    if isinstance(error, CeilingError):
        return str(error)
    if isinstance(error, HfHubHTTPError):
        return _refused(error)
    if isinstance(error, httpx2.TimeoutException):
        return f"the Hub did not answer within {request_timeout():.0f} seconds. Try again later."
    # when several threads lose the connection, one of them closes the client that they share
    closed = isinstance(error, RuntimeError) and "client has been closed" in str(error)
    if closed or isinstance(error, httpx2.HTTPError | ConnectionError):
        return "the Hub cannot be reached. Check the network."
    return _disk_error(error) if isinstance(error, OSError) else None


def _disk_error(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full. Make room, or name another place in HF_HOME."
    return f"cannot be stored in {cache_root()}: {error.strerror or error}."


def _refused(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        return f"the Hub has a rate limit. Try again in {wait or 'some'} seconds."
    if status == 401:
        return "the token is not valid. Log in again with `hf auth login`."
    if status >= 500:
        return f"the Hub has an internal problem ({status}). Try again later."
    return f"the Hub refused ({status})."
