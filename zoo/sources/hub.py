"""Which models does a namespace of the Hugging Face Hub hold? Listed by their JSON; weights come when one is picked.

An entry is a repository at one commit: its files never change under it. They lie in huggingface_hub's own cache, which
all processes of a machine share; each is fetched once, and its hash compared with what the Hub says of it. Nothing but
the files of an entry is ever fetched, and nothing of a repository is ever run.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import httpx2
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
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils._http import default_client_factory
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from zoo.cache import cache_folder
from zoo.entry import (
    CARD,
    CONFIG,
    EVALUATION,
    HEAD,
    HISTORY,
    MAX_CARD_BYTES,
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
from zoo.imaging.decode import MAX_BYTES, SUFFIXES
from zoo.serving.heads import NEIGHBOURS
from zoo.serving.ood import FILE as GATE

PREFIX = "hub:"
DATASETS = "datasets/"  # before a repository's name: pictures, not a model
TAG = "hemazoo"  # of all repositories that hold an entry
LISTED = (CONFIG, EVALUATION)  # what a listing needs of each
NEEDED = (GATE, HEAD, NEIGHBOURS, WEIGHTS)  # to classify
LARGEST: Mapping[str, int] = {  # bytes
    CONFIG: 1_000_000,
    EVALUATION: MAX_JSON_BYTES,
    HISTORY: MAX_JSON_BYTES,
    CARD: MAX_CARD_BYTES,
    WEIGHTS: 2_000_000_000,
    HEAD: 500_000_000,
    GATE: 10_000_000,
    NEIGHBOURS: 50_000_000,
}
PREDICTED, LARGEST_TABLE = re.compile(rf"{PREDICTIONS}/[A-Za-z0-9][A-Za-z0-9._-]*\.parquet"), 20_000_000
REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
NAMESPACE = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
COLLECTION = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+-[0-9a-f]{24}")
PICTURE = re.compile(r"(?:[\w -][\w. -]{0,79}/)?[\w-][\w.-]{0,99}")  # perhaps in a folder that is its label
UNKNOWN_SIZE = 1 << 60  # more than is ever fetched
MOST = 200  # repositories of a namespace
SECONDS = 20.0  # that one answer of the Hub may take
FRESH = 600.0  # seconds that a listing is believed
PATIENCE = 3.0  # seconds that somebody who has a listing waits for a newer one
TOGETHER = 8  # repositories looked at at a time
ROOM = 100_000_000  # bytes of a disk that are never filled
Watch = Callable[[int, int], None]  # bytes that are here, bytes in all
Kind = Literal["model", "dataset"]


class File(BaseModel):
    """A file of a commit: bytes, and SHA-256 if it is `large` (LFS), else git's blob id."""

    model_config = ConfigDict(frozen=True)
    size: int = Field(ge=0)
    oid: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    large: bool = False


class Commit(BaseModel):
    """A repository at a commit: the files of an entry that it has, and how many parameters the Hub counted.

    Of a data set: its pictures, and its card's name and licence.
    """

    model_config = ConfigDict(frozen=True)
    kind: Kind = "model"
    about: str = ""
    tags: tuple[str, ...] = ()
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
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """How a place answered last: when its listing was made, and what is wrong now, None if nothing.

    `asked` tells that it is being asked at this moment.
    """

    place: str
    checked: float | None
    problem: str | None
    asked: bool = False


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

    def is_here(self, name: str) -> bool:
        """Whether there is nothing to fetch: the file is here and was checked, or the entry has none of this name."""
        told = self.commit.files.get(name)
        return told is None or (self.folder / name, told.oid) in _checked

    def fetch(self, name: str, watch: Watch | None = None) -> None:
        """Fetch a file if the entry has it and it is not here; its hash is checked once a process.

        Raises EntryError if it cannot be had, or is not what the Hub says it is.
        """
        told = self.commit.files.get(name)
        if told is None or self.is_here(name):
            return
        with sentences(f"{self.repo}: {name}"):
            _check_room(told.size)
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
        if listing is None or not listing.repos:
            reason = status(self.place).problem or f"{self.place} holds no model of a zoo (tag {TAG}) that may be seen."
            return [Entry(entry_id(self.place), cache_folder(), None, Evaluation(), None, reason)]
        with ThreadPoolExecutor(TOGETHER) as pool:
            return list(pool.map(lambda one: entry_at(*one, self.place), sorted(listing.repos.items())))


