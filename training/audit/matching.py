"""Comparison of two pictures by local features with a geometric check, and search among many frames.

RootSIFT (Lowe 2004, doi:10.1023/B:VISI.0000029664.99615.94; Arandjelovic & Zisserman 2012), mutual nearest neighbours,
and a similarity transform by RANSAC. A mirror image has the same descriptors with their parts in another order, so
flips cost no second detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

KEYPOINTS = 160  # strongest ones kept of a picture
LONGEST, SHORTEST = 320, 288  # longer side, in pixels, to which larger and smaller pictures are brought
RANSAC_PIXELS = 4.0
ROUNDS = 300  # of RANSAC
MIN_SIMILARITY = 0.8  # cosine of two RootSIFT descriptors that may be one point
CANDIDATES = 3  # frames that are checked by geometry
FRAME_INLIERS = 6  # a wrong frame has a median of 0
# 4×4 cells of 8 orientations about a keypoint's own direction: a mirror turns rows around and directions back
MIRROR = np.array(
    [((3 - row) * 4 + column) * 8 + (8 - turn) % 8 for row in range(4) for column in range(4) for turn in range(8)]
)


@dataclass(frozen=True)
class Features:
    """Keypoint positions (n, 2) in pixels of the scaled picture and SIFT descriptors (n, 128) uint8."""

    positions: np.ndarray
    descriptors: np.ndarray

    def unit(self, mirrored: bool = False) -> np.ndarray:
        """RootSIFT, float32 (n, 128), of length 1; of the mirror image if asked for."""
        plain = self.descriptors[:, MIRROR] if mirrored else self.descriptors
        values = plain.astype(np.float32)
        return np.sqrt(values / np.maximum(values.sum(1, keepdims=True), 1e-9))

    def places(self, mirrored: bool = False) -> np.ndarray:
        """Positions, of the mirror image (x → -x) if asked for."""
        return self.positions * np.array([-1, 1], np.float32) if mirrored else self.positions


@dataclass(frozen=True)
class Fit:
    """Similarity transform (2, 3) from a second picture (mirrored or not) to a first, and the points that obey it."""

    inliers: int
    matrix: np.ndarray | None
    mirrored: bool


def scaled_grey(pixels: np.ndarray) -> np.ndarray:
    """H×W×3 or H×W uint8 → grey, its longer side between SHORTEST and LONGEST."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    longest = max(grey.shape)
    target = min(max(longest, SHORTEST), LONGEST)
    if target == longest:
        return grey
    size = (max(2, round(grey.shape[1] * target / longest)), max(2, round(grey.shape[0] * target / longest)))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA if target < longest else cv2.INTER_CUBIC)


def detect(grey: np.ndarray) -> Features:
    """The strongest keypoints of an H×W uint8 picture."""
    points, descriptors = cv2.SIFT.create(nfeatures=KEYPOINTS).detectAndCompute(grey, None)
    if descriptors is None:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    positions = np.array([point.pt for point in points[:KEYPOINTS]], np.float32)
    return Features(positions, descriptors[:KEYPOINTS].astype(np.uint8))


def compare(first: Features, second: Features) -> Fit:
    """The better fit of `second`, as it is or mirrored, onto `first`."""
    best = Fit(0, None, False)
    if min(len(first.positions), len(second.positions)) < 4:
        return best
    mine = first.unit()
    for mirrored in (False, True):
        similar = mine @ second.unit(mirrored).T
        nearest = similar.argmax(1)
        mutual = (similar.argmax(0)[nearest] == np.arange(len(nearest))) & (similar.max(1) > MIN_SIMILARITY)
        if mutual.sum() <= max(best.inliers, 3):
            continue
        found = _similarity(second.places(mirrored)[nearest[mutual]], first.positions[mutual])
        if found.inliers > best.inliers:
            best = Fit(found.inliers, found.matrix, mirrored)
    return best


class FrameIndex:
    """Descriptors of all frames and their mirror images, searched by matrix product."""

    def __init__(self, names: Sequence[str], frames: Sequence[Features]) -> None:
        self.names = list(names)
        views = [(frame, mirrored) for frame in frames for mirrored in (False, True)]
        self.positions = np.concatenate([frame.places(mirrored) for frame, mirrored in views])
        # one owner a mirror image: a rotation and its mirror are not one similarity transform
        self.owners = np.concatenate([np.full(len(frame.positions), n) for n, (frame, _) in enumerate(views)])
        stacked = np.concatenate([frame.unit(mirrored) for frame, mirrored in views])
        self.descriptors = torch.from_numpy(stacked).T.contiguous()

    def search(self, picture: Features) -> list[tuple[str, int]]:
        """(frame, inliers) of the frames that most descriptors vote for, best first."""
        if len(picture.positions) < FRAME_INLIERS:
            return []
        nearest = (torch.from_numpy(picture.unit()) @ self.descriptors).max(1).indices.numpy()
        votes = np.bincount(self.owners[nearest], minlength=2 * len(self.names))
        best: dict[int, int] = {}
        for owner in np.argsort(-votes)[:CANDIDATES]:
            mine = self.owners[nearest] == owner
            fit = _similarity(self.positions[nearest[mine]], picture.positions[mine])
            best[owner // 2] = max(best.get(owner // 2, 0), fit.inliers)
        return [(self.names[owner], count) for owner, count in sorted(best.items(), key=lambda item: -item[1])]


def _similarity(source: np.ndarray, target: np.ndarray) -> Fit:
    if len(source) < 3:
        return Fit(0, None, False)
    matrix, mask = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=RANSAC_PIXELS, maxIters=ROUNDS
    )
    return Fit(0, None, False) if matrix is None else Fit(int(mask.sum()), matrix, False)
