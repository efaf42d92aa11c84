"""Where do a step's inputs come from? From augmented pictures, or from features of a frozen backbone kept on disk.

Both give the same batches for the same seed and epoch, wherever they are taken up.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from training.fit.augment import training_transform
from training.recipe import Recipe, pretrained_cfg
from zoo.cache import cache_folder
from zoo.files import atomic_folder, write_json
from zoo.imaging.preprocess import preprocessor

VALIDATION_BATCH = 128
PASS_BATCH = 64
ROOMY = 1000.0  # features below it in the first batch stay far below float16's limit in all


@dataclass(frozen=True)
class Arrays:
    """Packed pictures, uint8 (n, height, width, 3), label numbers, int64 (n,), and weights of the loss (n,) if any.

    `attributes` are numbers of what else is known (n, attributes), int64, -1 where it is not. `around` are the same
    pictures with what surrounds the cell, uint8 (n, height, width, 3), where `pictures` show it alone.
    """

    pictures: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None
    attributes: np.ndarray | None = None
    around: np.ndarray | None = None

    def weight(self, rows: np.ndarray) -> np.ndarray:
        """Weights of `rows`, float32."""
        return np.ones(len(rows), np.float32) if self.weights is None else self.weights[rows].astype(np.float32)


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # inputs, labels, weights


class Feed(Protocol):
    """Batches of training, and of pictures that are only looked at."""

    def train(self, epoch: int, batches: list[np.ndarray]) -> Iterator[Batch]:
        """A batch for each array of row numbers, as it is in `epoch` (from 0)."""

    def look(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        """Inputs of `rows` without random changes, in portions."""


class PictureFeed:
    """Augmented pictures of one size, made by worker processes while the network computes."""

    def __init__(self, recipe: Recipe, data: Arrays, input_size: tuple[int, int], rows: np.ndarray) -> None:
        self.made = Made(recipe, data, input_size, rows)
        self.data = data
        # judged at the size that is trained at: at another a network that learns looks as if it forgot
        self.prepare = preprocessor({**pretrained_cfg(recipe.network), "input_size": [3, *input_size]})

    def train(self, epoch: int, batches: list[np.ndarray]) -> Iterator[Batch]:
        """Augmented float32 pictures (B, 3, H, W), labels and weights."""
        yield from self.made.batches(epoch, batches)

    def look(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        """Pictures (B, 3, H, W) as an entry of this size sees them."""
        for start in range(0, len(rows), VALIDATION_BATCH):
            part = rows[start : start + VALIDATION_BATCH]
            yield torch.stack([self.prepare(Image.fromarray(self.data.pictures[row])) for row in part])


class FeatureFeed:
    """Kept features: `seen` (views, n, …) of the training rows, `plain` of other rows."""

    def __init__(self, data: Arrays, rows: np.ndarray, seen: np.ndarray, plain: np.ndarray, others: np.ndarray) -> None:
        self.data, self.seen, self.plain = data, seen, plain
        self.place = {int(row): number for number, row in enumerate(rows)}
        self.other = {int(row): number for number, row in enumerate(others)}

    def train(self, epoch: int, batches: list[np.ndarray]) -> Iterator[Batch]:
        """Features (B, …) of the views that are due in `epoch`, labels and weights."""
        for rows in batches:
            places = [self.place[int(row)] for row in rows]
            views = (epoch + np.asarray(rows)) % len(self.seen)
            inputs = torch.from_numpy(self.seen[views, places].astype(np.float32))
            yield inputs, torch.from_numpy(self.data.labels[rows]), torch.from_numpy(self.data.weight(rows))

    def look(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        """Features (B, …) of pictures as they are."""
        for start in range(0, len(rows), VALIDATION_BATCH):
            part = [self.other[int(row)] for row in rows[start : start + VALIDATION_BATCH]]
            yield torch.from_numpy(self.plain[part].astype(np.float32))


def keep_features(
    recipe: Recipe,
    data: Arrays,
    split_hash: str,
    rows: dict[str, np.ndarray],
    model: nn.Module,
    device: torch.device,
    input_size: tuple[int, int],
    main: bool = True,
) -> FeatureFeed:
    """The features of a frozen backbone: of each training row `views` augmented views, of validation rows one plain.

    `model` has `forward_fixed` (zoo.architectures.transfer). They are kept in the cache by everything that decides
    them, so that another head, or a sweep, starts at once.
    """
    model.eval()
    views = recipe.schedule.views if recipe.augment.changes_pictures else 1
    digest = hashlib.sha256()
    for part in (
        split_hash,
        recipe.network.model_dump_json(exclude={"head"}),
        recipe.network.head[0],
        recipe.augment.model_dump_json(),
        f"{recipe.data.packed} {recipe.data.crop} {recipe.training_seed} {views}",
        f"{input_size} {recipe.schedule.precision}",
        f"{np.unique(rows['train']).tolist()} {np.asarray(rows['val']).tolist()}",
    ):
        digest.update(part.encode())
    for value in model.backbone.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    folder = cache_folder() / "features" / digest.hexdigest()[:24]
    train, val = np.unique(rows["train"]), np.asarray(rows["val"])
    if main and not folder.is_dir():
        pictures = PictureFeed(recipe, data, input_size, train)
        with atomic_folder(folder, Path.is_dir) as place, torch.inference_mode():
            run = _Pass(model, device, recipe.schedule.precision == "bf16")
            order = [train[start : start + PASS_BATCH] for start in range(0, len(train), PASS_BATCH)]
            with tqdm(total=views * len(train) + len(val), desc="features", unit="image") as progress:
                for view in range(views):
                    batches = (batch[0] for batch in pictures.made.batches(view, order))
                    run.write(place / f"view{view}.npy", len(train), batches, progress)
                run.write(place / "plain.npy", len(val), pictures.look(val), progress)
            write_json(place / "made.json", {"views": views, "recipe": recipe.id})
    seen = [np.load(folder / f"view{view}.npy", mmap_mode="r", allow_pickle=False) for view in range(views)]
    # in memory if small: reading rows here and there from a disk is slow
    stacked = np.stack(seen)
    return FeatureFeed(data, train, stacked, np.load(folder / "plain.npy", allow_pickle=False), val)


class _Pass:
    """One pass of pictures through what is frozen."""

    def __init__(self, model: nn.Module, device: torch.device, bf16: bool) -> None:
        self.model, self.device, self.bf16 = model, device, bf16

    def write(self, path: Path, count: int, batches: Iterator[torch.Tensor], progress: tqdm) -> None:
        """Features of `count` pictures as an array on disk, float16 unless they are too large for it."""
        store, start = None, 0
        for batch in batches:
            inputs = batch.to(self.device, memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                found = self.model.forward_fixed(inputs).float().cpu().numpy()
            if store is None:
                kind = np.float16 if np.abs(found).max() < ROOMY else np.float32
                store = np.lib.format.open_memmap(path, "w+", kind, (count, *found.shape[1:]))
            store[start : start + len(found)] = found
            start += len(found)
            progress.update(len(found))
        if store is not None:
            store.flush()


class _Augmented(Dataset):
    """Augmented training pictures; an item is named (row, seed) and depends on nothing else but the training `rows`."""

    def __init__(self, recipe: Recipe, data: Arrays, input_size: tuple[int, int], rows: np.ndarray) -> None:
        config = pretrained_cfg(recipe.network)
        self.data, self.seed, self.rows = data, recipe.training_seed, rows
        self.surroundings = recipe.augment.surroundings
        self.transform = training_transform(recipe.augment, input_size, config["crop_pct"], self._any)

    def _any(self) -> np.ndarray:
        return np.array(self.data.pictures[self.rows[int(torch.randint(len(self.rows), ()))]])

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, int, np.float32]:
        row, seed = item
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed also tells devices, and keeps a traceback of each call for them: a fifth of the time
            torch.default_generator.manual_seed(seed * 1_000_003 + row)
            weight = self.data.weight(np.array([row]))[0]
            whole = self.data.around is not None and float(torch.rand(())) < self.surroundings
            picture = np.array((self.data.around if whole else self.data.pictures)[row])
            return self.transform(picture), int(self.data.labels[row]), weight


class Made:
    """Augmented batches, made by worker processes that stay from epoch to epoch.

    Workers are forked, and after a fork all memory that the network writes to is copied, page by page: with workers of
    each epoch's own that was a fifth of a short epoch.
    """

    def __init__(self, recipe: Recipe, data: Arrays, input_size: tuple[int, int], rows: np.ndarray) -> None:
        config = pretrained_cfg(recipe.network)
        mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
        self.factor, self.shift = 1 / (255 * std), mean / std
        self.seed = recipe.training_seed
        self.due: list[list[tuple[int, int]]] = []  # read by the loader at the beginning of each epoch
        # OpenCV's threads do not survive a fork, and what waits for them waits for ever: end them first
        cv2.setNumThreads(1)
        self.loader = DataLoader(
            _Augmented(recipe, data, input_size, rows),
            batch_sampler=self.due,
            # one core of two for pictures, of more all but one; more than eight bring nothing
            num_workers=max(1, min(8, (os.cpu_count() or 2) - 1)),
            prefetch_factor=4,
            worker_init_fn=_prepare_worker,
            persistent_workers=True,
        )

    def batches(self, epoch: int, batches: list[np.ndarray]) -> Iterator[Batch]:
        """A batch for each array of row numbers, as it is in `epoch`; pictures in channels_last memory."""
        self.due[:] = [[(int(row), self.seed * 7_919 + epoch) for row in rows] for rows in batches]
        for pixels, labels, weights in self.loader:
            # bytes come from the workers: memory that is shared is dear, page by page
            yield pixels.permute(0, 3, 1, 2).float().mul_(self.factor).sub_(self.shift), labels, weights


def _prepare_worker(worker: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the main one ends the workers when it is ready
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        # the network's threads wait for each other: one that is held up by this process holds up all
        os.nice(5)
