"""Find repositories and commits on the Hub, and keep what it answered.

A listing is trusted for some minutes, then renewed in the background. What the Hub says of a commit is kept for good.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

from pydantic import ValidationError

from zoo.cache import cache_folder
from zoo.entry import EntryError
from zoo.files import write_json
from zoo.limits import HUB_REPOS
from zoo.sources.hub.ceilings import SHA, answer_ceiling
from zoo.sources.hub.client import api, endpoint, request_timeout, snapshot_folder
from zoo.sources.hub.download import Remote
from zoo.sources.hub.errors import hub_errors
from zoo.sources.hub.schema import (
    COLLECTION,
    DATASETS,
    NAMESPACE,
    REPO,
    TAG,
    Commit,
    Kind,
    Listing,
    Status,
    entry_id,
)
from zoo.sources.hub.verify import dataset_commit, model_commit

TTL_VARIABLE = "HEMAZOO_HUB_TTL"
TTL_SECONDS = 600.0  # a listing is trusted this long
MAX_WAIT_SECONDS = 3.0  # for a newer listing, where there is an older one

Key = tuple[str, str]  # endpoint of the Hub, place


class Listings:
    """Listings of places that this process holds, renewed by background threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listings: dict[Key, Listing] = {}
        self._problems: dict[Key, str | None] = {}
        self._requested: dict[Key, float] = {}  # seconds since 1970
        self._threads: dict[Key, threading.Thread] = {}

    def get(self, place: str) -> Listing | None:
        """The listing of `place`: a fresh one, else the Hub's answer, else the last one; None if there is none.

        Concurrent callers cause one request, and a caller that has a listing does not wait long for a new one. Raises
        nothing: `status` has the problem.
        """
        key, now = (endpoint(), place), time.time()
        with self._lock:
            if key not in self._listings and (kept := _read_listing(place)):
                self._listings[key] = kept
            # also limits requests to a Hub that does not answer
            if now - self._requested.get(key, 0.0) > float(os.environ.get(TTL_VARIABLE) or TTL_SECONDS):
                self._requested[key] = now
                self._threads[key] = threading.Thread(target=self._renew, args=(key,), daemon=True)
                self._threads[key].start()
            known, thread = self._listings.get(key), self._threads.get(key)
        if thread:
            thread.join(MAX_WAIT_SECONDS if known else None)
        return self._listings.get(key)

    def status(self, place: str) -> Status:
        """State of a place: when it was listed, what is wrong, whether a request runs."""
        key = (endpoint(), place)
        known, thread = self._listings.get(key), self._threads.get(key)
        pending = bool(thread and thread.is_alive())
        return Status(place, known.checked if known else None, self._problems.get(key), pending)

    def expire(self, place: str | None = None) -> None:
        """Ask the Hub again at the next listing of `place`, or of all places."""
        for key in [key for key in self._requested if place in (None, key[1])]:
            del self._requested[key]

    def wait(self) -> None:
        """Wait for all requests that run."""
        for thread in list(self._threads.values()):
            thread.join()

    def clear(self) -> None:
        """Drop everything in memory; listings on disk stay."""
        for known in (self._listings, self._problems, self._requested, self._threads):
            known.clear()

    def _renew(self, key: Key) -> None:
        place = key[1]
        try:
            with hub_errors(place), answer_ceiling():
                repos = _request_repos(place)
                # names become folders
                sound = {repo: sha for repo, sha in repos.items() if REPO.fullmatch(repo) and SHA.fullmatch(sha)}
                listing = Listing(checked=time.time(), repos=sound)
                write_json(_listing_file(place), listing.model_dump())
            self._listings[key], self._problems[key] = listing, None
        except EntryError as error:
            self._problems[key] = str(error)


listings = Listings()  # of this process


def listed(place: str) -> Listing | None:
    """The listing of a place in this process; see `Listings.get`."""
    return listings.get(place)


def status(place: str) -> Status:
    """State of a place in this process; see `Listings.status`."""
    return listings.status(place)


