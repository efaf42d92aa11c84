"""Which pictures can a person try at once? Twelve smear frames fetched on demand, or a folder of the operator's.

No picture is part of the project: a manifest names each by address and SHA-256.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests

from zoo.cache import cache_folder
from zoo.images import SUFFIXES

MANIFEST = Path(__file__).parent / "examples.json"
VARIABLE = "HEMAZOO_EXAMPLES"
MOST = 24  # pictures of an operator's folder that are shown
TIMEOUT = 10.0  # seconds


class ExamplesError(RuntimeError):
    """Examples that cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Example:
    """One example: its name, its label if known, whom to credit, its file (or None) and where to fetch it from."""

    name: str
    label: str | None
    credit: str
    path: Path | None
    url: str | None = None
    sha256: str | None = None


def list_examples() -> list[Example]:
    """The examples on offer; those of the manifest have a `path` once they are fetched.

    Raises ExamplesError if HEMAZOO_EXAMPLES names a folder without pictures.
    """
    named = os.environ.get(VARIABLE)
    return _of_folder(Path(named).expanduser()) if named else _of_manifest()


def fetch(example: Example) -> Example:
    """The example with its file in the cache, downloading it if need be; its SHA-256 is checked.

    Raises ExamplesError without network, or if what arrives is another file.
    """
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
    return Example(example.name, example.label, example.credit, Path(path), example.url, example.sha256)


def _folder() -> Path:
    return cache_folder() / "examples"


def _of_folder(folder: Path) -> list[Example]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise ExamplesError(f"There is no picture in {folder}. Correct {VARIABLE}, or remove it for the usual ones.")
    return [Example(path.name, None, f"from {folder.name}", path) for path in files[:MOST]]


def _of_manifest() -> list[Example]:
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    found = []
    for item in manifest["examples"]:
        kept = _folder() / item["name"]
        path = kept if kept.is_file() and pooch.file_hash(str(kept)) == item["sha256"] else None
        found.append(Example(item["name"], item["label"], manifest["credit"], path, item["url"], item["sha256"]))
    return found
