"""How does an entry come onto the Hub? Checked, drawn, sent in one commit that nobody else's can cross, then proved.

What is sent is what the entry has, a card for the Hub and its pictures. Files that an entry could have and this one
has no more are deleted; other files of the repository are let alone. Weights go up before the commit, so that what is
cut short leaves main as it was.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, ModelCard, constants
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from matplotlib.figure import Figure

from training.publish.card import renew_card
from zoo.benchmarks.leaderboard import home_benchmark
from zoo.entry import CARD, Entry, EntryError, read_entry, read_history
from zoo.entry.write import write_card
from zoo.imaging.decode import from_array
from zoo.serving.runtime import Runtime
from zoo.sources import hub

ASSETS = "assets"
PICTURES = {"confusion.png": "Confusion matrix of the test set at home", "curves.png": "Training and validation curves"}
AGREE = 1e-3  # by which a probability may differ after the way through the Hub
Say = Callable[[object], None]
Kind = Literal["model", "dataset", "space"]


@dataclass(frozen=True)
class Change:
    """What a publication changes in a repository: paths by what happens to them."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]

    @property
    def none(self) -> bool:
        """Whether everything is there already."""
        return not (self.added or self.changed or self.deleted)

    def lines(self) -> Iterator[str]:
        """A line a file."""
        for sign, paths in (("+", self.added), ("~", self.changed), ("-", self.deleted)):
            yield from (f"{sign} {path}" for path in paths)


@dataclass(frozen=True)
class Published:
    """What became of an entry: its repository, the commit it is at (None in a rehearsal of a new one) and its page."""

    repo: str
    sha: str | None
    url: str
    change: Change
    tag: str | None = None


@dataclass(frozen=True)
class Wanted:
    """How to publish."""

    private: bool = False
    tag: str | None = None
    pull_request: bool = False
    rehearse: bool = False


def publish(entry: Entry, repo: str, wanted: Wanted, say: Say) -> Published:
    """Put an entry into the model repository `repo` and prove that it answers from there as it does here.

    Raises EntryError if the entry cannot be published, the Hub refuses, or somebody else published meanwhile: nothing
    of main is changed then.
    """
    if entry.config is None:
        raise EntryError(f"{entry.id} cannot be published: {entry.reason}")
    if not hub.REPO.fullmatch(repo):
        raise EntryError(f"{repo} is no name of a repository: give NAMESPACE/NAME of letters, digits, dots and dashes.")
    client = hub.api()
    with hub.hub_errors(repo), tempfile.TemporaryDirectory() as place:
        staged = stage(entry, repo, Path(place) / repo.split("/")[1])
        url = f"{client.endpoint}/{repo}"
        if not wanted.rehearse:
            client.create_repo(repo, private=wanted.private or None, exist_ok=True)
        head, there = state(repo)
        change = compare(staged, there, _is_ours)
        _check_tag(repo, wanted.tag, None if not change.none else head)
        if wanted.rehearse:
            return Published(repo, head, url, change, wanted.tag)
        if change.none:
            say(f"{repo}: nothing has changed.")
            sha = str(head)
        else:
            message = f"Publish {entry.id}" if change.added else "Renew card and figures"
            sha, url = push(repo, staged, change, None if wanted.pull_request else str(head), url, message)
        if wanted.tag and wanted.tag not in _tags(repo):
            client.create_tag(repo, tag=wanted.tag, revision=sha)
        prove(entry, repo, sha)
    return Published(repo, sha, url, change, wanted.tag)


def stage(entry: Entry, repo: str, place: Path) -> Path:
    """The folder that is sent: the entry's own files, its card as the Hub shows it, and the card's pictures."""
    place.mkdir(parents=True)
    for path in sorted(p for p in entry.folder.rglob("*") if p.is_file()):
        name = path.relative_to(entry.folder).as_posix()
        if hub.is_allowed(name, path.stat().st_size):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place / name)
        elif name in hub.MAX_FILE_BYTES:
            raise EntryError(f"{entry.id} cannot be published: {name} has {path.stat().st_size:,} bytes, too many.")
    copied = read_entry(place, entry.id)
    for name, data in pictures(copied).items():
        (place / ASSETS).mkdir(exist_ok=True)
        (place / ASSETS / name).write_bytes(data)
    drawn = {f"{ASSETS}/{name}": text for name, text in PICTURES.items() if (place / ASSETS / name).exists()}
    renew_card(place, repo, drawn)
    _mark(place, entry)
    return place


def _mark(place: Path, entry: Entry) -> None:
    """See to it that a card that was written elsewhere can be listed: library and tag."""
    path = place / CARD
    card = ModelCard(path.read_text(encoding="utf-8") if path.exists() else f"---\n---\n# {entry.title}\n")
    tags = list(card.data.tags or [])
    if card.data.library_name and hub.TAG in tags:
        return
    card.data.library_name = card.data.library_name or "timm"
    card.data.tags = [*tags, hub.TAG]
    write_card(place, str(card))


