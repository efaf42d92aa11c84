"""Check what the Hub says about a commit, and the hashes of files that arrived."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from huggingface_hub.hf_api import RepoSibling

from zoo.entry import EntryError
from zoo.imaging.decode import SUFFIXES
from zoo.limits import HUB_FILES, PICTURE_MB
from zoo.sources.hub.schema import MAX_FILE_BYTES, PICTURE, Commit, File, is_allowed

UNKNOWN_SIZE = 1 << 60  # bytes; more than any limit, so that a file of unknown size is never fetched
MAX_TAGS, MAX_TAG_LETTERS = 200, 80
MAX_ABOUT_LETTERS = 200
CHUNK_BYTES = 1 << 20


def file_hash(path: Path, file: File) -> str:
    """Hash of a file on disk as the Hub states it for `file`: SHA-256 if it is large, else git's blob id."""
    if file.large:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as opened:
        while chunk := opened.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def file_of(sibling: RepoSibling) -> File:
    """Size and hash of a file, from the Hub's answer about its repository."""
    if sibling.lfs is not None:
        return File(size=sibling.lfs.size, oid=sibling.lfs.sha256, large=True)
    return File(size=sibling.size if sibling.size is not None else UNKNOWN_SIZE, oid=sibling.blob_id or "")


def model_commit(info: Any) -> Commit:
    """The commit of a model's repository, with the allowed files alone.

    Raises:
        EntryError: If a file of an entry is larger than its limit.
    """
    files = {}
    for sibling in info.siblings or []:
        file = file_of(sibling)
        if is_allowed(sibling.rfilename, file.size):
            files[sibling.rfilename] = file
        elif sibling.rfilename in MAX_FILE_BYTES:
            raise EntryError(f"{info.id}: {sibling.rfilename} has {file.size:,} bytes, more than are fetched.")
    if len(files) > HUB_FILES.value:
        raise EntryError(f"{info.id}: it lists {len(files):,} files of an entry; at most {HUB_FILES.value:,} are read.")
    counted = getattr(info, "safetensors", None)
    tags = tuple(str(tag)[:MAX_TAG_LETTERS] for tag in (info.tags or [])[:MAX_TAGS])
    return Commit(repo=info.id, sha=info.sha, files=files, parameters=counted.total if counted else None, tags=tags)


def dataset_commit(info: Any) -> Commit:
    """The commit of a data set's repository: pictures that can be shown, and its card's name and licence."""
    card = info.card_data.to_dict() if info.card_data else {}
    about = [str(card[key])[:MAX_ABOUT_LETTERS] for key in ("pretty_name", "license") if isinstance(card.get(key), str)]
    listed = {sibling.rfilename: file_of(sibling) for sibling in info.siblings or []}
    files = {
        name: file
        for name, file in listed.items()
        if PICTURE.fullmatch(name) and Path(name).suffix.lower() in SUFFIXES and file.size <= PICTURE_MB.bytes
    }
    return Commit(kind="dataset", repo=info.id, sha=info.sha, files=files, about=", ".join(about))
