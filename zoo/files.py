"""Atomic writing (files and folders are written under a temporary name, then renamed), and locks of what is written."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.cache import cache_folder


class ExistsError(ValueError):
    """A file or folder that would be overwritten; the message is a sentence for the user."""


class LockedError(ValueError):
    """A file or folder that another process is writing; the message is a sentence for the user."""


BLOCK = 1 << 26  # bytes hashed at a time
READERS = 4  # threads that hash a file
DIRECTION_MARKS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # these reverse what follows
TARGET_EXISTS = (errno.EEXIST, errno.ENOTEMPTY)  # errors of a rename where another process was first


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` if the block succeeds, else remove it.

    Raises:
        OSError: If the folder cannot be written (full disk, no permission), or `target` is a folder.
    """
    target = Path(target)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files that only their owner can read; entries are for everybody
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path, keep: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; put it in `target`'s place if the block succeeds, else remove it.

    Args:
        target: The folder to write or replace.
        keep: Whether a folder that another process has put there meanwhile is as good. Then it stays, because somebody
            may be reading it.

    Raises:
        OSError: If the folder cannot be written.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        while True:
            if target.exists():
                if keep is not None and keep(target):
                    break
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
            try:
                temporary.rename(target)
                break
            except OSError as error:
                if error.errno not in TARGET_EXISTS:
                    raise
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def only_writer(target: Path, wait: float = 0) -> Iterator[None]:
    """Lock `target` against other processes of this user while the block runs.

    Args:
        target: File or folder that is written.
        wait: Seconds for which another process is waited for; math.inf for as long as it takes.

    The operating system ends the lock with the process, however that ends. The lock is in the cache folder, so that
    nothing is left beside `target`; processes that do not share that folder do not see it.

    Raises:
        LockedError: Another process holds the lock.
        OSError: If the cache folder cannot be written.
    """
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(os.fsencode(target.resolve())).hexdigest()
    lock = FileLock(locks / f"{name}.lock", timeout=-1 if wait == math.inf else wait, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockedError(
            f"Another run is writing {target}. Wait for it, or choose another place for this one."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def new_target(
    target: Path, replace: bool = False, marks: Sequence[str] = (), kept: Sequence[Path] = ()
) -> Iterator[None]:
    """Lock `target` as `only_writer` does, and refuse one that may not be replaced (see `check_target`).

    It is looked at before the lock is taken, which costs nothing, and again inside: the run that held the lock may
    have written it meanwhile.

    Raises:
        ExistsError: `target` may not be replaced.
        LockedError: Another process holds the lock.
    """
    check_target(target, replace, marks, kept)
    with only_writer(target):
        check_target(target, replace, marks, kept)
        yield


def check_target(target: Path, replace: bool = False, marks: Sequence[str] = (), kept: Sequence[Path] = ()) -> None:
    """Refuse to write `target` where something else would be lost.

    Args:
        target: The folder to be written.
        replace: Whether a folder that was written before may be replaced.
        marks: Names, of which such a folder holds one; any other folder stays, unless it is empty.
        kept: What is read meanwhile: `target` may neither be nor hold it, nor the current folder.

    Raises:
        ExistsError: It exists and may not be replaced.
    """
    real = target.resolve()
    held = next((path for path in (*kept, Path()) if path.resolve().is_relative_to(real)), None)
    if held is not None:
        raise ExistsError(f"{target} would be replaced, and it is or holds {held.resolve()}. Choose another --out.")
    if not os.path.lexists(target):
        return
    if not replace:
        raise ExistsError(f"{target} already exists. Choose another --out, or --restart to replace it.")
    ours = target.is_dir() and (not any(target.iterdir()) or any((target / mark).exists() for mark in marks))
    if not ours:
        raise ExistsError(f"{target} was not written by this command, so it is not replaced. Choose another --out.")


def file_hash(path: Path) -> str:
    """SHA-256 of the SHA-256 of each block, so that several cores can share a large file. Raises OSError."""
    size = path.stat().st_size

    def block(start: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return hashlib.sha256(file.read(BLOCK)).digest()

    with ThreadPoolExecutor(READERS) as pool:
        return hashlib.sha256(b"".join(pool.map(block, range(0, size, BLOCK)))).hexdigest()


def printable(name: str) -> str:
    r"""A file name that can be printed and stored as UTF-8 on one line.

    Bytes that are no UTF-8, line breaks, tabs, escape codes and marks that reverse the writing direction are escaped.

    Example:
        >>> printable("cell\n1.png")
        'cell\\n1.png'
    """
    return "".join(_escaped(letter) if _is_hidden(letter) else letter for letter in name)


def _is_hidden(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in DIRECTION_MARKS


def _escaped(letter: str) -> str:
    raw = ord(letter) - 0xDC00
    if 0x80 <= raw <= 0xFF:  # a byte of a file name that is no UTF-8, as Python keeps it
        return f"\\x{raw:02x}"
    return letter.encode("unicode_escape").decode()


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 `text` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON atomically.

    Raises:
        TypeError: If JSON has no such type.
        ValueError: If `value` contains NaN or infinity.
    """
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _umask() -> int:
    # reading the umask means setting it; there is no other portable way
    mask = os.umask(0)
    os.umask(mask)
    return mask
