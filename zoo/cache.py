"""Where does what can be made or fetched again live? In one folder of the user's, or where HEMAZOO_CACHE says."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """HEMAZOO_CACHE, or `hemazoo` in the user's cache folder (XDG_CACHE_HOME); not made by this call."""
    named = os.environ.get("HEMAZOO_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hemazoo"