def pictures(entry: Entry) -> dict[str, bytes]:
    """The card's pictures as PNG, of what the entry keeps; the same bytes for the same entry."""
    found = {}
    home = entry.evaluation.benchmarks.get(home_benchmark(entry) or "")
    if home:
        found["confusion.png"] = _confusion(np.array(home.confusion), home.labels)
    history = read_history(entry)
    if {"epoch", "train_loss", "val_loss"} <= set(history) and len(history) > 1:
        figure = Figure(figsize=(7, 3), layout="constrained")
        for axes, kind in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            sides = [side for side in ("train", "val") if f"{side}_{kind}" in history]
            for side in sides:
                axes.plot(range(1, len(history) + 1), history[f"{side}_{kind}"], label=side)
            axes.set(xlabel="epoch", title=kind)
            if sides:
                axes.legend()
        found["curves.png"] = _png(figure)
    return found


def _confusion(counts: np.ndarray, labels: list[str]) -> bytes:
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    figure = Figure(figsize=(1.5 + 0.62 * len(labels),) * 2, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Reds", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="called", ylabel="is")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=7, color=colour)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # without the version of what drew it, so that a later one makes no change
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def compare(staged: Path, there: Mapping[str, hub.File], is_ours: Callable[[str], bool]) -> Change:
    """What has to be sent and deleted so that a repository holds what is staged; files that are not ours stay."""
    here = {path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()}
    known = here & set(there)
    return Change(
        added=tuple(sorted(here - known)),
        changed=tuple(sorted(name for name in known if hub.file_hash(staged / name, there[name]) != there[name].oid)),
        deleted=tuple(sorted(name for name in set(there) - known if is_ours(name))),
    )


def _is_ours(name: str) -> bool:
    return hub.is_allowed(name, 0) or name.startswith(f"{ASSETS}/")


def state(repo: str, kind: Kind = "model") -> tuple[str | None, dict[str, hub.File]]:
    """Where main stands, and all its files; None and nothing of a repository that is not there."""
    try:
        info = hub.api().repo_info(repo, repo_type=kind, files_metadata=True, timeout=hub.request_timeout())
    except RepositoryNotFoundError:
        return None, {}
    return info.sha, {one.rfilename: hub.file_of(one) for one in info.siblings or []}


def _tags(repo: str) -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in hub.api().list_repo_refs(repo).tags}


def _check_tag(repo: str, tag: str | None, sha: str | None) -> None:
    """Before anything is sent: a tag that stands elsewhere stays where it is."""
    try:
        known = _tags(repo) if tag else {}
    except RepositoryNotFoundError:
        return
    if tag in known and known[tag] != sha:
        raise EntryError(f"{repo} has a tag {tag} already, at {known[tag][:10]}. Choose another: tags are not moved.")


def push(
    repo: str, staged: Path, change: Change, head: str | None, url: str, message: str, kind: Kind = "model"
) -> tuple[str, str]:
    """Send a change in one commit on `head`, or as a pull request where that is None; returns its sha and page.

    Raises EntryError, with nothing changed, if `head` is not where main stands any more or the card is refused.
    """
    operations: list[Any] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=staged / name)
        for name in (*change.added, *change.changed)
    ]
    operations += [CommitOperationDelete(path_in_repo=name) for name in change.deleted]
    try:
        # the client has the Hub check a card's metadata before it commits
        made = hub.api().create_commit(
            repo,
            operations,
            repo_type=kind,
            commit_message=message,
            parent_commit=head,
            create_pr=head is None,
        )
    except HfHubHTTPError as error:
        if error.response.status_code == 412:
            raise EntryError(
                f"{repo}: somebody else published meanwhile, nothing was changed. Give the command again."
            ) from error
        raise
    except ValueError as error:
        raise EntryError(f"{repo}: the Hub does not accept the card. {error}") from error
    return made.oid, made.pr_url or url


def prove(entry: Entry, repo: str, sha: str) -> None:
    """Fetch what was published into an empty place, and let it classify a drawn picture as the entry does here.

    Raises EntryError if it cannot be fetched or answers otherwise.
    """
    with tempfile.TemporaryDirectory() as place, _cache(place):
        found = hub.entry_at(repo, sha)
        if not found.ok:
            raise EntryError(f"{repo} was published, but does not read from the Hub: {found.reason}")
        if found.weights is None or found.config is None or found.config.zoo.members:
            return  # there is nothing of its own to ask
        picture = from_array(np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8))
        with Runtime("cpu", "fp32") as runtime:
            there, here = (runtime.classify(one, picture).probabilities for one in (hub.fetch(found), entry))
    if any(abs(there[label] - here[label]) > AGREE for label in here):
        raise EntryError(f"{repo} was published, but answers otherwise than {entry.id} does here. Please report it.")


@contextmanager
def _cache(place: str) -> Iterator[None]:
    before = constants.HF_HUB_CACHE
    constants.HF_HUB_CACHE = place
    try:
        yield
    finally:
        constants.HF_HUB_CACHE = before
