"""State of the local Hub: repositories, commits, files and planned faults."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

TOKENS = {"hf_alice": "alice", "hf_bob": "bob"}
LARGE = {".safetensors", ".skops", ".parquet", ".png", ".bin", ".jpg"}
PAGE = 50
HEX = re.compile(r"[0-9a-f]{7,40}")


class HubError(Exception):
    """An answer with the Hub's error headers."""

    def __init__(self, status: int, message: str, code: str = "", body: Any = None) -> None:
        self.status, self.message, self.code, self.body = status, message, code, body


@dataclass(frozen=True)
class Stored:
    """A file of a commit: git's blob id, or the SHA-256 of one that is kept as LFS."""

    oid: str
    size: int
    large: bool

    def as_json(self, path: str) -> dict[str, Any]:
        """The form of the tree and paths-info routes."""
        description: dict[str, Any] = {"type": "file", "path": path, "size": self.size, "oid": self.blob}
        return description | ({"lfs": {"oid": self.oid, "size": self.size, "pointerSize": 134}} if self.large else {})

    @property
    def blob(self) -> str:
        """Git's id of what is in the tree: the content, or the pointer to it."""
        return self.oid if not self.large else hashlib.sha1(f"pointer {self.oid} {self.size}".encode()).hexdigest()


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    sha: str
    files: Mapping[str, Stored]
    title: str
    author: str
    parent: str | None
    date: str


@dataclass
class Repo:
    """A repository: its commits by sha, branches, tags and pull requests by full reference."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a tag, a reference or a sha."""
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in self.refs:
                return self.commits[self.refs[name]]
        found = [sha for sha in self.commits if HEX.fullmatch(revision) and sha.startswith(revision)]
        if len(found) == 1:
            return self.commits[found[0]]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


@dataclass
class Fault:
    """A fault of the next `times` requests whose `METHOD path` matches: a status, a cut or a slow answer."""

    match: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body
    delay: float = 0.0  # seconds before the answer, and again before each of its chunks
    do: Callable[[], None] | None = None  # called just before the answer
    answer: Callable | None = None  # ASGI application that answers instead


class Hub:
    """The server: its address, repositories, and planned faults."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.collections: dict[str, list[str]] = {}
        self.blobs: dict[str, bytes] = {}  # by git blob id or SHA-256
        self.faults: list[Fault] = []
        self.log: list[str] = []  # METHOD path, of every request
        self.url = ""
        self.stop: Callable[[], None] = lambda: None  # stops the server, like a lost network
        self._lock = threading.RLock()

    def commit(
        self,
        repo: Repo,
        reference: str,
        changes: Mapping[str, Stored | None],
        title: str,
        author: str,
        parent: str | None = None,
    ) -> str:
        """Put a commit on a reference; None deletes a file. Raises HubError if `parent` is not its head."""
        with self._lock:
            head = repo.refs.get(reference)
            if parent and head != parent:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(repo.commits[head].files) if head else {}
            for path, stored in changes.items():
                if stored is not None:
                    files[path] = stored
                elif files.pop(path, None) is None:
                    raise HubError(404, f"A file with this name does not exist: {path}", "EntryNotFound")
            listing = json.dumps({path: files[path].oid for path in sorted(files)})
            # commits are numbered, so that the same content committed twice has two ids
            sha = hashlib.sha1(f"{repo.name} {len(repo.commits)} {head} {listing}".encode()).hexdigest()
            date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
            repo.commits[sha] = Commit(sha, files, title, author, head, date)
            repo.refs[reference] = sha
            return sha

    def store(self, path: str, data: bytes, large: bool | None = None) -> Stored:
        """Keep a file's content."""
        large = is_large(path, data[:512], len(data)) if large is None else large
        oid = hashlib.sha256(data).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self.blobs[oid] = data
        return Stored(oid, len(data), large)

    def put(self, name: str, files: Mapping[str, bytes | None], kind: str = "models") -> str:
        """Commit files to a repository's main as a push does, and create it if needed; returns the sha."""
        repo = self.repos.setdefault((kind, name), Repo(kind, name))
        changes = {path: None if data is None else self.store(path, data) for path, data in files.items()}
        return self.commit(repo, "refs/heads/main", changes, "by hand", name.split("/", maxsplit=1)[0])

    def count(self, match: str) -> int:
        """Number of requests whose `METHOD path` matches."""
        return sum(bool(re.search(match, line)) for line in self.log)


def is_large(path: str, sample: bytes, size: int) -> bool:
    """Whether the Hub keeps a file as LFS."""
    return PurePosixPath(path).suffix in LARGE or size > 10_000_000 or b"\0" in sample


def metadata(text: str) -> dict[str, Any]:
    """The YAML block at a card's head."""
    found = re.match(r"\A---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    told = yaml.safe_load(found[1]) if found else None
    return told if isinstance(told, dict) else {}
