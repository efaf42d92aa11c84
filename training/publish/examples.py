"""How do pictures to try come onto the Hub? A few of each class, without what a camera or a person wrote into the file.

They are saved anew as PNG, pixel by pixel the same, under a name that tells the class and a number alone: names and
metadata of clinical pictures may tell who somebody is.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DatasetCardData

from training.publish.hub import Published, Say, compare, push, state
from zoo.entry import EntryError
from zoo.files import write_text
from zoo.imaging.decode import SUFFIXES, ImageError, decode
from zoo.sources import hub
from zoo.sources.examples import MAX_EXAMPLES

EACH = 3
PLAIN = "cells"  # folder of pictures without a class


@dataclass(frozen=True)
class Wanted:
    """How to publish examples: how many of each class, the card's name, source and licence (a Hub licence id)."""

    each: int = EACH
    title: str = "Blood cells to try"
    credit: str = ""
    licence: str = "other"
    private: bool = False
    rehearse: bool = False


def publish(folder: Path, repo: str, wanted: Wanted, say: Say) -> Published:
    """Put some pictures of a folder, or of its class folders, into the data-set repository `repo`.

    Raises EntryError if there is none, one cannot be read, the Hub refuses, or somebody else published meanwhile:
    nothing of main is changed then.
    """
    if not hub.REPO.fullmatch(repo):
        raise EntryError(f"{repo} is no name of a repository: give NAMESPACE/NAME of letters, digits, dots and dashes.")
    chosen = choose(folder, wanted.each)
    client = hub.api()
    with hub.hub_errors(repo), tempfile.TemporaryDirectory() as place:
        staged = stage(chosen, Path(place), wanted)
        url = f"{client.endpoint}/datasets/{repo}"
        if not wanted.rehearse:
            client.create_repo(repo, repo_type="dataset", private=wanted.private or None, exist_ok=True)
        head, there = state(repo, "dataset")
        change = compare(staged, there, _is_ours)
        if wanted.rehearse:
            return Published(repo, head, url, change)
        if change.none:
            say(f"{repo}: nothing has changed.")
            return Published(repo, head, url, change)
        sha, url = push(repo, staged, change, str(head), url, "Publish examples", kind="dataset")
    return Published(repo, sha, url, change)


def choose(folder: Path, each: int) -> dict[str, list[Path]]:
    """The first `each` pictures by name of every class folder, or of the folder itself; label → files.

    Raises EntryError if there are none, or more than are ever shown.
    """
    if not folder.is_dir():
        raise EntryError(f"There is no folder {folder}.")
    places = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] not in "._"}
    found = {label: _pictures(place)[:each] for label, place in places.items()}
    found = {label: files for label, files in found.items() if files} or {PLAIN: _pictures(folder)[:MAX_EXAMPLES]}
    total = sum(map(len, found.values()))
    if not total:
        raise EntryError(f"There is no picture in {folder}. It holds pictures, or a folder of them for each class.")
    if total > MAX_EXAMPLES:
        raise EntryError(f"These are {total} pictures; {MAX_EXAMPLES} are shown at most. Give a smaller --each.")
    return found


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def stage(chosen: Mapping[str, Sequence[Path]], place: Path, wanted: Wanted) -> Path:
    """The folder that is sent: a folder of PNG a class, as `datasets` reads it, and a card. Raises EntryError."""
    for label, files in chosen.items():
        name = re.sub(r"[^\w -]", "-", label, flags=re.ASCII)[:80]
        (place / name).mkdir()
        for number, path in enumerate(files, 1):
            try:
                image = decode(path)
            except ImageError as error:
                raise EntryError(f"{path}: {error} Nothing was published.") from error
            image.info.clear()  # a colour profile may name the device
            image.save(place / name / f"{name}-{number:02}.png")
    write_text(place / "README.md", card(chosen, wanted))
    return place


def card(chosen: Mapping[str, Sequence[Path]], wanted: Wanted) -> str:
    """The data set's card."""
    told = DatasetCardData(
        pretty_name=wanted.title,
        license=wanted.licence,
        task_categories=["image-classification"],
        size_categories=["n<1K"],
        tags=[hub.TAG, "blood-cells", "hematology"],
    )
    rows = "\n".join(f"| {label} | {len(files)} |" for label, files in chosen.items())
    source = f"\nSource: {wanted.credit}\n" if wanted.credit else ""
    return (
        f"---\n{told.to_yaml()}\n---\n\n# {wanted.title}\n\nPictures to try HemaZoo with: set "
        f"`HEMAZOO_EXAMPLES=hub:NAMESPACE/NAME` to this repository, and its Examples page shows them.\n{source}\n"
        f"| class | pictures |\n|---|---|\n{rows}\n\nFor research and teaching; not for diagnosis.\n"
    )


def _is_ours(name: str) -> bool:
    return name == "README.md" or (hub.PICTURE.fullmatch(name) is not None and name.endswith(".png"))
