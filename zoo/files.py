"""Atomic writing: files and folders are written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TARGET_EXISTS = (errno.EEXIST, errno.ENOTEMPTY)  # errors of a rename where another process was first


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` if the block succeeds, else remove it.

    Raises:
        OSError: If the folder cannot be written (full disk, no permission).
    """
    target = Path(target)
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
