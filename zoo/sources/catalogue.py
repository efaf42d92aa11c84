"""All models of the zoo: entries from an ordered list of sources.

A source is anything that lists entries: a folder, or a place on the Hub. Where two entries have the same id, the first
one has it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from zoo.entry import (
    CONFIG,
    WEIGHTS,
    AnyEntry,
    BrokenEntry,
    Entry,
    EntryError,
    read_entry,
    usable_entries,
    with_members,
)
from zoo.imaging.localise import FOUND_CROPS
from zoo.lazy import lazy_module
from zoo.sources import HUB_PREFIX

if TYPE_CHECKING:
    from zoo.sources import hub
else:
    hub = lazy_module("zoo.sources.hub")

BUILTIN = Path(__file__).parents[1] / "builtin"
VARIABLE = "HEMAZOO_ZOO"
DEFAULT = "my-zoo"  # folder of own entries where the variable is not set; the app looks there
MODEL, DETECTOR = "champion8-pair", "cells"  # what is used where none is named
DETECTOR_VARIABLE = "HEMAZOO_DETECTOR"  # another one, or NO_DETECTOR
NO_DETECTOR = "none"
ADVICE = "Train one with `python -m training train cells --data FIELDS --out ZOO/cells`, and name ZOO in HEMAZOO_ZOO."
MAX_BUILTIN = 256  # entries that are kept as they were read
ANY_NAMESPACE_VARIABLE = "HEMAZOO_HUB_ANY"  # allow repositories of any namespace


class Source(Protocol):
    """A place that entries come from."""

    @property
    def name(self) -> str:
        """Name of the source, for people."""

    def entries(self) -> Sequence[AnyEntry]:
        """All entries, those that cannot be read as broken ones. Raises nothing on bad content."""


@dataclass(frozen=True)
class FolderSource:
    """A folder of entry folders, or the folder of a single entry."""

    folder: Path
    name: str

    def entries(self) -> list[AnyEntry]:
        """Entries sorted by name; a folder that cannot be listed is itself listed as broken."""
        read = _read_builtin if self.folder == BUILTIN else read_entry
        if (self.folder / CONFIG).is_file():
            return [read_entry(self.folder)]
        try:
            # names with a leading dot or underscore are half-written entries, or no entries
            places = sorted(p for p in self.folder.iterdir() if p.is_dir() and p.name[0] not in "._")
        except OSError as error:
            reason = f"The folder {self.folder} cannot be listed: {error.strerror}. Correct {VARIABLE}."
            return [BrokenEntry(self.folder.name or str(self.folder), self.folder, reason)]
        return [read(place) for place in places]


def _read_builtin(folder: Path) -> AnyEntry:
    """A built-in entry, read again only where its files have changed: each call of `zoo.classify` asks for all."""
    with os.scandir(folder) as files:
        found = sorted((file.name, file.inode(), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return _read_once(folder, tuple(found))


@lru_cache(MAX_BUILTIN)
def _read_once(folder: Path, _files: tuple[tuple[str, int, int, int], ...]) -> AnyEntry:
    return read_entry(folder)


def sources(environment: Mapping[str, str] | None = None) -> list[Source]:
    """The built-in folder, then the folders and Hub places that HEMAZOO_ZOO names, separated as in PATH.

    Where it is not set, the folder `my-zoo` of the working directory, if it exists.
    """
    return [FolderSource(BUILTIN, "builtin"), *(_source(part) for part in _named_places(environment))]


def own_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Folder for new entries that is listed without another setting: the first that HEMAZOO_ZOO names, or `my-zoo`."""
    folders = [part for part in _named_places(environment) if not part.startswith(HUB_PREFIX)]
    return Path(folders[0] if folders else DEFAULT).expanduser()


def is_listed(folder: Path) -> bool:
    """Whether entries in `folder` are listed without another setting."""
    return folder.resolve() in {source.folder.resolve() for source in sources() if isinstance(source, FolderSource)}


def _named_places(environment: Mapping[str, str] | None) -> list[str]:
    named = (os.environ if environment is None else environment).get(VARIABLE)
    if named is None:
        return [DEFAULT] if Path(DEFAULT).is_dir() else []
    # the colon of hub:NAMESPACE is not a separator
    return [part.strip() for part in re.split(rf"(?<!\bhub){os.pathsep}", named) if part.strip()]


def _source(part: str) -> Source:
    if part.startswith(HUB_PREFIX):
        return hub.HubSource(part.removeprefix(HUB_PREFIX))
    return FolderSource(Path(part).expanduser(), part)


def list_entries(places: Sequence[Source] | None = None) -> list[AnyEntry]:
    """List the classifiers of all sources in order, and broken entries. Detectors are listed by `list_detectors`.

    Args:
        places: The sources; by default those of `sources()`.

    Returns:
        Entries with different ids. Where an id is already taken, the later entry is listed as broken, so that it is
        not hidden silently.

    Example:
        >>> [entry.id for entry in zoo.list_entries() if entry.usable][:2]
        ['champion4', 'champion4-small']
    """
    return [entry for entry in _list_all(places) if isinstance(entry, BrokenEntry) or not entry.is_detector]


