"""The Hub's client: endpoint, timeout, and where it keeps files on this computer."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from zoo.limits import HUB_TIMEOUT
from zoo.sources.hub.ceilings import check_request, check_response
from zoo.sources.hub.schema import Kind, entry_id


def api() -> HfApi:
    """Client for the endpoint that HF_ENDPOINT names now, with a timeout and with tokens from the usual places."""
    _set_timeout(request_timeout())
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


def request_timeout() -> float:
    """Seconds that one response of the Hub may take: HEMAZOO_HUB_TIMEOUT, or 20."""
    return HUB_TIMEOUT.exact


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
    """Give the client that huggingface_hub shares a timeout and ceilings: a silent server would block a page."""
    # its other way of downloading counts nothing
    constants.HF_HUB_DISABLE_XET = True

    def make_client() -> httpx2.Client:
        # based on the default client, which also enforces HF_HUB_OFFLINE
        client = default_client_factory()
        client.timeout = httpx2.Timeout(seconds)
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], check_request],
            "response": [*hooks["response"], check_response],
        }
        return client

    set_client_factory(make_client)