def forget(place: str | None = None) -> None:
    """Ask the Hub again at the next listing of `place`, or of all places."""
    listings.expire(place)


def commit_of(repo: str, sha: str, kind: Kind = "model") -> Commit:
    """Files of a commit as the Hub lists them; requested once and kept for good.

    Raises:
        EntryError: If the Hub does not answer, or a file is too large.
    """
    try:
        return Commit.model_validate_json(_commit_file(repo, sha, kind).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        pass  # not kept yet, or damaged
    with hub_errors(repo), answer_ceiling():
        info = api().repo_info(repo, repo_type=kind, revision=sha, files_metadata=True, timeout=request_timeout())
        commit = model_commit(info) if kind == "model" else dataset_commit(info)
        if commit.sha != sha:
            raise EntryError(f"{repo}: the Hub answered for another commit. Refresh the list.")
        return _keep(commit)


def commit_at(repo: str, revision: str) -> Commit:
    """The commit of a model at a tag, branch or commit, requested from the Hub now.

    Raises:
        EntryError: If there is no such repository or revision, or the Hub does not answer.
    """
    check_repo(repo)
    with hub_errors(f"{repo}@{revision}"), answer_ceiling():
        info = api().model_info(repo, revision=revision, files_metadata=True, timeout=request_timeout())
        return _keep(model_commit(info))


def data_set(repo: str) -> Remote:
    """The pictures of a data set's repository, as it was listed last.

    Raises:
        EntryError: If it cannot be listed.
    """
    check_repo(repo)
    listing = listed(DATASETS + repo)
    if listing is None or repo not in listing.repos:
        raise EntryError(status(DATASETS + repo).problem or f"{repo} cannot be listed.")
    sha = listing.repos[repo]
    return Remote(commit_of(repo, sha, "dataset"), snapshot_folder(repo, sha, "dataset"))


def check_repo(repo: str) -> None:
    """Raise EntryError if `repo` is not of the form NAMESPACE/NAME."""
    if not REPO.fullmatch(repo):
        raise EntryError(f"{repo} is no repository: give NAMESPACE/NAME.")


def _request_repos(place: str) -> dict[str, str]:
    """Repositories of a place with the commit of their main branch, from the Hub."""
    client, timeout = api(), request_timeout()
    if place.startswith(DATASETS):
        repo = place.removeprefix(DATASETS)
        return {repo: str(client.dataset_info(repo, timeout=timeout).sha)}
    if COLLECTION.fullmatch(place):
        items = [item.item_id for item in client.get_collection(place).items if item.item_type == "model"]
        return {repo: str(client.model_info(repo, timeout=timeout).sha) for repo in items[: HUB_REPOS.value]}
    if REPO.fullmatch(place):
        return {place: str(client.model_info(place, timeout=timeout).sha)}
    if not NAMESPACE.fullmatch(place):
        raise EntryError(
            f"{place} is no place on the Hub. Give hub:NAMESPACE, hub:NAMESPACE/NAME or a collection's slug."
        )
    models = client.list_models(author=place, filter=TAG, full=True, limit=HUB_REPOS.value)
    return {model.id: str(model.sha) for model in models if model.sha}


def _keep(commit: Commit) -> Commit:
    write_json(_commit_file(commit.repo, commit.sha, commit.kind), commit.model_dump())
    return commit


def _notes_folder(kind: str) -> Path:
    """Folder of our own notes on the Hub that is used now."""
    return cache_folder() / "hub" / hashlib.sha256(endpoint().encode()).hexdigest()[:12] / kind


def _listing_file(place: str) -> Path:
    return _notes_folder("listings") / f"{entry_id(place)}.json"


def _commit_file(repo: str, sha: str, kind: Kind) -> Path:
    # models have no folder of their own: older versions knew no data sets
    return _notes_folder("commits" if kind == "model" else DATASETS[:-1]) / entry_id(repo) / f"{sha}.json"


def _read_listing(place: str) -> Listing | None:
    try:
        return Listing.model_validate_json(_listing_file(place).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
