"""The Hub's client: endpoint, timeout, and where it keeps files on this computer."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from zoo.sources.hub.schema import Kind, entry_id

TIMEOUT_VARIABLE = "HEMAZOO_HUB_TIMEOUT"
TIMEOUT_SECONDS = 20.0  # for one response of the Hub


def api() -> HfApi:
    """Client for the endpoint that HF_ENDPOINT names now, with a timeout and with tokens from the usual places."""
    _set_timeout(request_timeout())
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


def request_timeout() -> float:
    """Seconds that one response of the Hub may take: HEMAZOO_HUB_TIMEOUT, or 20."""
    return float(os.environ.get(TIMEOUT_VARIABLE) or TIMEOUT_SECONDS)


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids requests to the Hub."""
    return bool(constants.HF_HUB_OFFLINE)


def endpoint() -> str:
    """Address of the Hub that is used now."""
    return api().endpoint


def cache_root() -> Path:
    """Folder in which huggingface_hub keeps downloaded files."""
    return Path(constants.HF_HUB_CACHE)


def snapshot_folder(repo: str, sha: str, kind: Kind = "model") -> Path:
    """Folder in which huggingface_hub keeps the files of a commit."""
    return cache_root() / f"{kind}s--{entry_id(repo)}" / "snapshots" / sha


@lru_cache(1)
def _set_timeout(seconds: float) -> None:
    """Give the client that huggingface_hub shares a timeout; without one a silent server blocks a page forever."""

    def make_client() -> httpx2.Client:
        # based on the default client, which also enforces HF_HUB_OFFLINE
        client = default_client_factory()
        client.timeout = httpx2.Timeout(seconds)
        return client

    set_client_factory(make_client)
