"""Download of data sets from MedMNIST, Kaggle and the Hugging Face Hub, each through its own library."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.data.registry import DataSetInfo, augmented_sets, datasets
from zoo.files import atomic_folder

HANDLE = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
PICTURES = ("jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "gif", "parquet", "csv", "npz")
OFFLINE = "Check the connection, or fetch it on another computer and copy the folder here."


class FetchError(RuntimeError):
    """A data set that cannot be fetched; the message says why and what to do."""


@dataclass(frozen=True)
class Remote:
    """A data set to download: its library, its name there, and for MedMNIST the picture size in pixels."""

    library: str
    name: str
    size: int | None = None


@dataclass(frozen=True)
class Fetched:
    """Folder of a downloaded data set, and that of the frames its pictures are augmented copies of, if it came too."""

    place: Path
    originals: Path | None = None


def names_help() -> str:
    """The names that `parse` knows, in a sentence."""
    aliases = "; ".join(f"{alias} ({' and '.join(titles)})" for alias, titles in _aliases().items())
    return (
        "NAME is one of: bloodmnist, bloodmnist_64, bloodmnist_128, bloodmnist_224 (or another MedMNIST set); "
        f"{aliases}; kaggle:OWNER/NAME; hf:OWNER/NAME, a data set of the Hub."
    )


def parse(text: str) -> Remote:
    """Find the download that a name on the command line stands for. Raises FetchError if there is none."""
    source = next((one.fetch.source for one in datasets().values() if one.fetch and one.fetch.alias == text), text)
    library, _, handle = source.partition(":")
    if library in ("kaggle", "hf") and HANDLE.match(handle):
        return Remote(library, handle)
    if found := re.fullmatch(r"([a-z]+mnist)(?:_(28|64|128|224))?", text.lower()):
        from medmnist import INFO  # noqa: PLC0415 (imports half of torchvision)

        if found.group(1) in INFO:
            return Remote("medmnist", found.group(1), int(found.group(2) or 28))
    raise FetchError(f"{text!r} is no data set we can fetch. {names_help()}")


def fetch(remote: Remote, out: Path) -> Fetched:
    """Download a data set into the folder `out`, whole or not at all.

    What is known data sets in one archive gets a folder each.

    Raises FetchError without a connection, without permission, or if there is no such data set.
    """
    fetchers: dict[str, Callable[[Remote, Path], None]] = {"medmnist": _medmnist, "kaggle": _kaggle, "hf": _hub}
    with atomic_folder(out) as folder:
        fetchers[remote.library](remote, folder)
        held = _held_by(remote)
        if held:
            arrange(folder, held)
    for copied, original in augmented_sets():
        if copied in held and original in held:
            return Fetched(out / copied.place, out / original.place / original.frames)
    return Fetched(out / held[0].place if held else out)


def _medmnist(remote: Remote, folder: Path) -> None:
    import medmnist  # noqa: PLC0415

    kind = getattr(medmnist, medmnist.INFO[remote.name]["python_class"])
    suffix = "" if remote.size == 28 else f"_{remote.size}"
    try:
        with _quiet():
            kind(split="train", download=True, root=str(folder), size=remote.size, mmap_mode="r")
    except (RuntimeError, ValueError, OSError) as error:
        address = medmnist.INFO[remote.name][f"url{suffix}"]
        raise FetchError(f"{remote.name} could not be fetched from {address}. {OFFLINE}") from error


def _kaggle(remote: Remote, folder: Path) -> None:
    import kagglehub  # noqa: PLC0415
    from kagglehub import exceptions  # noqa: PLC0415

    try:
        with _quiet():
            kagglehub.dataset_download(remote.name, output_dir=str(folder))
    except (exceptions.UnauthenticatedError, exceptions.CredentialError) as error:
        raise FetchError(
            f"Kaggle wants to know who asks for {remote.name}. Put your token where kagglehub looks for it "
            "(~/.kaggle/kaggle.json, or KAGGLE_USERNAME and KAGGLE_KEY)."
        ) from error
    except (exceptions.KaggleApiHTTPError, exceptions.NotFoundError) as error:
        raise FetchError(f"Kaggle has no data set {remote.name}, or does not give it to you.") from error
    except (OSError, RuntimeError, ValueError, exceptions.BackendError, exceptions.DataCorruptionError) as error:
        raise FetchError(f"{remote.name} could not be fetched from Kaggle. {OFFLINE}") from error


def _held_by(remote: Remote) -> list[DataSetInfo]:
    """The known data sets that a download holds."""
    source = f"{remote.library}:{remote.name}"
    return [one for one in datasets().values() if one.fetch and one.fetch.source == source and one.fetch.holds]


def _aliases() -> dict[str, list[str]]:
    """Short names of downloads, each with the titles of the data sets in it."""
    found: dict[str, list[str]] = {}
    for one in datasets().values():
        if one.fetch and one.fetch.alias:
            found.setdefault(one.fetch.alias, []).append(one.title)
    return found


def arrange(folder: Path, held: Sequence[DataSetInfo]) -> None:
    """Move the data sets inside an unpacked archive to their own places below `folder`.

    Raises FetchError if the archive is laid out differently.
    """
    found = []
    for one in held:
        name = one.fetch.holds if one.fetch else ""
        place = next((path.parent for path in sorted(folder.rglob(name)) if path.is_dir()), None)
        if place is None:
            raise FetchError(f"The archive of {one.title} is laid out differently than it was. Please report it.")
        found.append((place, folder / one.place))
    unused = [path for path in folder.iterdir() if path.is_dir()]
    for place, target in found:
        target.parent.mkdir(parents=True, exist_ok=True)
        place.rename(target)
    for path in unused:
        _remove_empty(path)


def _remove_empty(folder: Path) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            _remove_empty(path)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _hub(remote: Remote, folder: Path) -> None:
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        snapshot_download(
            remote.name,
            repo_type="dataset",
            local_dir=str(folder),
            allow_patterns=[f"*.{suffix}" for suffix in PICTURES] + [f"*.{suffix.upper()}" for suffix in PICTURES],
        )
    except GatedRepoError as error:
        raise FetchError(
            f"{remote.name} is gated: accept its terms on the Hub, then log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise FetchError(
            f"The Hub has no data set {remote.name}, or it is private: log in with `hf auth login`."
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise FetchError(f"{remote.name} could not be fetched from the Hub. {OFFLINE}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send what libraries print to stderr: stdout is for machines."""
    held = io.StringIO()
    try:
        with contextlib.redirect_stdout(held):
            yield
    finally:
        sys.stderr.write(held.getvalue())