def list_detectors(places: Sequence[Source] | None = None) -> list[Entry]:
    """List the detectors of cells of all sources in order; `places` is as for `list_entries`."""
    return [entry for entry in _list_all(places) if isinstance(entry, Entry) and entry.is_detector]


def usual_detector() -> str:
    """Name of the detector that is used where none is chosen; NO_DETECTOR for one answer a picture."""
    return os.environ.get(DETECTOR_VARIABLE) or DETECTOR


def get_detector(name: str = DETECTOR) -> Entry:
    """The detector of a given name. Raises EntryError if there is none."""
    found = {entry.id: entry for entry in list_detectors()}
    if name in found:
        return found[name]
    if not found:
        raise EntryError(f"Cells are found by a detector, and there is none here. {ADVICE}")
    known = f"Detectors here: {', '.join(found)}."
    if name == NO_DETECTOR:
        how = f"Name one with --detector, or set {DETECTOR_VARIABLE} to one."
        raise EntryError(f"Cells are found by a detector, and none is chosen. {how} {known}")
    raise EntryError(f"There is no detector {name!r}. {known} {ADVICE}")


def crop_detector() -> Entry:
    """The built-in detector, by which entries cut cells that were trained on such cuts, whichever zoo is served.

    Raises:
        EntryError: It is missing or damaged.
    """
    entry = _read_builtin(BUILTIN / DETECTOR)
    if isinstance(entry, BrokenEntry):
        raise EntryError(f"The built-in detector {DETECTOR} cannot be used: {entry.reason} Install HemaZoo again.")
    return entry


def crop_detector_hash(crop: str) -> str:
    """SHA-256 of the weights of the detector that a kind of crop uses; empty where it uses none. Raises EntryError."""
    if crop not in FOUND_CROPS:
        return ""
    weights = crop_detector().folder / WEIGHTS
    return _hash_of(weights, weights.stat().st_mtime_ns)


@lru_cache(1)
def _hash_of(weights: Path, _changed: int) -> str:
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def _list_all(places: Sequence[Source] | None = None) -> list[AnyEntry]:
    """Entries of every kind, with different ids."""
    found: dict[str, AnyEntry] = {}
    for source in sources() if places is None else places:
        for entry in source.entries():
            name, number = entry.id, 2
            while name in found:
                name, number = f"{entry.id}~{number}", number + 1
            if name != entry.id:
                reason = f"Another entry is already called {entry.id}. Rename the folder {entry.folder}."
                entry = BrokenEntry(name, entry.folder, reason)
            found[name] = entry
    return [with_members(entry, found) if isinstance(entry, Entry) else entry for entry in found.values()]


def get_entry(name: str, entries: Sequence[AnyEntry] | None = None) -> Entry:
    """The usable entry of a given name.

    Args:
        name: An id, or a repository of the Hub as NAMESPACE/NAME[@REVISION].
        entries: Where to look for the id; by default in the whole zoo.

    Raises:
        EntryError: There is no such entry, it is broken or has no weights, or its namespace is not allowed here.

    Example:
        >>> zoo.get_entry("cnn60").labels
        ['eosinophil', 'lymphocyte', 'monocyte', 'neutrophil']
    """
    entries = list_entries() if entries is None else entries
    if "/" in name:
        entries = [_of_hub(name, entries)]
        name = entries[0].id
    for entry in entries:
        if entry.id == name:
            if isinstance(entry, BrokenEntry) or not entry.usable:
                raise EntryError(f"{name} cannot be used: {entry.reason}")
            return entry
    if any(entry.id == name for entry in list_detectors()):
        raise EntryError(f"{name} finds cells and does not classify them. Choose a model of `python -m zoo list`.")
    names = ", ".join(entry.id for entry in usable_entries(entries)) or "none"
    raise EntryError(f"There is no model {name!r}. Models here: {names}.")


def _of_hub(name: str, entries: Sequence[AnyEntry]) -> AnyEntry:
    """An entry of the Hub by NAMESPACE/NAME[@REVISION], if its namespace is allowed."""
    repo, _, revision = name.partition("@")
    known = {
        entry.origin.repo for entry in entries if isinstance(entry, Entry) and isinstance(entry.origin, hub.Remote)
    }
    namespaces = {source.place.split("/")[0] for source in sources() if isinstance(source, hub.HubSource)}
    allowed = repo in known or repo.split("/")[0] in namespaces or os.environ.get(ANY_NAMESPACE_VARIABLE)
    if not allowed:
        raise EntryError(
            f"{repo} is not in a place that this zoo trusts. Add hub:{repo} to {VARIABLE}, or set "
            f"{ANY_NAMESPACE_VARIABLE}=1 to allow all."
        )
    entry = hub.resolve(repo, revision or "main")
    return with_members(entry, {other.id: other for other in entries}) if isinstance(entry, Entry) else entry


def distinct_titles(entries: Sequence[Entry]) -> dict[str, str]:
    """Titles by id; where two entries share a title, each is followed by its id."""
    count = Counter(entry.title for entry in entries)
    return {entry.id: f"{entry.title} ({entry.id})" if count[entry.title] > 1 else entry.title for entry in entries}
