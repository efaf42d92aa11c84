"""Known cells that a model finds most like a new one: small pictures of benchmarks, which come with the program.

Two cells are alike where the vectors before the network's last layer point the same way. The vectors of the known
cells are computed once a model, in turn with the requests of visitors, and kept in the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from zoo.benchmarks.registry import get_benchmark, published
from zoo.benchmarks.thumbnails import thumbnail
from zoo.cache import cache_folder, keep_within, mark_used
from zoo.entry import WEIGHTS, Entry
from zoo.files import atomic_path, file_hash
from zoo.imaging.localise import CROP_VERSION
from zoo.limits import ALIKE_MB
from zoo.serving.requests import Client, Ticket
from zoo.sources.catalogue import crop_detector_hash
from zoo.threads import preparing

if TYPE_CHECKING:
    from zoo.serving.models.loaded import LoadedModel
    from zoo.serving.runtime import Runtime

VERSION = 1  # part of the key of stored vectors: raise when they change
PER_KIND = 24  # known cells of each kind
CHUNK = 8  # known cells that the engine is given at once, so that visitors wait for no more than these
MAX_MODELS = 16  # whose vectors are in memory
LOG = logging.getLogger(__name__)

_lock = threading.Lock()
_begun: OrderedDict[tuple[Path, object], Ticket] = OrderedDict()


@dataclass(frozen=True, eq=False)
class KnownCell:
    """A small picture of a cell whose kind is known.

    Attributes:
        file: its name in its data set.
        kind: its label.
        source: title of the data set.
        image: RGB picture.
    """

    file: str
    kind: str
    source: str
    image: Image.Image


@dataclass(frozen=True, eq=False)
class KnownVectors:
    """The known cells as a model sees them.

    Attributes:
        cells: the known cells.
        vectors: float32 (cells, d) of length 1, for each of the model's networks.
    """

    cells: tuple[KnownCell, ...]
    vectors: tuple[np.ndarray, ...]


def known_cells() -> tuple[KnownCell, ...]:
    """The known cells: as many of each kind, of every benchmark that offers them and whose pictures are here."""
    return tuple(
        cell
        for name, definition in published().items()
        if definition.known_cells
        for cell in _cells_of(name, get_benchmark(name).hash)
    )


def known_vectors(runtime: Runtime, entry: Entry) -> Ticket:
    """Begin to compute the known cells' vectors of a model, unless that was begun before.

    Args:
        runtime: where the model runs.
        entry: a classifier.

    Returns:
        Ticket of `KnownVectors`, with its progress. It fails with EntryError where the model cannot be used or gives
        no vectors.
    """
    key = (entry.folder, entry.weights)
    with _lock:
        ticket = _begun.get(key)
        if ticket is not None and not (ticket.done() and ticket.exception()):
            _begun.move_to_end(key)
            return ticket
        ticket = _begun[key] = Ticket()
        while len(_begun) > MAX_MODELS:
            _begun.popitem(last=False)
    ticket.set_running_or_notify_cancel()
    threading.Thread(target=_fulfil, args=(ticket, runtime, entry), name="known cells", daemon=True).start()
    return ticket


def most_alike(
    runtime: Runtime, entry: Entry, image: Image.Image, known: KnownVectors, count: int, client: Client | None = None
) -> list[KnownCell]:
    """Find the known cells that a model finds most like a picture, the most alike first.

    Args:
        runtime: where the model runs.
        entry: the model.
        image: RGB picture of one cell, or a cut of `zoo.detection.cut.cut_cell`.
        known: what `known_vectors` gave for the model.
        count: how many to find.
        client: who asks.

    Raises:
        EntryError: the model is unusable.
        BusyError: the engine is closed.
    """
    likeness = np.zeros(len(known.cells))
    for network, vectors in zip(entry.networks, known.vectors, strict=True):
        model = runtime.model(network)
        ticket = runtime.engine.work(model, partial(model.embed, [_seen(model, image)]), client or Client())
        likeness += vectors @ _directions(ticket.result())[0]
    return [known.cells[number] for number in np.argsort(-likeness, kind="stable")[:count]]


@lru_cache(8)
def _cells_of(benchmark: str, _hash: str) -> tuple[KnownCell, ...]:
    """Known cells of a benchmark, evenly spread over its rows, no two of one source cell."""
    definition = get_benchmark(benchmark)
    cells = []
    for label in definition.labels:
        rows = definition.rows[definition.rows["label"] == label].drop_duplicates("cell")
        places = np.unique(np.linspace(0, len(rows) - 1, min(PER_KIND, len(rows))).round().astype(int))
        for file in rows["file"].iloc[places]:
            image = thumbnail(benchmark, file)
            if image is not None:
                cells.append(KnownCell(file, label, definition.data_set.title, image))
    return tuple(cells)


def _fulfil(ticket: Ticket, runtime: Runtime, entry: Entry) -> None:
    try:
        ticket.set_result(_compute(ticket, runtime, entry, known_cells()))
    except BaseException as error:
        ticket.set_exception(error)


def _compute(ticket: Ticket, runtime: Runtime, entry: Entry, cells: tuple[KnownCell, ...]) -> KnownVectors:
    path = cache_folder() / "alike" / f"{_key(entry, cells)}.safetensors"
    stored = _read(path, len(entry.networks), len(cells))
    if stored is None:
        stored, parts = [], len(entry.networks)
        for number, network in enumerate(entry.networks):
            done = partial(_advance, ticket, number, parts)
            stored.append(_vectors_of(runtime, network, cells, done))
        _write(path, stored)
    return KnownVectors(cells, tuple(map(_directions, stored)))


def _advance(ticket: Ticket, number: int, parts: int, share: float) -> None:
    ticket.advance((number + share) / parts)


def _directions(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, d) divided by their lengths."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _vectors_of(
    runtime: Runtime, entry: Entry, cells: Sequence[KnownCell], advance: Callable[[float], None]
) -> np.ndarray:
    """Compute the vectors of one network, a few cells at a time: requests of visitors come between."""
    model, client = runtime.model(entry), Client("known cells")
    found: list[np.ndarray] = []
    for start in range(0, len(cells), CHUNK):
        pictures = [_seen(model, cell.image) for cell in cells[start : start + CHUNK]]
        found.append(runtime.engine.work(model, partial(model.embed, pictures), client).result())
        advance(min(1.0, (start + CHUNK) / len(cells)))
    return np.concatenate(found)


def _seen(model: LoadedModel, image: Image.Image) -> np.ndarray:
    """A network's input, uint8 (3, H, W), of a picture."""
    with preparing():
        return model.pixels(image)


