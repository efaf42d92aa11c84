"""Entries from the Hub: read at a commit, completed with what is needed to classify."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from zoo.cache import cache_folder
from zoo.entry import CONFIG, HEAD, WEIGHTS, AnyEntry, BrokenEntry, Entry, EntryError, Weights, load_entry, read_entry
from zoo.limits import HUB_LISTING, HUB_LISTING_MB
from zoo.sources import HUB_PREFIX
from zoo.sources.hub.ceilings import answer_ceiling, ceiling
from zoo.sources.hub.client import api, is_offline, snapshot_folder
from zoo.sources.hub.download import Progress, Remote, forget_verified
from zoo.sources.hub.errors import hub_errors
from zoo.sources.hub.locate import commit_at, commit_of, listed, listings, status
from zoo.sources.hub.schema import LISTING_FILES, NEEDED_FILES, TAG, Revision, entry_id
from zoo.sources.hub.verify import file_hash

WORKERS = 8  # repositories read at the same time
SHORT_SHA = 10  # letters of a commit's hash that people see


@dataclass
class HubSource:
    """The entries of `place` on the Hub: a namespace, one repository (NAMESPACE/NAME), or a collection."""

    place: str
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{HUB_PREFIX}{self.place}"

    def entries(self) -> list[AnyEntry]:
        """Entries by name, broken ones with their reason. Asks the Hub when the last listing has expired."""
        listing = listed(self.place)
        if listing is None or not listing.repos:
            problem = status(self.place).problem
            reason = problem or f"{self.place} holds no model of a zoo (tag {TAG}) that you may see."
            return [_broken(self.place, cache_folder(), reason)]
        repos = sorted(listing.repos.items())
        with ceiling(HUB_LISTING_MB.bytes, HUB_LISTING.exact, total=HUB_LISTING_MB.bytes) as together:

            def read(item: tuple[str, str]) -> AnyEntry:
                with ceiling(HUB_LISTING_MB.bytes, HUB_LISTING.exact, outer=together):
                    return entry_at(item[0], item[1], self.place)

            with ThreadPoolExecutor(WORKERS) as pool:
                return list(pool.map(read, repos))


def entry_at(repo: str, sha: str, place: str = "") -> AnyEntry:
    """The entry in a repository at a commit, listed in `place`; broken, with the reason, if it cannot be read."""
    folder = snapshot_folder(repo, sha)
    try:
        remote = Remote(commit_of(repo, sha), folder)
        if CONFIG not in remote.commit.files:
            raise EntryError(f"{repo} holds no {CONFIG}: it is no model of a zoo.")
        for file in LISTING_FILES:
            remote.fetch(file)
    except EntryError as error:
        return _broken(repo, folder, str(error))
    entry = read_entry(folder, entry_id(repo), links=True)
    if isinstance(entry, BrokenEntry) and _drop_damaged(remote):
        entry = read_entry(folder, entry_id(repo), links=True)
    return with_remote(entry, remote, place) if isinstance(entry, Entry) else entry


def _drop_damaged(remote: Remote) -> bool:
    """Remove downloaded weights that are not what the Hub states, so that they are downloaded again.

    Returns:
        Whether there were any.
    """
    damaged = []
    for name in (WEIGHTS, HEAD):
        file, path = remote.commit.files.get(name), remote.folder / name
        if file is not None and path.is_file() and file_hash(path, file) != file.oid:
            path.unlink()
            damaged.append(name)
    return bool(damaged)


def with_remote(entry: Entry, remote: Remote, place: str) -> Entry:
    """An entry read from the cache, with its origin; weights that can be downloaded count as present."""
    entry = replace(entry, origin=remote)
    weights = remote.commit.files.get(WEIGHTS)
    if entry.weights or weights is None or entry.config.zoo.members:
        return entry
    if is_offline() or status(place).problem:
        return replace(entry, reason="Its weights are not on this computer, and the Hub cannot be reached.")
    return replace(entry, weights=Weights(remote.commit.parameters, weights.size), reason=None)


def fetch(entry: Entry, progress: Progress | None = None) -> Entry:
    """Download all files that an entry, or each member of an ensemble, needs to classify.

    Args:
        entry: Any entry; one that is not from the Hub comes back unchanged.
        progress: Called with the bytes of the weights that have arrived and the bytes in all.

    Returns:
        The entry, read again.

    Raises:
        EntryError: If a file cannot be downloaded or is damaged.
    """
    if entry.members:
        return replace(entry, members=tuple(fetch(member, progress) for member in entry.members))
    if not isinstance(entry.origin, Remote):
        return entry
    if all(entry.origin.is_local(name) for name in NEEDED_FILES):
        return entry
    for name in NEEDED_FILES:
        entry.origin.fetch(name, progress if name == WEIGHTS else None)
    try:
        complete = load_entry(entry.folder, entry.id, links=True)
    except EntryError as error:
        raise EntryError(f"{entry.id} cannot be used: {error}") from error
    return replace(complete, origin=entry.origin)


def revisions(entry: Entry) -> list[Revision]:
    """Tags, branches and commits of an entry's repository, newest commit first; none if it is not from the Hub.

    Raises:
        EntryError: If the Hub does not answer.
    """
    if not isinstance(entry.origin, Remote):
        return []
    repo = entry.origin.repo
    with hub_errors(repo), answer_ceiling():
        refs, commits = api().list_repo_refs(repo), api().list_repo_commits(repo)
    tags = [Revision(tag.name, tag.target_commit, "tag") for tag in refs.tags]
    branches = [Revision(branch.name, branch.target_commit, "branch") for branch in refs.branches]
    return [
        *tags,
        *branches,
        *(
            Revision(c.commit_id[:SHORT_SHA], c.commit_id, "commit", f"{c.created_at:%Y-%m-%d} {c.title}")
            for c in commits
        ),
    ]


def resolve(repo: str, revision: str) -> AnyEntry:
    """The entry in a repository at a tag, branch or commit, requested from the Hub now.

    Raises:
        EntryError: If there is no such repository or revision, or the Hub does not answer.
    """
    return entry_at(repo, commit_at(repo, revision).sha)


def reset() -> None:
    """Drop what this process remembers of the Hub, as if it had just started; files on disk stay."""
    listings.clear()
    forget_verified()


def _broken(name: str, folder: Path, reason: str) -> BrokenEntry:
    return BrokenEntry(entry_id(name), folder, reason)
