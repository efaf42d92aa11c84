"""Publish example pictures on the Hugging Face Hub: a few per class, without metadata.

They are saved anew as PNG, pixel for pixel, under names of class and number only: file names and metadata of clinical
pictures may identify a person.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.publish.repository import Log, Publication, check_name, publish_folder
from zoo.entry import EntryError
from zoo.files import write_text
from zoo.imaging.decode import SUFFIXES, PictureError, decode
from zoo.lazy import lazy_module
from zoo.sources.examples import MAX_EXAMPLES

if TYPE_CHECKING:
    import huggingface_hub

    from zoo.sources import hub
else:
    huggingface_hub = lazy_module("huggingface_hub")
    hub = lazy_module("zoo.sources.hub")

CARD = "README.md"  # of the data set's repository
PICTURES_PER_CLASS = 3
UNLABELLED = "cells"  # folder of pictures without a class
MAX_FOLDER_LETTERS = 80


@dataclass(frozen=True)
class ExampleOptions:
    """Options for publishing example pictures.

    Attributes:
        per_class: Number of pictures per class.
        title: Title of the card.
        credit: Source of the pictures.
        licence: Licence id of the Hub.
        private: Whether a new repository is private.
        dry_run: Whether to change nothing, and only return what would change.
    """

    per_class: int = PICTURES_PER_CLASS
    title: str = "Blood cells to try"
    credit: str = ""
    licence: str = "other"
    private: bool = False
    dry_run: bool = False


def publish(folder: Path, repo: str, options: ExampleOptions, log: Log) -> Publication:
    """Put some pictures of a folder, or of its class folders, into the data-set repository `repo`.

    Raises:
        EntryError: There is no picture, one cannot be read, the Hub refuses, or somebody else published meanwhile.
            Nothing was changed.
    """
    check_name(repo)
    chosen = choose(folder, options.per_class)
    with hub.hub_errors(repo), tempfile.TemporaryDirectory() as temporary:
        staged = stage(chosen, Path(temporary), options)
        return publish_folder(
            staged, repo, "dataset", "Publish examples", _is_ours, log, options.private, options.dry_run
        )


def choose(folder: Path, per_class: int) -> dict[str, list[Path]]:
    """The first pictures by name of every class folder, or of the folder itself.

    Returns:
        Files by class label.

    Raises:
        EntryError: There are no pictures, or more than the app shows.
    """
    if not folder.is_dir():
        raise EntryError(f"There is no folder {folder}.")
    folders = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] not in "._"}
    chosen = {label: _pictures(place)[:per_class] for label, place in folders.items()}
    chosen = {label: files for label, files in chosen.items() if files}
    chosen = chosen or {UNLABELLED: _pictures(folder)[:MAX_EXAMPLES]}
    total = sum(map(len, chosen.values()))
    if not total:
        raise EntryError(f"There is no picture in {folder}. It should hold pictures, or one folder of them per class.")
    if total > MAX_EXAMPLES:
        raise EntryError(f"These are {total} pictures; the app shows at most {MAX_EXAMPLES}. Give a smaller --each.")
    return chosen


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def stage(chosen: Mapping[str, Sequence[Path]], folder: Path, options: ExampleOptions) -> Path:
    """Write the folder to send: one folder of PNG per class, as `datasets` reads it, and a card; returns the folder.

    Raises:
        EntryError: A picture cannot be read.
    """
    for label, files in chosen.items():
        name = re.sub(r"[^\w -]", "-", label, flags=re.ASCII)[:MAX_FOLDER_LETTERS]
        (folder / name).mkdir()
        for number, path in enumerate(files, 1):
            try:
                image = decode(path)
            except PictureError as error:
                raise EntryError(f"{path}: {error} Nothing was published.") from error
            image.info.clear()  # a colour profile may name the device
            image.save(folder / name / f"{name}-{number:02}.png")
    write_text(folder / CARD, render_card(chosen, options))
    return folder


def render_card(chosen: Mapping[str, Sequence[Path]], options: ExampleOptions) -> str:
    """The data set's card as Markdown."""
    metadata = huggingface_hub.DatasetCardData(
        pretty_name=options.title,
        license=options.licence,
        task_categories=["image-classification"],
        size_categories=["n<1K"],
        tags=[hub.TAG, "blood-cells", "hematology"],
    )
    rows = "\n".join(f"| {label} | {len(files)} |" for label, files in chosen.items())
    source = f"\nSource: {options.credit}\n" if options.credit else ""
    return (
        f"---\n{metadata.to_yaml()}\n---\n\n# {options.title}\n\nExample pictures for HemaZoo: set "
        "`HEMAZOO_EXAMPLES=hub:NAMESPACE/NAME` to this repository, and the Examples page of the app shows them.\n"
        f"{source}\n| class | pictures |\n|---|---|\n{rows}\n\nFor research and teaching; not for diagnosis.\n"
    )


def _is_ours(name: str) -> bool:
    """Whether a file of the repository is one that publishing may delete."""
    return name == CARD or (hub.PICTURE.fullmatch(name) is not None and name.endswith(".png"))
