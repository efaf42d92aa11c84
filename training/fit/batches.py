"""Batches of training: augmented pictures, or features of a frozen backbone kept on disk.

Both give the same batches for the same seed and epoch, from whichever step they are asked for.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from training.fit.augment import training_transform
from training.fit.processor.devices import autocast
from training.fit.stopping import FitError
from training.recipe import Recipe, pretrained_cfg
from zoo.architectures.transfer import Transfer
from zoo.cache import cache_folder, keep_within, mark_used
from zoo.files import atomic_folder, only_writer
from zoo.imaging.preprocess import preprocessor
from zoo.limits import FEATURES_MB
from zoo.progress import progress_bar

VALIDATION_BATCH = 128
PASS_BATCH = 64  # pictures of a pass without gradients in training mode
MAX_FLOAT16_FEATURE = 1000.0  # features below it in the first batch stay far below float16's limit in all
MAX_WORKERS = 8  # more bring nothing
WORKER_NICENESS = 5
PICTURE_SEED_STEP, EPOCH_SEED_STEP = 1_000_003, 7_919  # primes, so that seeds of pictures and epochs do not meet

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # inputs, labels, weights


@dataclass(frozen=True)
class Arrays:
    """Pictures and labels of a data set, in memory or mapped from disk.

    Attributes:
        pictures: uint8 (n, height, width, 3).
        labels: Label numbers, int64 (n,).
        weights: Weights of the loss (n,); none: 1.
        attributes: Numbers of other properties, int64 (n, attributes), -1 where unknown.
        around: The same pictures with the cell's surroundings, where `pictures` show the cell alone.
    """

    pictures: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None
    attributes: np.ndarray | None = None
    around: np.ndarray | None = None

    def weight(self, rows: np.ndarray) -> np.ndarray:
        """Weights of `rows`, float32."""
        return np.ones(len(rows), np.float32) if self.weights is None else self.weights[rows].astype(np.float32)


def divide(count: int, batch_size: int, processes: int = 1) -> list[int]:
    """Sizes of an epoch's batches, alike, so that every picture counts; of several processes, each with as many.

    Args:
        count: Number of pictures.
        batch_size: Most pictures of a batch, of all processes together.
        processes: Number of processes; a remainder of less than one picture for each is left out.

    Raises:
        FitError: A batch cannot be divided evenly among the processes.

    Example:
        >>> divide(57, 32)
        [29, 28]
    """
    if min(batch_size, count) % processes:
        raise FitError(
            f"A batch of {min(batch_size, count)} pictures cannot be divided evenly among {processes} processes. "
            "Choose a multiple with --set schedule.batch_size=…"
        )
    shares = count // processes
    steps = math.ceil(shares * processes / batch_size)
    if batch_size > 1:  # batch norm needs two pictures
        steps = max(1, min(steps, shares // 2))
    return [processes * (shares // steps + (number < shares % steps)) for number in range(steps)]


class BatchSource(Protocol):
    """Batches for training, and inputs for validation."""

    def training(self, epoch: int, batches: list[np.ndarray]) -> Iterator[Batch]:
        """Yield a batch for each array of row numbers, as it is in `epoch` (from 0)."""

    def plain(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        """Yield inputs of `rows` without random changes, in portions."""


class PictureBatches:
    """Augmented pictures of one size, made by worker processes while the network computes."""

    def __init__(self, recipe: Recipe, data: Arrays, input_size: tuple[int, int], rows: np.ndarray) -> None:
        self.loader = AugmentedLoader(recipe, data, input_size, rows)
        self.data = data
        # validated at the size of training: at another one, a network that learns seems to get worse
        self.prepare = preprocessor({**pretrained_cfg(recipe.network), "input_size": [3, *input_size]})

    def training(self, epoch: int, batches: list[np.ndarray]) -> Iterator[Batch]:
        """Yield augmented float32 pictures (B, 3, H, W), labels and weights."""
        yield from self.loader.batches(epoch, batches)

    def plain(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        """Yield pictures (B, 3, H, W) as an entry of this size prepares them."""
        for start in range(0, len(rows), VALIDATION_BATCH):
            part = rows[start : start + VALIDATION_BATCH]
            yield torch.stack([self.prepare(Image.fromarray(self.data.pictures[row])) for row in part])


class FeatureBatches:
    """Kept features of a frozen backbone."""

    def __init__(
        self, data: Arrays, rows: np.ndarray, views: np.ndarray, plain_rows: np.ndarray, plain_features: np.ndarray
    ) -> None:
        """Index the features.

        Args:
            data: Labels and weights.
            rows: Row numbers of the training pictures.
            views: Features of their augmented views (views, rows, …).
            plain_rows: Row numbers of the validation pictures.
            plain_features: Their features without augmentation (plain_rows, …).
        """
        self.data, self.views, self.plain_features = data, views, plain_features
        self.place = {int(row): number for number, row in enumerate(rows)}
        self.plain_place = {int(row): number for number, row in enumerate(plain_rows)}

    def training(self, epoch: int, batches: list[np.ndarray]) -> Iterator[Batch]:
        """Yield features (B, …) of the views whose turn it is in `epoch`, labels and weights."""
        for rows in batches:
            places = [self.place[int(row)] for row in rows]
            views = (epoch + np.asarray(rows)) % len(self.views)
            inputs = torch.from_numpy(self.views[views, places].astype(np.float32))
            yield inputs, torch.from_numpy(self.data.labels[rows]), torch.from_numpy(self.data.weight(rows))

    def plain(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        """Yield features (B, …) of pictures without augmentation."""
        for start in range(0, len(rows), VALIDATION_BATCH):
            part = [self.plain_place[int(row)] for row in rows[start : start + VALIDATION_BATCH]]
            yield torch.from_numpy(self.plain_features[part].astype(np.float32))


def cached_features(
    recipe: Recipe,
    data: Arrays,
    split_hash: str,
    rows: Mapping[str, np.ndarray],
    model: Transfer,
    device: torch.device,
    input_size: tuple[int, int],
    is_main: bool = True,
) -> FeatureBatches:
    """Compute a frozen backbone's features once: `schedule.views` views of training rows, one of validation rows.

    They are cached under everything that decides them, so that another head, or a sweep, starts at once.

    Args:
        recipe: What is trained.
        data: Pictures and labels.
        split_hash: Identity of the data and their split.
        rows: Row numbers of "train" and "val".
        model: Network with a head after its backbone.
        device: Device of the network.
        input_size: Height and width, in pixels.
        is_main: Whether this process computes them if they are not there.
    """
    model.eval()
    views = recipe.schedule.views if recipe.augment.changes_pictures else 1
    train, val = np.unique(rows["train"]), np.asarray(rows["val"])
    digest = hashlib.sha256()
    for part in (
        split_hash,
        recipe.network.model_dump_json(exclude={"head"}),
        recipe.network.head[0],
        recipe.augment.model_dump_json(),
        f"{recipe.data.packed} {recipe.data.crop} {recipe.training_seed} {views}",
        f"{input_size} {recipe.schedule.precision}",
        f"{train.tolist()} {val.tolist()}",
    ):
        digest.update(part.encode())
    for value in model.backbone.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    folder = cache_folder() / "features" / digest.hexdigest()[:24]
    if is_main and not folder.is_dir():
        pictures = PictureBatches(recipe, data, input_size, train)
        writer = _FeatureWriter(model, device, recipe.schedule.precision)
        with only_writer(folder, wait=math.inf):
            if not folder.is_dir():  # by the process that was waited for
                _write_features(folder, pictures, writer, views, train, val)
                keep_within(folder.parent, FEATURES_MB.bytes, folder)
    mark_used(folder)
    # copied to memory: reading single rows from a disk is slow
    stacked = np.stack(
        [np.load(folder / f"view{view}.npy", mmap_mode="r", allow_pickle=False) for view in range(views)]
    )
    return FeatureBatches(data, train, stacked, val, np.load(folder / "plain.npy", allow_pickle=False))


def _write_features(
    folder: Path, pictures: PictureBatches, writer: _FeatureWriter, views: int, train: np.ndarray, val: np.ndarray
) -> None:
    """Write features of `views` augmented views of the rows `train`, and of the plain rows `val`, into a folder."""
    with atomic_folder(folder, Path.is_dir) as place, torch.inference_mode():
        order = [train[start : start + PASS_BATCH] for start in range(0, len(train), PASS_BATCH)]
        with progress_bar(description="features", total=views * len(train) + len(val), unit="image") as progress:
            for view in range(views):
                batches = (batch[0] for batch in pictures.training(view, order))
                writer.write(place / f"view{view}.npy", len(train), batches, progress)
            writer.write(place / "plain.npy", len(val), pictures.plain(val), progress)


class _FeatureWriter:
    """Passes pictures through a frozen backbone and writes what comes out."""

    def __init__(self, model: Transfer, device: torch.device, precision: str) -> None:
        self.model, self.device, self.precision = model, device, precision

    def write(self, path: Path, count: int, batches: Iterator[torch.Tensor], progress: tqdm) -> None:
        """Write features of `count` pictures as one array, in float16 unless they are too large for it."""
        store, start = None, 0
        for batch in batches:
            inputs = batch.to(self.device, memory_format=torch.channels_last)
            with autocast(self.device, self.precision):
                features = self.model.forward_fixed(inputs).float().cpu().numpy()
            if store is None:
                kind = np.float16 if np.abs(features).max() < MAX_FLOAT16_FEATURE else np.float32
                store = np.lib.format.open_memmap(path, "w+", kind, (count, *features.shape[1:]))
            store[start : start + len(features)] = features
            start += len(features)
            progress.update(len(features))
        if store is not None:
            store.flush()


class _AugmentedPictures(Dataset):
    """Augmented training pictures; an item (row, seed) depends on nothing else but the training `rows`."""

    def __init__(self, recipe: Recipe, data: Arrays, input_size: tuple[int, int], rows: np.ndarray) -> None:
        config = pretrained_cfg(recipe.network)
        self.data, self.rows = data, rows
        self.surroundings = recipe.augment.surroundings
        self.transform = training_transform(recipe.augment, input_size, config["crop_pct"], self._random_picture)

    def _random_picture(self) -> np.ndarray:
        return np.array(self.data.pictures[self.rows[int(torch.randint(len(self.rows), ()))]])

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, int, np.float32]:
        row, seed = item
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed also seeds devices, and keeps a traceback of each call for them: a fifth of the time
            torch.default_generator.manual_seed(seed * PICTURE_SEED_STEP + row)
            weight = self.data.weight(np.array([row]))[0]
            pictures = self.data.pictures
            if self.data.around is not None and float(torch.rand(())) < self.surroundings:
                pictures = self.data.around
            return self.transform(np.array(pictures[row])), int(self.data.labels[row]), weight


class AugmentedLoader:
    """Augmented batches, made by worker processes that stay from epoch to epoch.

    Workers are forked, and after a fork all memory that the network writes to is copied, page by page: with new workers
    for each epoch that was a fifth of a short epoch.
    """

    def __init__(self, recipe: Recipe, data: Arrays, input_size: tuple[int, int], rows: np.ndarray) -> None:
        config = pretrained_cfg(recipe.network)
        mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
        self.factor, self.shift = 1 / (255 * std), mean / std
        self.seed = recipe.training_seed
        self.items: list[list[tuple[int, int]]] = []  # read by the loader at the beginning of each epoch
        # OpenCV's threads do not survive a fork, and a worker that waits for them waits for ever: end them first
        cv2.setNumThreads(1)
        self.loader = DataLoader(
            _AugmentedPictures(recipe, data, input_size, rows),
            batch_sampler=self.items,
            # one core of two for pictures, of more all but one
            num_workers=max(1, min(MAX_WORKERS, _cores() - 1)),
            prefetch_factor=4,
            worker_init_fn=_prepare_worker,
            persistent_workers=True,
        )

    def batches(self, epoch: int, batches: list[np.ndarray]) -> Iterator[Batch]:
        """Yield a batch for each array of row numbers, as it is in `epoch`; pictures in channels_last memory."""
        self.items[:] = [[(int(row), self.seed * EPOCH_SEED_STEP + epoch) for row in rows] for rows in batches]
        for pixels, labels, weights in self.loader:
            # workers send bytes, because shared memory is slow to fill; they become floats here
            yield pixels.permute(0, 3, 1, 2).float().mul_(self.factor).sub_(self.shift), labels, weights


def _cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2


def _prepare_worker(worker: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the main one ends the workers when it is ready
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        # the network's threads wait for each other: a worker that delays one of them delays all
        os.nice(WORKER_NICENESS)
