"""Which models are there? Entries from an ordered list of sources; the first one that has an id wins.

A source is anything that lists entries, so that a Hub namespace can stand beside the folders.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zoo.entry import CONFIG, Entry, EntryError, Evaluation, read_entry, with_members
from zoo.sources import hub

BUILTIN = Path(__file__).parents[1] / "builtin"
VARIABLE = "HEMAZOO_ZOO"
ANY = "HEMAZOO_HUB_ANY"  # allow repositories of any namespace


class Source(Protocol):
    """A place entries come from."""

    @property
    def name(self) -> str:
        """Name for people."""

    def entries(self) -> list[Entry]:
        """All entries, broken ones with their reason. Raises nothing on bad content."""


@dataclass(frozen=True)
class FolderSource:
    """A folder of entry folders, or one entry's own folder."""

    folder: Path
    name: str

    def entries(self) -> list[Entry]:
        """Entries of the folder by name; a folder that is missing is itself listed as broken."""
        if (self.folder / CONFIG).is_file():
            return [read_entry(self.folder)]
        try:
            # a dot or underscore marks what is half-written or is not an entry
            places = sorted(p for p in self.folder.iterdir() if p.is_dir() and p.name[0] not in "._")
        except OSError as error:
            reason = f"The folder {self.folder} cannot be listed: {error.strerror}. Correct {VARIABLE}."
            return [Entry(self.folder.name or str(self.folder), self.folder, None, Evaluation(), None, reason)]
        return [read_entry(place) for place in places]


def sources(environment: Mapping[str, str] | None = None) -> list[Source]:
    """The built-in folder, then what HEMAZOO_ZOO names: folders and places on the Hub, separated as in PATH."""
    named = (os.environ if environment is None else environment).get(VARIABLE, "")
    # the colon after hub separates nothing
    parts = [part.strip() for part in re.split(rf"(?<!\bhub){os.pathsep}", named) if part.strip()]
    return [FolderSource(BUILTIN, "builtin"), *(_source(part) for part in parts)]


def _source(part: str) -> Source:
    if part.startswith(hub.PREFIX):
        return hub.HubSource(part.removeprefix(hub.PREFIX))
    return FolderSource(Path(part).expanduser(), part)


def list_entries(places: Sequence[Source] | None = None) -> list[Entry]:
    """Entries of all sources in order. An id met again is listed as broken, so that nothing is hidden in silence."""
    found: dict[str, Entry] = {}
    for source in sources() if places is None else places:
        for entry in source.entries():
            name, number = entry.id, 2
            while name in found:
                name, number = f"{entry.id}~{number}", number + 1
            if name != entry.id:
                reason = f"Another entry is already called {entry.id}. Rename the folder {entry.folder}."
                entry = Entry(name, entry.folder, None, Evaluation(), None, reason)
            found[name] = entry
    return [with_members(entry, found) for entry in found.values()]


def get_entry(name: str, entries: Sequence[Entry] | None = None) -> Entry:
    """The usable entry called `name`, or a repository of the Hub as NAMESPACE/NAME[@REVISION].

    Raises EntryError if there is none, it is broken or has no weights, or the operator does not allow its namespace.
    """
    entries = list_entries() if entries is None else entries
    if "/" in name:
        entries = [_of_hub(name, entries)]
        name = entries[0].id
    for entry in entries:
        if entry.id == name:
            if not entry.usable:
                raise EntryError(f"{name} cannot be used: {entry.reason}")
            return entry
    names = ", ".join(entry.id for entry in entries if entry.usable) or "none"
    raise EntryError(f"There is no model {name!r}. Models here: {names}.")


def _of_hub(name: str, entries: Sequence[Entry]) -> Entry:
    repo, _, revision = name.partition("@")
    known = {entry.origin.repo for entry in entries if isinstance(entry.origin, hub.Remote)}
    named = {source.place.split("/")[0] for source in sources() if isinstance(source, hub.HubSource)}
    if repo not in known and repo.split("/")[0] not in named and not os.environ.get(ANY):
        raise EntryError(
            f"{repo} is in no place that this zoo is told to trust. Add hub:{repo} to {VARIABLE}, or set {ANY}=1 to "
            "allow all."
        )
    return with_members(hub.resolve(repo, revision or "main"), {entry.id: entry for entry in entries})


def distinct_titles(entries: Sequence[Entry]) -> dict[str, str]:
    """Titles by id; where two entries share a title, each gets its id behind it."""
    count = Counter(entry.title for entry in entries)
    return {entry.id: f"{entry.title} ({entry.id})" if count[entry.title] > 1 else entry.title for entry in entries}