def _key(entry: Entry, cells: Sequence[KnownCell]) -> str:
    """Name of a model's file: by its weights and what they are given, and by the known cells."""
    networks = [
        {
            "weights": file_hash(network.folder / WEIGHTS),
            "architecture": network.config.architecture,
            "options": network.config.model_args,
            "input": network.config.pretrained_cfg.model_dump(mode="json"),
            "crop": [network.config.zoo.crop, CROP_VERSION, crop_detector_hash(network.config.zoo.crop)],
        }
        for network in entry.networks
    ]
    digest = hashlib.sha256(json.dumps([VERSION, networks], sort_keys=True, default=str).encode())
    for cell in cells:
        digest.update(cell.image.tobytes())
    return digest.hexdigest()[:32]


def _read(path: Path, networks: int, cells: int) -> list[np.ndarray] | None:
    """Read stored vectors; None where there are none, or the file is damaged."""
    try:
        stored = load_file(path)
        found = [stored[str(number)] for number in range(networks)]
    except (OSError, SafetensorError, KeyError):
        return None
    if any(vectors.ndim != 2 or len(vectors) != cells for vectors in found):
        return None
    mark_used(path)
    return found


def _write(path: Path, found: Sequence[np.ndarray]) -> None:
    """Store vectors for the next start; a cache that cannot be written costs only time."""
    tensors = {str(number): np.ascontiguousarray(vectors) for number, vectors in enumerate(found)}
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary)
        keep_within(path.parent, ALIKE_MB.bytes, path)
    except (OSError, SafetensorError) as error:
        LOG.warning("the vectors of known cells are not kept: %s", error)
