"""Features of every picture in a model of the zoo.

A pass of its own: copies and splits are found without it, so that a split never changes because the zoo's model did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from training.audit.measure import Measured
from training.audit.parallel import spread
from zoo.attribution.features import pooled_features
from zoo.data import Item
from zoo.entry import WEIGHTS, Entry, EntryError
from zoo.files import atomic_path
from zoo.imaging.preprocess import preprocessor
from zoo.serving.devices import autocast, bf16_is_faster
from zoo.serving.models.loading import load_model

VERSION = 1  # part of the cache's key: raise when what is embedded changes
CHUNK = 128  # pictures in a file of the cache
MIN_PARALLEL = 300  # pictures below which no process is started
MIN_FIELD = 240  # pixels of the longer side from which a picture may be a field with a cell somewhere in it
FIELD_CROP = 2.4  # longer sides of the cell's box that the embedding model sees of a field


def with_embedding(measured: Measured, items: Sequence[Item], embedder: Entry) -> Measured:
    """Measurements with the column `embedding`, kept in the cache and resumable.

    Args:
        measured: The measurements.
        items: The data set's items, row by row.
        embedder: The model whose last hidden layer is taken.

    Returns:
        The same with a column (n, d) float16, zero where a picture cannot be read.
    """
    weights = hashlib.sha256((embedder.folder / WEIGHTS).read_bytes()).hexdigest()[:24]
    folder = measured.folder.parent
    whole = folder / f"embedding-{VERSION}-{weights}.npy"
    if not whole.exists():
        rows = [range(start, min(start + CHUNK, len(items))) for start in range(0, len(items), CHUNK)]
        paths = [folder / f"{whole.stem}-{number:05}.part" for number in range(len(rows))]
        readable, boxes = measured.readable, np.asarray(measured["box"])
        jobs = [
            (path, [(items[i], boxes[i]) if readable[i] else None for i in some])
            for path, some in zip(paths, rows, strict=True)
            if not path.exists()
        ]
        for _ in spread(
            _chunk, jobs, "embedding", "image", _start, (embedder,), MIN_PARALLEL, weight=lambda job: len(job[1])
        ):
            pass
        with atomic_path(whole) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate([np.load(path, allow_pickle=False) for path in paths]))
        for path in paths:
            path.unlink()
    return replace(
        measured, columns={**measured.columns, "embedding": np.load(whole, mmap_mode="r", allow_pickle=False)}
    )


_network: Any = None


def _start(entry: Entry) -> None:
    global _network
    model = load_model(entry).eval()
    if entry.config is None:
        raise EntryError(f"{entry.id} cannot be used: {entry.reason}")
    cfg = entry.config.pretrained_cfg.model_dump()
    fast = bf16_is_faster(model, torch.device("cpu"), tuple(cfg["input_size"]), 0.0)
    _network = (model.to(memory_format=torch.channels_last), preprocessor(cfg), fast)


def _chunk(job: tuple[Path, list[tuple[Item, np.ndarray] | None]]) -> int:
    path, asked = job
    model, prepare, fast = _network
    found = np.zeros((len(asked), model.num_features), np.float16)
    seen = [i for i, one in enumerate(asked) if one is not None]
    if seen:
        views = [np.asarray(prepare.pixels(close(item.source.image(), box))) for item, box in filter(None, asked)]
        batch = prepare.normalise(torch.from_numpy(np.stack(views)))
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(torch.device("cpu"), fast):
            found[seen] = pooled_features(model, batch).numpy()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, found)
    return len(asked)


def close(image: Image.Image, box: np.ndarray) -> Image.Image:
    """The picture, or of a whole field the square around its cell: models of cut-out cells know no fields."""
    if max(image.size) < MIN_FIELD or not box.any():
        return image
    shorter = min(image.size)
    side = float(np.clip(FIELD_CROP * max(box[2] - box[0], box[3] - box[1]), 0.3 * shorter, shorter))
    left = float(np.clip((box[0] + box[2] - side) / 2, 0, image.width - side))
    top = float(np.clip((box[1] + box[3] - side) / 2, 0, image.height - side))
    return image.crop((round(left), round(top), round(left + side), round(top + side)))
