"""The zoo's entries as one session sees them."""

from __future__ import annotations

import streamlit as st

from pages.parts import session
from pages.parts.wording import plain
from zoo import entry as zoo_entry
from zoo.benchmarks import leaderboard
from zoo.entry import AnyEntry, BrokenEntry, Entry, EntryError
from zoo.sources import hub
from zoo.sources.catalogue import MODEL, NO_DETECTOR, list_detectors, list_entries, usual_detector

REFRESH_SECONDS = 5  # how long a new entry may take to appear


@st.cache_resource(ttl=REFRESH_SECONDS, show_spinner="Reading the zoo …")
def _listed() -> list[AnyEntry]:
    """The zoo's entries, read again every few seconds: usable ones first, reproductions of others' systems later.

    Among these the usual model comes first, because it is what a visitor meets; then single models by their mean in
    other laboratories; other ensembles follow, because they take as long as all their members.
    """
    return sorted(list_entries(), key=_rank)


def _rank(entry: AnyEntry) -> tuple[bool, str, bool, bool, float, float]:
    """Sorting key of an entry; broken ones come last."""
    if isinstance(entry, BrokenEntry):
        return True, "", True, False, 0.0, 0.0
    found = leaderboard.cells(entry)
    away, home = (found[name].value if name in found else 0.0 for name in ("away", "home"))
    return not entry.usable, entry.system, entry.id != MODEL, bool(entry.members), -away, -home


def entries() -> list[AnyEntry]:
    """All entries, broken ones included.

    Those that this session made come first; those from the Hub are at the revisions that it chose.
    """
    pins = session.pins()
    listed = [_pinned(entry.id, pins[entry.id]) or entry if entry.id in pins else entry for entry in _listed()]
    return [*session.own_entries(), *listed]


def usable_entries() -> list[Entry]:
    """Entries that can classify. Stops the page with a message if there is none."""
    usable = zoo_entry.usable_entries(entries())
    if not usable:
        st.info("No model can run. Name folders with entries in HEMAZOO_ZOO; **Models** lists the reasons.")
        st.stop()
    return usable


def refresh() -> None:
    """Read the lists of entries again."""
    _listed.clear()
    _detectors.clear()


@st.cache_resource(ttl=REFRESH_SECONDS, show_spinner=False)
def _detectors() -> list[Entry]:
    return [entry for entry in list_detectors() if entry.usable]


def detector_entry() -> Entry | None:
    """The detector of the pages: the usual one, else the first of the zoo; None where none is there or wanted."""
    if usual_detector() == NO_DETECTOR:
        return None
    found = {entry.id: entry for entry in _detectors()}
    return found.get(usual_detector()) or next(iter(found.values()), None)


@st.cache_resource(max_entries=64, show_spinner=False)
def _pinned(identity: str, sha: str) -> Entry | None:
    """An entry of the Hub at another commit; None if there is none."""
    entry = hub.entry_at(identity.replace("--", "/"), sha)
    return entry if isinstance(entry, Entry) else None


def with_weights(entry: Entry) -> Entry:
    """The entry with its weights on this computer, downloaded with a progress bar. Stops the page on failure."""
    remotes = [part.origin for part in entry.members or (entry,) if isinstance(part.origin, hub.Remote)]
    if all(remote.is_local(name) for remote in remotes for name in hub.NEEDED_FILES):
        return entry
    title = plain(entry.title)
    bar = st.progress(0.0, f"Downloading {title} from the Hub …")

    def show(done: int, size: int) -> None:
        bar.progress(done / size, f"Downloading {title}: {done / 1e6:.1f} of {size / 1e6:.1f} MB")

    try:
        return hub.fetch(entry, show)
    except EntryError as error:
        st.error(plain(error), icon=":material/cloud_off:")
        st.info("Choose another model, or try again later.")
        st.stop()
    finally:
        bar.empty()