_checked: set[tuple[Path, str]] = set()
_listings: dict[tuple[str, str], Listing] = {}
_problems: dict[tuple[str, str], str | None] = {}
_tried: dict[tuple[str, str], float] = {}
_asking: dict[tuple[str, str], threading.Thread] = {}
_guard = threading.Lock()


def api() -> HfApi:
    """The Hub's client, with tokens from its own places, for the endpoint that HF_ENDPOINT names now."""
    _bounded_client()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


@lru_cache(1)
def _bounded_client() -> None:
    # without this a silent server would hold up a page for ever
    set_client_factory(_client)


def _client() -> httpx2.Client:
    # the client's own, which also sees to it that nothing is asked where HF_HUB_OFFLINE forbids it
    made = default_client_factory()
    made.timeout = httpx2.Timeout(SECONDS)
    return made


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the Hub."""
    return bool(constants.HF_HUB_OFFLINE)


def entry_id(repo: str) -> str:
    """An id for people, command lines and file names: two dashes, which no repository's name has, for the slash."""
    return repo.replace("/", "--")


def listed(place: str) -> Listing | None:
    """What `place` holds: a fresh listing, else the Hub's answer, else the last listing; None if there is none.

    Many callers at once ask once, and nobody who has a listing waits long for a new one. Raises nothing: `status`
    tells what is wrong.
    """
    key, now = (_endpoint(), place), time.time()
    with _guard:
        if key not in _listings and (kept := _kept(place)):
            _listings[key] = kept
        # a Hub that does not answer is not asked again at every click
        if now - _tried.get(key, 0.0) > float(os.environ.get("HEMAZOO_HUB_TTL") or FRESH):
            _tried[key] = now
            _asking[key] = threading.Thread(target=_renew, args=(key,), daemon=True)
            _asking[key].start()
        known, asking = _listings.get(key), _asking.get(key)
    if asking:
        asking.join(PATIENCE if known else None)
    return _listings.get(key)


def _renew(key: tuple[str, str]) -> None:
    place = key[1]
    try:
        with sentences(place):
            found = Listing(checked=time.time(), repos=_ask(place))
            write_json(_place_file(place), found.model_dump())
        _listings[key], _problems[key] = found, None
    except EntryError as error:
        _problems[key] = str(error)


def status(place: str) -> Status:
    """How a place answered last."""
    key = (_endpoint(), place)
    known = _listings.get(key)
    asking = _asking.get(key)
    return Status(place, known.checked if known else None, _problems.get(key), bool(asking and asking.is_alive()))


def forget(place: str | None = None) -> None:
    """Ask the Hub again at the next listing of `place`, or of all places."""
    for key in [key for key in _tried if place in (None, key[1])]:
        del _tried[key]


def entry_at(repo: str, sha: str, place: str = "") -> Entry:
    """The entry that a repository holds at a commit, listed in `place`; broken with its reason if it is none."""
    name = entry_id(repo)
    try:
        remote = Remote(commit_of(repo, sha), _snapshot(repo, sha))
        if CONFIG not in remote.commit.files:
            raise EntryError(f"{repo} holds no {CONFIG}: it is no model of a zoo.")
        for file in LISTED:
            remote.fetch(file)
    except EntryError as error:
        return Entry(name, _snapshot(repo, sha), None, Evaluation(), None, str(error))
    return with_remote(read_entry(remote.folder, name, links=True), remote, place)


def with_remote(entry: Entry, remote: Remote, place: str) -> Entry:
    """An entry read from the cache, with what it can still fetch: weights that are not here count as there."""
    entry = replace(entry, origin=remote)
    told = remote.commit.files.get(WEIGHTS)
    if not entry.ok or entry.weights or told is None or entry.config.zoo.members:
        return entry
    if is_offline() or status(place).problem:
        return replace(entry, reason="Its weights are not on this computer, and the Hub cannot be reached.")
    return replace(entry, weights=Weights(remote.commit.parameters, told.size), reason=None)


def fetch(entry: Entry, watch: Watch | None = None) -> Entry:
    """The entry with all that is needed to classify on this computer, an ensemble's members included.

    `watch` is told how many bytes of how many are here. Raises EntryError if something cannot be had or is damaged.
    """
    if entry.members:
        return replace(entry, members=tuple(fetch(member, watch) for member in entry.members))
    if not isinstance(entry.origin, Remote):
        return entry
    if all(entry.origin.is_here(name) for name in NEEDED):
        return entry
    for name in NEEDED:
        entry.origin.fetch(name, watch if name == WEIGHTS else None)
    found = read_entry(entry.folder, entry.id, links=True)
    if not found.ok:
        raise EntryError(f"{entry.id} cannot be used: {found.reason}")
    return replace(found, origin=entry.origin)


