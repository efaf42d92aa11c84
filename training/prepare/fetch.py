"""Where do data sets come from? MedMNIST, Kaggle and the Hugging Face Hub, each through its own library."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.files import atomic_folder

NAMES = (
    "NAME is one of: bloodmnist, bloodmnist_64, bloodmnist_128, bloodmnist_224 (or another MedMNIST set); blood-cells, "
    "the augmented four-class set with its original frames; kaggle:OWNER/NAME; hf:OWNER/NAME, a data set of the Hub."
)
BLOOD_CELLS = "paultimothymooney/blood-cells"
HANDLE = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
PICTURES = ("jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "gif", "parquet", "csv", "npz")
OFFLINE = "Check the connection, or fetch it on another computer and copy the folder here."


class FetchError(RuntimeError):
    """A data set that cannot be fetched; the message says why and what to do."""


@dataclass(frozen=True)
class Remote:
    """A data set elsewhere: which library brings it, its name there, and for MedMNIST its picture size in pixels."""

    library: str
    name: str
    size: int | None = None


def parse(text: str) -> Remote:
    """What a name on the command line stands for. Raises FetchError if nothing."""
    library, _, handle = text.partition(":")
    if text == "blood-cells":
        return Remote("kaggle", BLOOD_CELLS)
    if library in ("kaggle", "hf") and HANDLE.match(handle):
        return Remote(library, handle)
    if found := re.fullmatch(r"([a-z]+mnist)(?:_(28|64|128|224))?", text.lower()):
        from medmnist import INFO  # noqa: PLC0415 (imports half of torchvision)

        if found.group(1) in INFO:
            return Remote("medmnist", found.group(1), int(found.group(2) or 28))
    raise FetchError(f"{text!r} is no data set we can fetch. {NAMES}")


def fetch(remote: Remote, out: Path) -> None:
    """Download a data set into the folder `out`, whole or not at all.

    Raises FetchError without a connection, without permission, or if there is no such data set.
    """
    fetchers: dict[str, Callable[[Remote, Path], None]] = {"medmnist": _medmnist, "kaggle": _kaggle, "hf": _hub}
    with atomic_folder(out) as folder:
        fetchers[remote.library](remote, folder)


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
    if remote.name == BLOOD_CELLS:
        arrange_blood_cells(folder)


def arrange_blood_cells(folder: Path) -> None:
    """Kaggle's archive → `dataset2/TRAIN, TEST, TEST_SIMPLE` and beside it `bccd` with the frames it was made from.

    Raises FetchError if the archive is laid out differently.
    """
    images = next((p.parent for p in sorted(folder.rglob("TRAIN")) if p.is_dir()), None)
    frames = next((p.parent for p in sorted(folder.rglob("JPEGImages")) if p.is_dir()), None)
    if images is None or frames is None:
        raise FetchError("Kaggle's archive of blood-cells is laid out differently than it was. Please report it.")
    unused = [path for path in folder.iterdir() if path.is_dir()]
    images.rename(folder / "dataset2")
    frames.rename(folder / "bccd")
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
    """What libraries print goes to stderr: stdout is for machines."""
    held = io.StringIO()
    try:
        with contextlib.redirect_stdout(held):
            yield
    finally:
        sys.stderr.write(held.getvalue())
