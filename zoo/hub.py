"""Which models does a namespace of the Hugging Face Hub hold? Listed by their JSON; weights come when one is picked.

An entry is a repository at one commit: its files never change under it. They lie in huggingface_hub's own cache, which
all processes of a machine share; each is fetched once, and its hash compared with what the Hub says of it. Nothing but
the files of an entry is ever fetched, and nothing of a repository is ever run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import httpx
from huggingface_hub import HfApi, constants, set_client_factory
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
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from zoo.cache import cache_folder
from zoo.entry import (
    CARD,
    CONFIG,
    EVALUATION,
    HEAD,
    HISTORY,
    MAX_JSON_BYTES,
    PREDICTIONS,
    WEIGHTS,
    Entry,
    EntryError,
    Evaluation,
    Weights,
    read_entry,
)
from zoo.files import write_json
from zoo.gate import FILE as GATE
from zoo.heads import NEIGHBOURS

PREFIX = "hub:"
TAG = "hemazoo"  # of all repositories that hold an entry
LISTED = (CONFIG, EVALUATION)  # what a listing needs of each
LARGEST: Mapping[str, int] = {  # bytes
    CONFIG: 1_000_000,
    EVALUATION: MAX_JSON_BYTES,
    HISTORY: MAX_JSON_BYTES,
    CARD: 2_000_000,
    WEIGHTS: 2_000_000_000,
    HEAD: 500_000_000,
    GATE: 10_000_000,
    NEIGHBOURS: 50_000_000,
}
PREDICTED, LARGEST_TABLE = re.compile(rf"{PREDICTIONS}/[A-Za-z0-9][A-Za-z0-9._-]*\.parquet"), 20_000_000
REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
NAMESPACE = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
COLLECTION = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+-[0-9a-f]{24}")
MOST = 200  # repositories of a namespace
SECONDS = 20.0  # that one answer of the Hub may take
FRESH = 600.0  # seconds that a listing is believed
TOGETHER = 8  # repositories looked at at a time
Watch = Callable[[int, int], None]  # bytes that are here, bytes in all


class File(BaseModel):
    """A file of a commit: bytes, and SHA-256 if it is `large` (LFS), else git's blob id."""

    model_config = ConfigDict(frozen=True)
    size: int = Field(ge=0)
    oid: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    large: bool = False


class Commit(BaseModel):
    """A repository at a commit: the files of an entry that it has, and how many parameters the Hub counted."""

    model_config = ConfigDict(frozen=True)
    repo: str = Field(pattern=rf"^{REPO.pattern}$")
    sha: str = Field(pattern=r"^[0-9a-f]{40}$")
    files: dict[str, File]
    parameters: int | None = None


class Listing(BaseModel):
    """What a place held when it was asked (`checked`, seconds since 1970): repository → sha."""

    model_config = ConfigDict(frozen=True)
    checked: float
    repos: dict[str, str]


@dataclass(frozen=True)
class Revision:
    """A state of a repository that can be chosen: a tag, a branch, or a commit with its title and date."""

    name: str
    sha: str
    kind: Literal["tag", "branch", "commit"]
    about: str = ""


@dataclass(frozen=True)
class Status:
    """How a place answered last: when its listing was made, and what is wrong now, None if nothing."""

    place: str
    checked: float | None
    problem: str | None


@dataclass(frozen=True)
class Remote:
    """Where the files of an entry on the Hub come from."""

    commit: Commit
    folder: Path

    @property
    def repo(self) -> str:
        """NAMESPACE/NAME."""
        return self.commit.repo

    @property
    def sha(self) -> str:
        """The commit, in full."""
        return self.commit.sha

    def missing(self, name: str) -> bool:
        """Whether the entry has this file and it is not here yet."""
        return name in self.commit.files and not (self.folder / name).is_file()

    def fetch(self, name: str, watch: Watch | None = None) -> None:
        """Fetch a file if the entry has it and it is not here; its hash is checked once a process.

        Raises EntryError if it cannot be had, or is not what the Hub says it is.
        """
        told = self.commit.files.get(name)
        if told is None or (self.folder / name, told.oid) in _checked:
            return
        with _sentences(f"{self.repo}: {name}"):
            for last in (False, True):
                _download(self.commit, name, watch, force=last)
                if digest(self.folder / name, told) == told.oid:
                    _checked.add((self.folder / name, told.oid))
                    return
        raise EntryError(f"{self.repo}: {name} arrived damaged twice and was not kept. Try again later.")


