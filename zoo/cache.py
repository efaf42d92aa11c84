"""The cache folder: for files that can be computed or downloaded again."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

ABANDONED_SECONDS = 86_400  # age from which on a half-written entry belongs to a process that was killed


def cache_folder() -> Path:
    """HEMAZOO_CACHE, or `hemazoo` in the user's cache folder (XDG_CACHE_HOME); this call does not create it."""
    configured = os.environ.get("HEMAZOO_CACHE")
    if configured:
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hemazoo"


def mark_used(entry: Path) -> None:
    """Note that an entry of the cache is used now, for `keep_within`; a cache that cannot be written stays as it is."""
    try:
        os.utime(entry)
    except OSError:
        return


def keep_within(folder: Path, most: int, used: Path) -> None:
    """Remove the entries of a folder of the cache that were used longest ago, as far as needed.

    Args:
        folder: Folder whose entries are files or folders.
        most: Bytes that its entries may have together.
        used: Entry that is in use and stays.
    """
    now, total = time.time(), 0
    found = []
    for entry in folder.iterdir():
        age = now - _changed(entry)
        if entry.name.startswith(".") and age < ABANDONED_SECONDS:
            continue  # another process is writing it
        found.append((0.0 if entry == used else age, _size(entry), entry))
    for _, size, entry in sorted(found, key=lambda each: each[0]):
        total += size
        if total > most and entry != used:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def _changed(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:  # removed meanwhile
        return time.time()


def _size(entry: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    try:
        return sum(path.stat().st_size for path in (entry.rglob("*") if entry.is_dir() else [entry]))
    except OSError:
        return 0
