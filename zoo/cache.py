"""The cache folder: for files that can be computed or downloaded again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """HEMAZOO_CACHE, or `hemazoo` in the user's cache folder (XDG_CACHE_HOME); this call does not create it."""
    configured = os.environ.get("HEMAZOO_CACHE")
    if configured:
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hemazoo"
