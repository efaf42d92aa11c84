"""Models and pictures on the Hugging Face Hub: located, downloaded and verified.

An entry is a repository at one commit, so its files never change. They are stored in huggingface_hub's cache, which
all processes of a machine share; each is downloaded once and its hash compared with what the Hub states. Only files of
an entry are ever fetched, and nothing from a repository is ever executed. A listing needs the JSON files alone; weights
are fetched when a model is chosen.
"""

from zoo.sources.hub.client import api, is_offline, request_timeout
from zoo.sources.hub.download import Progress, Remote
from zoo.sources.hub.entries import HubSource, entry_at, fetch, reset, resolve, revisions
from zoo.sources.hub.errors import hub_errors
from zoo.sources.hub.locate import data_set, forget, listed, listings, status
from zoo.sources.hub.schema import (
    MAX_FILE_BYTES,
    NEEDED_FILES,
    PICTURE,
    REPO,
    TAG,
    Commit,
    File,
    Kind,
    Listing,
    Revision,
    Status,
    entry_id,
    is_allowed,
)
from zoo.sources.hub.verify import file_hash, file_of

__all__ = [
    "MAX_FILE_BYTES",
    "NEEDED_FILES",
    "PICTURE",
    "REPO",
    "TAG",
    "Commit",
    "File",
    "HubSource",
    "Kind",
    "Listing",
    "Progress",
    "Remote",
    "Revision",
    "Status",
    "api",
    "data_set",
    "entry_at",
    "entry_id",
    "fetch",
    "file_hash",
    "file_of",
    "forget",
    "hub_errors",
    "is_allowed",
    "is_offline",
    "listed",
    "listings",
    "request_timeout",
    "reset",
    "resolve",
    "revisions",
    "status",
]