def revisions(entry: Entry) -> list[Revision]:
    """Tags, branches and commits of an entry's repository, newest commit first. Raises EntryError without an answer."""
    if not isinstance(entry.origin, Remote):
        return []
    repo = entry.origin.repo
    with sentences(repo):
        refs, commits = api().list_repo_refs(repo), api().list_repo_commits(repo)
    found = [Revision(tag.name, tag.target_commit, "tag") for tag in refs.tags]
    found += [Revision(branch.name, branch.target_commit, "branch") for branch in refs.branches]
    # the first commit of a repository is the Hub's own and holds no model
    return found + [
        Revision(c.commit_id[:10], c.commit_id, "commit", f"{c.created_at:%Y-%m-%d} {c.title}") for c in commits
    ]


def resolve(repo: str, revision: str) -> Entry:
    """The entry of a repository at a tag, branch or commit, asked of the Hub now. Raises EntryError."""
    if not REPO.fullmatch(repo):
        raise EntryError(f"{repo} is no repository: give NAMESPACE/NAME.")
    with sentences(f"{repo}@{revision}"):
        info = api().model_info(repo, revision=revision, files_metadata=True, timeout=SECONDS)
        _keep(_commit(info))
    return entry_at(repo, str(info.sha))


def data_set(repo: str) -> Remote:
    """The pictures of a data-set repository, as it was listed last. Raises EntryError if it cannot be had."""
    if not REPO.fullmatch(repo):
        raise EntryError(f"{repo} is no repository: give NAMESPACE/NAME.")
    listing = listed(DATASETS + repo)
    if listing is None:
        raise EntryError(status(DATASETS + repo).problem or f"{repo} cannot be listed.")
    sha = listing.repos[repo]
    return Remote(commit_of(repo, sha, "dataset"), _snapshot(repo, sha, "dataset"))


def commit_of(repo: str, sha: str, kind: Kind = "model") -> Commit:
    """What the Hub says of a commit's files; asked once, kept for good. Raises EntryError."""
    path = _commit_file(repo, sha, kind)
    try:
        return Commit.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        pass
    with sentences(repo):
        info = api().repo_info(repo, repo_type=kind, revision=sha, files_metadata=True, timeout=SECONDS)
        return _keep(_commit(info) if kind == "model" else _pictures(info))


def digest(path: Path, told: File) -> str:
    """A file's hash as the Hub gives it for such a file."""
    if told.large:
        found = hashlib.sha256()
    else:
        found = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def allowed(name: str, size: int) -> bool:
    """Whether a file of a repository is one of an entry's, and of a size that is fetched."""
    return size <= (LARGEST_TABLE if PREDICTED.fullmatch(name) else LARGEST.get(name, -1))


def _commit(info: Any) -> Commit:
    """What is kept of the Hub's answer: files that no entry has are not even known of."""
    files = {}
    for one in info.siblings or []:
        told = file_of(one)
        if allowed(one.rfilename, told.size):
            files[one.rfilename] = told
        elif one.rfilename in LARGEST:
            raise EntryError(f"{info.id}: {one.rfilename} has {told.size:,} bytes, more than are fetched.")
    counted = getattr(info, "safetensors", None)
    tags = tuple(str(tag)[:80] for tag in (info.tags or [])[:MOST])
    return Commit(repo=info.id, sha=info.sha, files=files, parameters=counted.total if counted else None, tags=tags)


def _pictures(info: Any) -> Commit:
    """What is kept of the Hub's answer about a data set: pictures that could be shown, and what its card says."""
    told = {one.rfilename: file_of(one) for one in info.siblings or []}
    card = info.card_data.to_dict() if info.card_data else {}
    said = [str(card[key])[:200] for key in ("pretty_name", "license") if isinstance(card.get(key), str)]
    files = {
        name: file
        for name, file in told.items()
        if PICTURE.fullmatch(name) and Path(name).suffix.lower() in SUFFIXES and file.size <= MAX_BYTES
    }
    return Commit(kind="dataset", repo=info.id, sha=info.sha, files=files, about=", ".join(said))


def file_of(sibling: RepoSibling) -> File:
    """A file as the Hub tells of it."""
    if sibling.lfs is not None:
        return File(size=sibling.lfs.size, oid=sibling.lfs.sha256, large=True)
    return File(size=sibling.size if sibling.size is not None else UNKNOWN_SIZE, oid=sibling.blob_id or "")


def _keep(commit: Commit) -> Commit:
    write_json(_commit_file(commit.repo, commit.sha, commit.kind), commit.model_dump())
    return commit


