"""Reviews that are kept on the server for a time, each under a secret token, so that a reload loses nothing.

A kept review is the file that "Save review" makes, with its pictures. Its name on the disk is a hash of the token: who
reads the folder's listing cannot open a review in the app.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from zoo.cache import cache_folder
from zoo.files import atomic_path
from zoo.limits import KEPT_MB

VARIABLE = "HEMAZOO_KEEP_REVIEWS"  # hours that a review is kept; 0 keeps none
SPACE = "SPACE_ID"  # environment variable that Hugging Face Spaces set
USUAL_HOURS = 24.0  # where nobody else uses the server
TOKEN_BYTES = 16
TOKEN = re.compile(r"[0-9a-f]{32}")
SUFFIX = ".review.zip"
HOUR_SECONDS = 3600


class KeptError(ValueError):
    """A time to keep reviews that is no number; the message is a sentence for the owner."""


def hours() -> float:
    """Hours that reviews are kept, 0 for not at all: a day by default, and 0 on a shared Space.

    Raises:
        KeptError: The environment variable is no number from 0.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return 0.0 if os.environ.get(SPACE) else USUAL_HOURS
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise KeptError(f"{VARIABLE} is {text!r}: give hours, 0 to keep no reviews.")
    return value


def new_token() -> str:
    """A token of 128 random bits."""
    return secrets.token_hex(TOKEN_BYTES)


def is_token(text: object) -> bool:
    """Whether a text from an address has the form of a token."""
    return isinstance(text, str) and TOKEN.fullmatch(text) is not None


def keep(token: str, data: bytes) -> bool:
    """Keep a review, and drop others that are too old or, the oldest first, that take too much space.

    Returns:
        Whether it is kept: not where it alone is too large, or the disk takes no file.
    """
    if len(data) > KEPT_MB.bytes:
        forget(token)
        return False
    try:
        with atomic_path(_path(token)) as temporary:
            temporary.write_bytes(data)
            temporary.chmod(0o600)
        _path(token).chmod(0o600)
    except OSError:
        return False
    _tidy()
    return True


def find(token: str) -> bytes | None:
    """The review of a token; None if none is kept, or its time is over."""
    path = _path(token)
    try:
        if time.time() - path.stat().st_mtime > HOUR_SECONDS * hours():
            path.unlink()
            return None
        return path.read_bytes()
    except OSError:
        return None


def forget(token: str) -> None:
    """Erase the review of a token."""
    with contextlib.suppress(OSError):
        _path(token).unlink()


def _folder() -> Path:
    return cache_folder() / "reviews"


def _path(token: str) -> Path:
    return _folder() / (hashlib.sha256(token.encode()).hexdigest() + SUFFIX)


def _tidy() -> None:
    """Erase reviews whose time is over, and the oldest of too many."""
    oldest_first = sorted(_kept())
    total = sum(size for _, size, _ in oldest_first)
    for changed, size, path in oldest_first:
        if time.time() - changed > HOUR_SECONDS * hours() or total > KEPT_MB.bytes:
            path.unlink(missing_ok=True)
            total -= size


def _kept() -> Iterator[tuple[float, int, Path]]:
    for path in _folder().glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):  # another process may erase it meanwhile
            facts = path.stat()
            yield facts.st_mtime, facts.st_size, path
