"""Publish an entry on the Hugging Face Hub, in one commit, and check that it gives the same answers from there.

The entry's files are sent with a card for the Hub and the card's figures. Files that an entry can have and this one no
longer has are deleted; other files of the repository stay.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from huggingface_hub import ModelCard, constants
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError
from PIL import Image

from training.publish.card import renew_card
from training.publish.figures import CAPTIONS, card_figures
from training.publish.repository import (
    Log,
    Publication,
    check_name,
    commit_change,
    create_repository,
    find_changes,
    repository_state,
    repository_url,
)
from zoo.detection.detector import Detector
from zoo.entry import CARD, BrokenEntry, Entry, EntryError, load_entry
from zoo.entry.write import write_card
from zoo.imaging.decode import from_array
from zoo.serving.runtime import Runtime
from zoo.sources import hub

UNREACHABLE = (OfflineModeIsEnabled, LocalEntryNotFoundError, httpx2.TransportError, ConnectionError)
ASSETS = "assets"  # folder of the card's figures
TOLERANCE = 1e-3  # largest difference of a probability before and after publication


@dataclass(frozen=True)
class PublishOptions:
    """Options for publishing an entry.

    Attributes:
        private: Whether a new repository is private.
        tag: Name for the commit, such as v1.
        pull_request: Whether to open a pull request instead of changing the main branch.
        dry_run: Whether to change nothing, and only return what would change.
    """

    private: bool = False
    tag: str | None = None
    pull_request: bool = False
    dry_run: bool = False


def publish(entry: Entry, repo: str, options: PublishOptions, log: Log) -> Publication:
    """Put an entry into the model repository `repo`, and check that it gives the same answers from there.

    Raises:
        EntryError: The entry cannot be published, the Hub refuses, or somebody else published meanwhile; the main
            branch is not changed. Also raised where the published entry answers differently.
    """
    check_name(repo)
    with hub.hub_errors(repo), tempfile.TemporaryDirectory() as temporary:
        staged = stage(entry, repo, Path(temporary) / repo.split("/")[1])
        url = repository_url(repo, "model")
        if options.dry_run:
            return _preview(staged, repo, url, options, log)
        create_repository(repo, "model", options.private)
        head, published = repository_state(repo, "model")
        change = find_changes(staged, published, _is_ours)
        _check_tag(repo, options.tag, head if change.is_empty else None)
        if change.is_empty:
            log(f"{repo}: nothing has changed.")
            sha = str(head)
        else:
            message = f"Publish {entry.id}" if change.added else "Renew card and figures"
            parent = None if options.pull_request else str(head)
            sha, url = commit_change(repo, "model", staged, change, parent, message)
        if options.tag and options.tag not in _tags(repo):
            hub.api().create_tag(repo, tag=options.tag, revision=sha)
        verify(entry, repo, sha)
    return Publication(repo, sha, url, change, options.tag)


def _preview(staged: Path, repo: str, url: str, options: PublishOptions, log: Log) -> Publication:
    """Tell what a publication would change, and the card that it would send; without a network, all files."""
    head: str | None = None
    try:
        with hub.hub_errors(repo):
            head, published = repository_state(repo, "model")
            change = find_changes(staged, published, _is_ours)
            _check_tag(repo, options.tag, head if change.is_empty else None)
    except EntryError as error:
        if not isinstance(error.__cause__, UNREACHABLE):
            raise
        log(f"{error} It is not known what is there: all files are listed.")
        change = find_changes(staged, {}, _is_ours)
    log(f"{repo}: the card {CARD} would be:\n\n{(staged / CARD).read_text(encoding='utf-8')}")
    return Publication(repo, head, url, change, options.tag)


def stage(entry: Entry, repo: str, folder: Path) -> Path:
    """Write the folder to send: the entry's files, its card for the Hub, and the card's figures; returns the folder."""
    folder.mkdir(parents=True)
    for path in sorted(p for p in entry.folder.rglob("*") if p.is_file()):
        name = path.relative_to(entry.folder).as_posix()
        size = path.stat().st_size
        if hub.is_allowed(name, size):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        elif name in hub.MAX_FILE_BYTES:
            raise EntryError(
                f"{entry.id} cannot be published: {name} has {size:,} bytes, more than {hub.MAX_FILE_BYTES[name]:,}."
            )
    figures = card_figures(load_entry(folder, entry.id))
    for name, data in figures.items():
        (folder / ASSETS).mkdir(exist_ok=True)
        (folder / ASSETS / name).write_bytes(data)
    renew_card(folder, repo, {f"{ASSETS}/{name}": caption for name, caption in CAPTIONS.items() if name in figures})
    _make_card_listable(folder, entry)
    return folder


def _make_card_listable(folder: Path, entry: Entry) -> None:
    """Add library and tag, by which the app finds entries, to a card that lacks them."""
    path = folder / CARD
    card = ModelCard(path.read_text(encoding="utf-8") if path.exists() else f"---\n---\n# {entry.title}\n")
    metadata: Any = card.data  # ModelCardData, though typed as its base class
    tags = list(metadata.tags or [])
    if metadata.library_name and hub.TAG in tags:
        return
    metadata.library_name = metadata.library_name or "timm"
    metadata.tags = [*tags, hub.TAG]
    write_card(folder, str(card))


def _is_ours(name: str) -> bool:
    """Whether a file of the repository is one that publishing may delete."""
    return hub.is_allowed(name, 0) or name.startswith(f"{ASSETS}/")


def _tags(repo: str) -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in hub.api().list_repo_refs(repo).tags}


def _check_tag(repo: str, tag: str | None, sha: str | None) -> None:
    """Raise EntryError if the repository has the tag on another commit than `sha`."""
    try:
        tags = _tags(repo) if tag else {}
    except RepositoryNotFoundError:
        return
    if tag in tags and tags[tag] != sha:
        raise EntryError(f"{repo} has a tag {tag} already, at {tags[tag][:10]}. Choose another: tags are not moved.")


def verify(entry: Entry, repo: str, sha: str) -> None:
    """Download what was published into an empty cache and compare its answers with the entry's.

    Raises:
        EntryError: It cannot be read, or its answers differ.
    """
    with tempfile.TemporaryDirectory() as temporary, _hub_cache(temporary):
        published = hub.entry_at(repo, sha)
        if isinstance(published, BrokenEntry):
            raise EntryError(f"{repo} was published, but cannot be read from the Hub: {published.reason}")
        if published.weights is None or published.config.zoo.members:
            return  # no weights of its own to compare
        picture = from_array(np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8))
        remote, local = (_answers(one, picture) for one in (hub.fetch(published), entry))
    if not np.allclose(remote, local, rtol=0, atol=TOLERANCE):
        raise EntryError(f"{repo} was published, but its answers differ from those of {entry.id}. Please report it.")


def _answers(entry: Entry, picture: Image.Image) -> list[float]:
    """Probabilities of a classifier, or confidences of a detector's first maps, for a picture."""
    if entry.is_detector:
        pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255
        logits, _ = Detector(entry, "torch").forward(pixels)
        return list((1 / (1 + np.exp(-logits))).ravel())
    with Runtime("cpu", "fp32") as runtime:
        return list(runtime.classify(entry, picture).network.values())


@contextmanager
def _hub_cache(folder: str) -> Iterator[None]:
    before = constants.HF_HUB_CACHE
    constants.HF_HUB_CACHE = folder
    try:
        yield
    finally:
        constants.HF_HUB_CACHE = before