def _ask(place: str) -> dict[str, str]:
    """Repositories of a place with the commit their main stands at."""
    client = api()
    if place.startswith(DATASETS):
        repo = place.removeprefix(DATASETS)
        return {repo: str(client.dataset_info(repo, timeout=SECONDS).sha)}
    if COLLECTION.fullmatch(place):
        items = [item.item_id for item in client.get_collection(place).items if item.item_type == "model"]
        return {repo: str(client.model_info(repo, timeout=SECONDS).sha) for repo in items[:MOST]}
    if REPO.fullmatch(place):
        return {place: str(client.model_info(place, timeout=SECONDS).sha)}
    if not NAMESPACE.fullmatch(place):
        raise EntryError(
            f"{place} is no place on the Hub. Give hub:NAMESPACE, hub:NAMESPACE/NAME or a collection's slug."
        )
    models = client.list_models(author=place, filter=TAG, full=True, limit=MOST)
    return {model.id: str(model.sha) for model in models if model.sha}


def _download(commit: Commit, name: str, watch: Watch | None, force: bool) -> None:
    if not force and (_snapshot(commit.repo, commit.sha, commit.kind) / name).is_file():
        return
    api().hf_hub_download(
        commit.repo,
        name,
        repo_type=commit.kind,
        revision=commit.sha,
        cache_dir=constants.HF_HUB_CACHE,
        force_download=force,
        tqdm_class=_watched(watch),
    )


def _watched(watch: Watch | None) -> type[tqdm]:
    """A progress bar that draws nothing and tells `watch`."""

    class Silent(tqdm):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named | {"disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            done = super().update(n)
            if watch and self.total:
                watch(int(self.n), int(self.total))
            return done

    return Silent


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def _snapshot(repo: str, sha: str, kind: Kind = "model") -> Path:
    """Where huggingface_hub puts a commit's files."""
    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{entry_id(repo)}" / "snapshots" / sha


def _check_room(size: int) -> None:
    """Before anything is asked for: a disk that would be filled to the brim stops more than this app."""
    place = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < size + ROOM:
        raise OSError(errno.ENOSPC, f"{size / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free")


def _endpoint() -> str:
    return api().endpoint


def _own(kind: str) -> Path:
    """Our own notes on the Hub that is asked."""
    return cache_folder() / "hub" / hashlib.sha256(_endpoint().encode()).hexdigest()[:12] / kind


def _place_file(place: str) -> Path:
    return _own("listings") / f"{entry_id(place)}.json"


def _commit_file(repo: str, sha: str, kind: Kind) -> Path:
    # before there were data sets, models lay here alone
    return _own("commits" if kind == "model" else DATASETS[:-1]) / entry_id(repo) / f"{sha}.json"


def _kept(place: str) -> Listing | None:
    try:
        return Listing.model_validate_json(_place_file(place).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


@contextmanager
def sentences(what: str) -> Iterator[None]:
    """Whatever the Hub, the network or the disk does not give ends as an EntryError that says so."""
    try:
        yield
    except Exception as error:
        said = _sentence(error)
        if said is None:
            raise
        raise EntryError(f"{what}: {said}") from error


SAID: Sequence[tuple[type[Exception], str]] = (  # the first that fits
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
    (HFValidationError, "the name is none that the Hub allows."),
    (httpx2.TimeoutException, f"the Hub did not answer within {SECONDS:.0f} seconds. Try again later."),
    (ValidationError, "the Hub's answer is not understood."),
)


def _sentence(error: Exception) -> str | None:
    """What an error of the Hub's client means; None for what is none of its errors."""
    said = next((said for kind, said in SAID if isinstance(error, kind)), None)
    if said or isinstance(error, HfHubHTTPError):
        return said or _refused(error)
    # of many threads that lost the connection, one closes the client that all share
    closed = isinstance(error, RuntimeError) and "client has been closed" in str(error)
    if closed or isinstance(error, httpx2.HTTPError | ConnectionError):
        return "the Hub cannot be reached. Check the network."
    return _not_kept(error) if isinstance(error, OSError) else None


def _not_kept(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full. Make room, or name another place in HF_HOME."
    return f"cannot be kept in {constants.HF_HUB_CACHE}: {error.strerror or error}."


def _refused(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        return f"the Hub asks for patience (rate limit). Try again in {wait or 'some'} seconds."
    if status == 401:
        return "the token is not valid. Log in again with `hf auth login`."
    if status >= 500:
        return f"the Hub has a problem of its own ({status}). Try again later."
    return f"the Hub refused ({status})."
