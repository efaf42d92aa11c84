"""Reviews that are kept on the server for a time, each under a secret token, so that a reload loses nothing.

A kept review is two files of the form that "Save review" makes: one with the pictures, which is written when these
change, and a small one with the decisions. Their names on the disk are hashes of the token: who sees a listing of the
folder cannot open a review in the app.
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
from typing import Literal

from zoo.cache import cache_folder
from zoo.files import atomic_path
from zoo.limits import KEPT_MB

VARIABLE = "HEMAZOO_KEEP_REVIEWS"  # hours that a review is kept; 0 keeps none
USUAL_HOURS = 24.0
TOKEN_BYTES = 16
TOKEN = re.compile(r"[0-9a-f]{32}")
SUFFIX = ".review.zip"
HOUR_SECONDS = 3600

Part = Literal["pictures", "decisions"]
PARTS: tuple[Part, ...] = ("pictures", "decisions")


class KeptError(ValueError):
    """A time to keep reviews that is no number; the message is a sentence for the owner."""


def hours() -> float:
    """Hours that reviews are kept, 0 for not at all; the container's own setting is 0.

    Raises:
        KeptError: The environment variable is no number from 0.
    """
    text = os.environ.get(VARIABLE, "").strip()
    try:
        value = float(text) if text else USUAL_HOURS
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


def keep(token: str, part: Part, data: bytes) -> bool:
    """Keep a part of a review, and erase others that are too old or, the oldest first, that take too much space.

    Returns:
        Whether it is kept: not where it alone is too large, or the disk takes no file.
    """
    path = _path(token, part)
    if len(data) > KEPT_MB.bytes:
        return False
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
        path.chmod(0o600)
        _tidy()
    except OSError:
        return False
    return path.exists()


def find(token: str) -> list[bytes]:
    """The parts of a review in the order in which to open them; none if none is kept, or its time is over."""
    found = []
    for part in PARTS:
        path = _path(token, part)
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > HOUR_SECONDS * hours():
                forget(token)
                return []
            found.append(path.read_bytes())
    return found


def forget(token: str) -> None:
    """Erase the review of a token."""
    for part in PARTS:
        with contextlib.suppress(OSError):
            _path(token, part).unlink()


def _folder() -> Path:
    return cache_folder() / "reviews"


def _path(token: str, part: Part) -> Path:
    return _folder() / f"{hashlib.sha256(token.encode()).hexdigest()}.{part}{SUFFIX}"


def _tidy() -> None:
    """Erase what is too old, and the oldest of too much."""
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
