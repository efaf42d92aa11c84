"""Download files of a commit, each once, and check their hashes."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from zoo.entry import EntryError
from zoo.limits import FREE_DISK_MB, HUB_ANSWER, HUB_RATE
from zoo.sources.hub.ceilings import SLACK_BYTES, ceiling
from zoo.sources.hub.client import api, cache_root, snapshot_folder
from zoo.sources.hub.errors import hub_errors
from zoo.sources.hub.schema import Commit
from zoo.sources.hub.verify import file_hash

Progress = Callable[[int, int], None]  # bytes that have arrived, bytes in all

_verified: set[tuple[Path, str]] = set()  # path and hash of files that this process has checked


@dataclass(frozen=True)
class Remote:
    """Origin of an entry's files on the Hub: a commit, and the folder its files are downloaded to."""

    commit: Commit
    folder: Path

    @property
    def repo(self) -> str:
        """Name of the repository, NAMESPACE/NAME."""
        return self.commit.repo

    @property
    def sha(self) -> str:
        """Full hash of the commit."""
        return self.commit.sha

    def is_local(self, name: str) -> bool:
        """Whether there is nothing to fetch: the file is here and verified, or the commit has no file of this name."""
        file = self.commit.files.get(name)
        return file is None or (self.folder / name, file.oid) in _verified

    def fetch(self, name: str, progress: Progress | None = None) -> None:
        """Download a file if the commit has it and it is not here; check its hash once a process.

        Args:
            name: Path of the file in the repository.
            progress: Called with the bytes that have arrived and the bytes in all.

        Raises:
            EntryError: If it cannot be downloaded, or arrives damaged twice.
        """
        file = self.commit.files.get(name)
        if file is None or self.is_local(name):
            return
        with hub_errors(f"{self.repo}: {name}"):
            _check_free_space(file.size)
            for force in (False, True):
                # an answer may begin with an error in words
                seconds = HUB_ANSWER.exact + file.size / (1000 * HUB_RATE.exact)
                with ceiling(max(file.size, SLACK_BYTES), seconds, file):
                    _download(self.commit, name, progress, force)
                if file_hash(self.folder / name, file) == file.oid:
                    _verified.add((self.folder / name, file.oid))
                    return
            _remove(self.folder / name)
        raise EntryError(f"{self.repo}: {name} arrived damaged twice and was not kept. Try again later.")


def forget_verified() -> None:
    """Check the hash of every file again at its next use."""
    _verified.clear()


def _remove(path: Path) -> None:
    """Remove a file of the cache, and the content that it is a link to."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _download(commit: Commit, name: str, progress: Progress | None, force: bool) -> None:
    if not force and (snapshot_folder(commit.repo, commit.sha, commit.kind) / name).is_file():
        return
    api().hf_hub_download(
        commit.repo,
        name,
        repo_type=commit.kind,
        revision=commit.sha,
        cache_dir=cache_root(),
        force_download=force,
        tqdm_class=_progress_bar(progress),
    )


def _progress_bar(progress: Progress | None) -> type[tqdm]:
    """A tqdm class that draws nothing and reports to `progress`."""

    class Silent(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": False, "file": _NullFile()})

        def update(self, n: float | None = 1) -> bool | None:
            drawn = super().update(n)
            if progress and self.total:
                progress(int(self.n), int(self.total))
            return drawn

    return Silent


class _NullFile:
    """A file for writing that drops everything."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def _check_free_space(size: int) -> None:
    """Refuse a download of `size` bytes that would fill the disk. Raises OSError (ENOSPC)."""
    existing = next(folder for folder in (cache_root(), *cache_root().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < size + FREE_DISK_MB.bytes:
        raise OSError(errno.ENOSPC, f"{size / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free")
