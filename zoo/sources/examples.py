"""Example pictures: some that come with the program, and smear frames or pictures that the operator names.

A few thumbnails are bundled (`bundled/examples.toml`). Of smear frames, a manifest (JSON, named in
HEMAZOO_EXAMPLES_MANIFEST or the one beside this module) gives the address and SHA-256 of each; they are downloaded on
demand. With HEMAZOO_EXAMPLES an operator offers a folder or a data-set repository of the Hub instead (see
`training publish-examples`).
"""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from zoo.cache import cache_folder
from zoo.entry import EntryError
from zoo.imaging.decode import SUFFIXES
from zoo.lazy import lazy_module
from zoo.sources import HUB_PREFIX

if TYPE_CHECKING:
    import pooch

    from zoo.sources import hub
else:
    pooch = lazy_module("pooch")
    hub = lazy_module("zoo.sources.hub")

BUNDLED = Path(__file__).parent / "bundled"
MANIFEST = Path(__file__).parent / "examples.json"
MANIFEST_VARIABLE = "HEMAZOO_EXAMPLES_MANIFEST"
VARIABLE = "HEMAZOO_EXAMPLES"
MAX_EXAMPLES = 24  # of a folder or repository
TIMEOUT_SECONDS = 10.0


class ExamplesError(RuntimeError):
    """Examples are not available; the message says why and what to do."""


@dataclass(frozen=True)
class Example:
    """An example picture.

    Attributes:
        name: File name, perhaps in a folder.
        label: Its class, if known.
        credit: Whom to credit.
        path: The file on this computer, or None if it has to be fetched.
        url: Address to fetch it from.
        sha256: Hash of the file at that address.
        origin: Repository of the Hub to fetch it from instead.
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
        """Size, if it is known before the download."""
        return self.origin.commit.files[self.name].size if self.origin else None


def list_examples() -> list[Example]:
    """The examples on offer; those that were downloaded have a `path`.

    Raises:
        ExamplesError: If HEMAZOO_EXAMPLES names a folder or a repository without pictures.
    """
    place = os.environ.get(VARIABLE)
    if not place:
        return _of_manifest()
    if place.startswith(HUB_PREFIX):
        return _of_hub(place.removeprefix(HUB_PREFIX))
    return _of_folder(Path(place).expanduser())


def bundled_examples() -> list[Example]:
    """The pictures that come with the program: fields, and one of each kind; `label` is their title."""
    content = tomllib.loads((BUNDLED / "examples.toml").read_text(encoding="utf-8"))
    credit = content["credits"]
    return [
        Example(item["file"], item["title"], credit[item["credit"]], BUNDLED / item["file"])
        for item in content["examples"]
    ]


def fetch(example: Example) -> Example:
    """Download an example to the cache unless it is there, and check its hash.

    Returns:
        The example with its `path`.

    Raises:
        ExamplesError: Without network, if the file's hash is wrong, or if it cannot be stored.
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
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS),
        )
    except requests.RequestException as error:
        raise ExamplesError(
            f"{example.name} cannot be fetched: no connection to its address. Try again with network, or name a folder "
            f"of your own pictures in {VARIABLE}."
        ) from error
    except ValueError as error:
        raise ExamplesError(f"{example.name} has changed at its address and was not kept. Please report it.") from error
    except OSError as error:
        raise ExamplesError(f"{example.name} cannot be stored in {_folder()}: {error.strerror}.") from error
    return replace(example, path=Path(path))


def _folder() -> Path:
    return cache_folder() / "examples"


def _of_folder(folder: Path) -> list[Example]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise ExamplesError(
            f"There is no picture in {folder}. Correct {VARIABLE}, or unset it for the built-in examples."
        )
    return [Example(path.name, None, f"from {folder.name}", path) for path in files[:MAX_EXAMPLES]]


def _of_hub(repo: str) -> list[Example]:
    try:
        origin = hub.data_set(repo)
    except EntryError as error:
        raise ExamplesError(f"{error} Or name another place in {VARIABLE}.") from error
    names = sorted(origin.commit.files)
    if not names:
        raise ExamplesError(
            f"There is no picture in {repo}. Correct {VARIABLE}, or unset it for the built-in examples."
        )
    credit = f"{origin.commit.about or repo} ({repo} on the Hugging Face Hub)"
    return [
        Example(
            name,
            str(Path(name).parent) if "/" in name else None,
            credit,
            origin.folder / name if (origin.folder / name).is_file() else None,
            origin=origin,
        )
        for name in names[:MAX_EXAMPLES]
    ]


def _of_manifest() -> list[Example]:
    manifest = json.loads(Path(os.environ.get(MANIFEST_VARIABLE) or MANIFEST).read_text(encoding="utf-8"))
    examples = []
    for item in manifest["examples"]:
        cached = _folder() / item["name"]
        path = cached if cached.is_file() and pooch.file_hash(str(cached)) == item["sha256"] else None
        examples.append(Example(item["name"], item["label"], manifest["credit"], path, item["url"], item["sha256"]))
    return examples