@dataclass
class HubSource:
    """The entries of `place` on the Hub: a namespace, one repository (NAMESPACE/NAME), or a collection."""

    place: str
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{PREFIX}{self.place}"

    def entries(self) -> list[Entry]:
        """Entries by name, broken ones with their reason. Asks the Hub when the last listing is no longer fresh."""
        listing = listed(self.place)
        if listing is None:
            reason = status(self.place).problem or "It holds no model."
            return [Entry(entry_id(self.place), cache_folder(), None, Evaluation(), None, reason)]
        with ThreadPoolExecutor(TOGETHER) as pool:
            return list(pool.map(lambda one: entry_at(*one), sorted(listing.repos.items())))


_checked: set[tuple[Path, str]] = set()
_listings: dict[tuple[str, str], Listing] = {}
_problems: dict[tuple[str, str], str | None] = {}
_tried: dict[tuple[str, str], float] = {}
_locks: dict[str, threading.Lock] = {}
_locks_lock = threading.Lock()


def api() -> HfApi:
    """The Hub's client, with tokens from its own places, for the endpoint that HF_ENDPOINT names now."""
    _bounded_client()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


@lru_cache(1)
def _bounded_client() -> None:
    # without this a silent server would hold up a page for ever
    set_client_factory(lambda: httpx.Client(timeout=SECONDS, follow_redirects=True))


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the Hub."""
    return bool(constants.HF_HUB_OFFLINE)


def entry_id(repo: str) -> str:
    """An id for people, command lines and file names: two dashes, which no repository's name has, for the slash."""
    return repo.replace("/", "--")


def listed(place: str) -> Listing | None:
    """What `place` holds: a fresh listing, else the Hub's answer, else the last listing; None if there is none.

    Many callers at once ask once. Raises nothing: `status` tells what is wrong.
    """
    key, now = (_endpoint(), place), time.time()
    with _lock(f"listing {key}"):
        known = _listings.get(key) or _kept(place)
        lifetime = float(os.environ.get("HEMAZOO_HUB_TTL") or FRESH)
        # a Hub that does not answer is not asked again at every click
        if key in _tried and now - _tried[key] < lifetime:
            return known
        _tried[key] = now
        try:
            with _sentences(place):
                known = Listing(checked=now, repos=_ask(place))
                write_json(_place_file(place), known.model_dump())
            _problems[key] = None
        except EntryError as error:
            _problems[key] = str(error)
        if known:
            _listings[key] = known
        return known


def status(place: str) -> Status:
    """How a place answered last."""
    key = (_endpoint(), place)
    known = _listings.get(key)
    return Status(place, known.checked if known else None, _problems.get(key))


def forget(place: str | None = None) -> None:
    """Ask the Hub again at the next listing of `place`, or of all places."""
    for key in [key for key in _tried if place in (None, key[1])]:
        del _tried[key]


def entry_at(repo: str, sha: str) -> Entry:
    """The entry that a repository holds at a commit; broken with its reason if it is none."""
    name = entry_id(repo)
    try:
        remote = Remote(commit_of(repo, sha), _snapshot(repo, sha))
        if CONFIG not in remote.commit.files:
            raise EntryError(f"{repo} holds no {CONFIG}: it is no model of a zoo.")
        for file in LISTED:
            remote.fetch(file)
    except EntryError as error:
        return Entry(name, _snapshot(repo, sha), None, Evaluation(), None, str(error))
    return with_remote(read_entry(remote.folder, name), remote)


def with_remote(entry: Entry, remote: Remote) -> Entry:
    """An entry read from the cache, with what it can still fetch: weights that are not here count as there."""
    from dataclasses import replace

    entry = replace(entry, origin=remote)
    told = remote.commit.files.get(WEIGHTS)
    if not entry.ok or entry.weights or told is None or entry.config.zoo.members:
        return entry
    if is_offline() or status(remote.repo.split("/")[0]).problem:
        return replace(entry, reason="Its weights are not on this computer, and the Hub cannot be reached.")
    return replace(entry, weights=Weights(remote.commit.parameters, told.size), reason=None)
