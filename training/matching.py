"""Which original smear frame was each augmented image made from? SIFT matches with a geometric check.

A frame and its mirror image are both references, because the copies are rotated, shifted and flipped and SIFT does not
survive a flip. Votes of nearest descriptors choose three candidates, RANSAC (similarity transform) counts inliers.
Lowe 2004, doi:10.1023/B:VISI.0000029664.99615.94; RootSIFT: Arandjelovic & Zisserman 2012.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from training.data import TrainingDataError
from zoo.files import write_json

FRAME_SIZE = (320, 240)  # width, height at which frames and copies are compared, pixels
FEATURES = 160  # strongest SIFT keypoints kept an image
CANDIDATES = 3
MIN_INLIERS = 6  # the runner-up frame has a median of 0
RANSAC_PIXELS = 4.0
SAVE_EVERY = 1000
VERSION = 1  # part of the cache key: raise when the method changes


@dataclass(frozen=True)
class Match:
    """Source frame of one image: frame file stem (None if no frame passed the check), inliers, runner-up's inliers."""

    frame: str | None
    inliers: int
    runner_up: int


def features(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RootSIFT of an H×W uint8 grey image: keypoint positions (n, 2) in pixels and unit descriptors (n, 128)."""
    points, descriptors = cv2.SIFT_create(nfeatures=FEATURES).detectAndCompute(image, None)
    if descriptors is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    positions = np.array([p.pt for p in points], np.float32)
    normed = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))
    return positions, normed.astype(np.float32)


class FrameIndex:
    """SIFT descriptors of all frames and their mirror images, searched by matrix product."""

    def __init__(self, frames: Sequence[Path]) -> None:
        positions, descriptors, owners = [], [], []
        for path in frames:
            grey = _read_grey(path)
            for mirrored in (grey, np.ascontiguousarray(grey[:, ::-1])):
                where, what = features(mirrored)
                positions.append(where)
                descriptors.append(what)
                # one owner a mirror image: a rotation and its mirror are not one similarity transform
                owners.append(np.full(len(where), len(owners), np.int64))
        self.names = [path.stem for path in frames]
        self.positions = np.concatenate(positions)
        self.owners = np.concatenate(owners)
        self.descriptors = torch.from_numpy(np.concatenate(descriptors)).T.contiguous()

    def match(self, grey: np.ndarray) -> Match:
        """Source frame of an H×W uint8 grey image already at FRAME_SIZE."""
        where, what = features(grey)
        if len(where) < MIN_INLIERS:
            return Match(None, 0, 0)
        nearest = (torch.from_numpy(what) @ self.descriptors).argmax(1).numpy()
        votes = np.bincount(self.owners[nearest], minlength=2 * len(self.names))
        best: dict[int, int] = {}
        for owner in np.argsort(-votes)[:CANDIDATES]:
            mine = self.owners[nearest] == owner
            inliers = _inliers(where[mine], self.positions[nearest[mine]])
            best[owner // 2] = max(best.get(owner // 2, 0), inliers)
        ranked = sorted(best.items(), key=lambda item: -item[1])
        runner_up = ranked[1][1] if len(ranked) > 1 else 0
        frame, inliers = ranked[0]
        found = inliers >= MIN_INLIERS and inliers > runner_up
        return Match(self.names[frame] if found else None, inliers, runner_up)


def source_frames(images: Sequence[Path], originals: Path, cache: Path, workers: int | None = None) -> list[Match]:
    """Match of every image, in order, against the `*.jpg` or `*.png` frames under `originals`.

    Results are kept in `cache`, one JSON file for each set of originals, and taken up again after an interruption.
    Raises TrainingDataError if there are no frames.
    """
    frames = sorted(p for p in originals.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not frames:
        raise TrainingDataError(f"No original frames (.jpg, .png) under {originals}.")
    key = hashlib.sha256(json.dumps([VERSION, [(p.name, p.stat().st_size) for p in frames]]).encode()).hexdigest()[:16]
    store = cache / f"source-frames-{key}.json"
    known: dict[str, list] = json.loads(store.read_text()) if store.exists() else {}
    names = [_file_key(path) for path in images]
    missing = list({name: path for name, path in zip(names, images, strict=True) if name not in known}.items())
    if missing:
        workers = workers or os.cpu_count() or 1
        # spawn: a forked process would inherit torch's thread pool in an unusable state
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(frames,)) as pool:
            found = pool.map(_match_file, [str(path) for _, path in missing], chunksize=16)
            progress = tqdm(zip(missing, found, strict=True), "source frames", total=len(missing), unit="image")
            for done, ((name, _), match) in enumerate(progress, 1):
                known[name] = [match.frame, match.inliers, match.runner_up]
                if done % SAVE_EVERY == 0:
                    write_json(store, known)
        write_json(store, known)
    return [Match(*known[name]) for name in names]


def _file_key(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:24]


def _read_grey(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise TrainingDataError(f"{path} cannot be read as a picture.")
    return cv2.resize(image, FRAME_SIZE, interpolation=cv2.INTER_AREA)


def _inliers(mine: np.ndarray, theirs: np.ndarray) -> int:
    if len(mine) < 3:
        return 0
    _, mask = cv2.estimateAffinePartial2D(theirs, mine, method=cv2.RANSAC, ransacReprojThreshold=RANSAC_PIXELS)
    return 0 if mask is None else int(mask.sum())


_index: FrameIndex | None = None


def _start_worker(frames: Sequence[Path]) -> None:
    global _index
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _index = FrameIndex(frames)


def _match_file(path: str) -> Match:
    if _index is None:
        raise RuntimeError("the worker process was not initialised")
    return _index.match(_read_grey(Path(path)))
