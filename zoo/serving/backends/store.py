"""Converted networks on disk, in the cache folder: checked by hashes, bounded by bytes, made again where damaged.

A folder holds the converted network, a batch with torch's results for it, and `choice.json`: the hashes of the other
files, whether the results agree with torch's, and how the speeds compare.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from zoo.cache import cache_folder, mark_used
from zoo.entry import WEIGHTS, Entry
from zoo.files import file_hash, only_writer, write_json
from zoo.limits import CONVERTED_MB, CONVERTED_WAIT, FREE_DISK_MB
from zoo.serving.backends import openvino_backend

VERSION = 2  # part of the key: raise when conversion, comparison or trial changes
NETWORK, REFERENCE, CHOICE = "network.xml", "reference.safetensors", "choice.json"
HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"  # tensors of REFERENCE that need not be there


@dataclass(frozen=True)
class Choice:
    """The result of an attempt to convert a network.

    Attributes:
        agrees: whether the converted network gives torch's results.
        fast_enough: whether the trial spoke for it.
        reason: why it is not used, as a sentence; how fast it was beside torch, where it agrees.
        files: SHA-256 by file name.
    """

    agrees: bool
    fast_enough: bool
    reason: str
    files: dict[str, str]


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A linear layer: weight (classes, C) and bias (classes,), float32."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Reference:
    """Torch's results for a batch, in float32.

    Attributes:
        batch: normalised (B, 3, H, W).
        features: (B, …).
        vectors: (B, d).
        logits: (B, classes); empty where a classical head takes the vectors.
        linear: the last layer, where the head is that and a mean over places.
    """

    batch: np.ndarray
    features: np.ndarray
    vectors: np.ndarray
    logits: np.ndarray
    linear: LinearLayer | None


def key_of(entry: Entry, precision: str) -> str:
    """Name of the folder for a network: by its weights, its configuration, the libraries and the processor.

    Raises:
        OSError: the weights cannot be read.
    """
    config = entry.config
    facts = {
        "version": VERSION,
        "weights": file_hash(entry.folder / WEIGHTS),
        "architecture": config.architecture,
        "options": config.model_args,
        "classes": config.num_classes,
        "input": config.pretrained_cfg.model_dump(mode="json"),
        "head": bool(config.zoo.head),
        "precision": precision,
        "machine": platform.machine(),
        **{name: version(name) for name in ("torch", "timm", "openvino")},
        "processor": openvino_backend.processor(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def store_folder() -> Path:
    """Folder of all converted networks."""
    return cache_folder() / "converted"


def read_choice(folder: Path) -> Choice | None:
    """Read a choice whose files are whole; None where there is none or where a file is damaged."""
    try:
        stored = json.loads((folder / CHOICE).read_text(encoding="utf-8"))
        choice = Choice(**stored)
        if choice.agrees and {NETWORK, REFERENCE} - set(choice.files):
            return None
        if any(file_hash(folder / Path(name).name) != digest for name, digest in choice.files.items()):
            return None
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    mark_used(folder)
    return choice


def write_choice(folder: Path, agrees: bool, fast_enough: bool, reason: str) -> Choice:
    """Write the choice for the files that are in a folder; the network's are kept only if it agrees."""
    for path in () if agrees else tuple(folder.iterdir()):
        path.unlink()
    choice = Choice(agrees, fast_enough, reason, {path.name: file_hash(path) for path in folder.iterdir()})
    write_json(folder / CHOICE, asdict(choice))
    return choice


def forget(folder: Path) -> None:
    """Let a network be converted again by the next process that needs it."""
    with contextlib.suppress(OSError):
        (folder / CHOICE).unlink()


def write_reference(folder: Path, reference: Reference) -> None:
    """Write torch's results into a folder. Raises OSError."""
    tensors = {name: getattr(reference, name) for name in ("batch", "features", "vectors", "logits")}
    if reference.linear is not None:
        tensors |= {HEAD_WEIGHT: reference.linear.weight, HEAD_BIAS: reference.linear.bias}
    _write_tensors(folder, tensors)


def read_reference(folder: Path) -> Reference | None:
    """Read torch's results; None where the file is damaged."""
    try:
        stored = load_file(folder / REFERENCE)
        linear = LinearLayer(stored[HEAD_WEIGHT], stored[HEAD_BIAS]) if HEAD_WEIGHT in stored else None
        return Reference(stored["batch"], stored["features"], stored["vectors"], stored["logits"], linear)
    except (OSError, SafetensorError, KeyError):
        return None


@dataclass(frozen=True, eq=False)
class MapReference:
    """Torch's results of a detector for a batch, in float32.

    Attributes:
        batch: normalised (B, 3, H, W).
        logits: (B, objects, h, w).
        sides: (B, 4, h, w).
    """

    batch: np.ndarray
    logits: np.ndarray
    sides: np.ndarray


def write_map_reference(folder: Path, reference: MapReference) -> None:
    """Write a detector's results in torch into a folder. Raises OSError."""
    _write_tensors(folder, vars(reference))


def read_map_reference(folder: Path) -> MapReference | None:
    """Read a detector's results in torch; None where the file is damaged."""
    try:
        return MapReference(**load_file(folder / REFERENCE))
    except (OSError, SafetensorError, TypeError):
        return None


def _write_tensors(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    try:
        save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, folder / REFERENCE)
    except SafetensorError as error:
        raise OSError(str(error)) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a network's folder against other processes, and remove what killed ones have left of it.

    Raises:
        LockedError: another process holds the lock for longer than the limit CONVERTED_WAIT.
        OSError: the cache folder cannot be written.
    """
    with only_writer(folder, CONVERTED_WAIT.exact):
        for left in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def has_room(weight_bytes: int) -> bool:
    """Whether a network of this size may be stored: within the limit CONVERTED_MB, and leaving FREE_DISK_MB free."""
    place = cache_folder()
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    return weight_bytes <= CONVERTED_MB.bytes and free >= weight_bytes + FREE_DISK_MB.bytes
