"""Records about the Hub: files, commits, listings and revisions, and which files of a repository are an entry's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from zoo.entry import (
    CARD,
    CONFIG,
    EVALUATION,
    HEAD,
    HISTORY,
    MAX_CARD_BYTES,
    NEIGHBOURS,
    OOD_STATISTICS,
    PREDICTIONS,
    WEIGHTS,
)
from zoo.limits import JSON_MB

DATASETS = "datasets/"  # before the name of a repository that holds pictures instead of a model
TAG = "hemazoo"  # tag of every repository that holds an entry
LISTING_FILES = (CONFIG, EVALUATION)  # fetched for every entry of a listing
NEEDED_FILES = (OOD_STATISTICS, HEAD, NEIGHBOURS, WEIGHTS)  # fetched before an entry classifies
MAX_FILE_BYTES: Mapping[str, int] = {
    CONFIG: 1_000_000,
    EVALUATION: JSON_MB.bytes,
    HISTORY: JSON_MB.bytes,
    CARD: MAX_CARD_BYTES,
    WEIGHTS: 2_000_000_000,
    HEAD: 500_000_000,
    OOD_STATISTICS: 10_000_000,
    NEIGHBOURS: 50_000_000,
}
PREDICTIONS_PATH = re.compile(rf"{PREDICTIONS}/[A-Za-z0-9][A-Za-z0-9._-]*\.parquet")
MAX_PREDICTIONS_BYTES = 20_000_000
REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
NAMESPACE = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
COLLECTION = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+-[0-9a-f]{24}")
PICTURE = re.compile(r"(?:[\w -][\w. -]{0,79}/)?[\w-][\w.-]{0,99}")  # perhaps in a folder named after its label

Kind = Literal["model", "dataset"]


class File(BaseModel):
    """A file of a commit: size in bytes, and its SHA-256 if it is `large` (LFS), else git's blob id."""

    model_config = ConfigDict(frozen=True)
    size: int = Field(ge=0)
    oid: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    large: bool = False


class Commit(BaseModel):
    """A repository at a commit: its allowed files, and the number of parameters that the Hub counted.

    For a data set: its pictures, and the name and licence of its card in `about`.
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
    """Repositories of a place, with the commit of each main branch, at a time (`checked`, seconds since 1970)."""

    model_config = ConfigDict(frozen=True)
    checked: float
    repos: dict[str, str]


@dataclass(frozen=True)
class Revision:
    """A revision of a repository that a person can choose: a tag, a branch, or a commit with its title and date."""

    name: str
    sha: str
    kind: Literal["tag", "branch", "commit"]
    about: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """State of a place: time of its last listing (seconds since 1970), current problem, and whether a request runs."""

    place: str
    checked: float | None
    problem: str | None
    pending: bool = False


def entry_id(repo: str) -> str:
    """Id of a repository's entry: the slash becomes two dashes, which no repository name contains."""
    return repo.replace("/", "--")


def is_allowed(name: str, size: int) -> bool:
    """Whether a file of a repository belongs to an entry and is small enough to fetch (`size` in bytes)."""
    return size <= (MAX_PREDICTIONS_BYTES if PREDICTIONS_PATH.fullmatch(name) else MAX_FILE_BYTES.get(name, -1))
