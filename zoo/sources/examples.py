"""Which pictures can a person try at once? Twelve smear frames fetched on demand, or those the operator names.

No picture is part of the project: a manifest names each by address and SHA-256. An operator names a folder, or a
data-set repository of the Hub (see `training publish-examples`).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pooch
import requests

from zoo.cache import cache_folder
from zoo.entry import EntryError
from zoo.imaging.decode import SUFFIXES
from zoo.sources import hub

MANIFEST = Path(__file__).parent / "examples.json"
VARIABLE = "HEMAZOO_EXAMPLES"
MOST = 24  # pictures of an operator's that are shown
TIMEOUT = 10.0  # seconds


class ExamplesError(RuntimeError):
    """Examples that cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Example:
    """One example: its name, its label if known, whom to credit, its file (or None) and where to fetch it from.

    That is an address with the SHA-256 of what it gives, or a repository of the Hub at a commit.
    """

    name: str
    label: str | None
    credit: str
    path: Path | None
    url: str | None = None
    sha256: str | None = None
    origin: hub.Remote | None = None

    @property
    def bytes(self) -> int | None:
        """Its size where that is known before it is fetched."""
        return self.origin.commit.files[self.name].size if self.origin else None


def list_examples() -> list[Example]:
    """The examples on offer; those of the manifest have a `path` once they are fetched.

    Raises ExamplesError if HEMAZOO_EXAMPLES names a folder or a repository without pictures.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return _of_manifest()
    if named.startswith(hub.PREFIX):
        return _of_hub(named.removeprefix(hub.PREFIX))
    return _of_folder(Path(named).expanduser())


def fetch(example: Example) -> Example:
    """The example with its file in the cache, downloading it if need be; its hash is checked.

    Raises ExamplesError without network, or if what arrives is another file.
    """
    if example.path is None and example.origin is not None:
        try:
            example.origin.fetch(example.name)
        except EntryError as error:
            raise ExamplesError(str(error)) from error
        return replace(example, path=example.origin.folder / example.name)
    if example.path is not None or example.url is None:
        return example
    try:
        path = pooch.retrieve(
            example.url,
            known_hash=f"sha256:{example.sha256}",
            fname=example.name,
            path=_folder(),
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT),
        )
    except requests.RequestException as error:
        raise ExamplesError(
            f"{example.name} cannot be fetched: no connection to its address. Try again with network, or name a folder "
            f"of your own pictures in {VARIABLE}."
        ) from error
    except ValueError as error:
        raise ExamplesError(f"{example.name} is not the file it was; it was thrown away. Please report it.") from error
    except OSError as error:
        raise ExamplesError(f"{example.name} cannot be kept in {_folder()}: {error.strerror}.") from error
    return replace(example, path=Path(path))


def _folder() -> Path:
    return cache_folder() / "examples"


def _of_folder(folder: Path) -> list[Example]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise ExamplesError(f"There is no picture in {folder}. Correct {VARIABLE}, or remove it for the usual ones.")
    return [Example(path.name, None, f"from {folder.name}", path) for path in files[:MOST]]


def _of_hub(repo: str) -> list[Example]:
    try:
        origin = hub.data_set(repo)
    except EntryError as error:
        raise ExamplesError(f"{error} Or name another place in {VARIABLE}.") from error
    names = sorted(origin.commit.files)
    if not names:
        raise ExamplesError(f"There is no picture in {repo}. Correct {VARIABLE}, or remove it for the usual ones.")
    credit = f"{origin.commit.about or repo} ({repo} on the Hugging Face Hub)"
    return [
        Example(
            name,
            str(Path(name).parent) if "/" in name else None,
            credit,
            origin.folder / name if (origin.folder / name).is_file() else None,
            origin=origin,
        )
        for name in names[:MOST]
    ]


def _of_manifest() -> list[Example]:
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    found = []
    for item in manifest["examples"]:
        kept = _folder() / item["name"]
        path = kept if kept.is_file() and pooch.file_hash(str(kept)) == item["sha256"] else None
        found.append(Example(item["name"], item["label"], manifest["credit"], path, item["url"], item["sha256"]))
    return found
