"""Copies among pictures: pixel-identical ones, near ones, and those that come from one photograph.

Near copies are turned, flipped, shifted, re-encoded or pasted.

Candidates are nearest neighbours by two signatures that turning and flipping do not change; a pair counts when local
features agree in one similarity transform, or when the cell itself, aligned pixel by pixel, is the same. Pictures that
are linked directly or through others show the same thing. Copies of one photograph share its exposure: after alignment
their colours are equal, those of a second photograph of the same field are not, and so the two are told apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import lsqr

from training.audit import measure
from training.audit.matching import LONGEST, SHORTEST, Fit, compare
from training.audit.measure import ANGLES, THUMBNAIL, TILE, Measured
from training.audit.parallel import spread
from zoo.files import atomic_path

VERSION = 2  # of the links that are kept: raise when what makes a pair changes
BY_CELL, BY_PICTURE = 12, 6  # nearest neighbours looked at, by each signature
MIN_INLIERS = 12  # points that obey one transform; twenty pairs of different cells reached 11 at most
MIN_INLIERS_SMALL = 15  # the same for small pictures, whose points are less distinctive once enlarged
PATCH = 48  # pixels at which cells are aligned
MIN_CORRELATION = 0.90  # of aligned cells; different cells of this size reached 0.896
# points, and correlation of cells, that together are enough: one pair of different cells in a hundred has each
FEW_INLIERS, MIN_CORRELATION_WITH_INLIERS = 9, 0.83
MIN_EXTENT = 12.0  # nucleus extent in pixels below which round nuclei all look alike
MIN_OUTLINE_CORRELATION = 0.5  # without which no alignment is tried
JOB = 256  # pairs handed to a worker at a time
MIN_PARALLEL = 4000  # pairs below which no process is started
MIN_CROWD = 4  # copies from which a picture's link to another must be confirmed by a third
COLOUR_GAP = 2.0  # levels of 255 between the colours of two photographs
MIN_COPIES, MIN_COVER = 6, 0.8  # copies of a photograph, and their share of the pictures


@dataclass(frozen=True)
class Links:
    """Verified pairs of rows (m, 2), inliers (m,), and the median colour difference (m, 3) of first minus second."""

    pairs: np.ndarray
    inliers: np.ndarray
    shifts: np.ndarray


@dataclass(frozen=True)
class Copies:
    """Groups of rows that are copies of each other.

    Attributes:
        identical: Groups of rows with the same pixels.
        near: Groups of rows that show the same thing, identical ones included.
        cell: Number of the photograph that each row comes from (n,).
        same_thing: Number of each row's near group (n,).
        links: The verified pairs.
    """

    identical: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...]
    cell: np.ndarray
    same_thing: np.ndarray
    links: Links


def find_copies(measured: Measured) -> Copies:
    """Groups of copies among all readable pictures."""
    rows = np.flatnonzero(measured.readable)
    hashes = np.asarray(measured["pixels"])
    identical = group_by(hashes[rows].tolist(), rows)
    # one picture stands for all that have its pixels: else a hundred equal ones would be each other's only neighbours
    first = {hashes[row]: row for row in rows[::-1]}
    alone = np.array(sorted(first.values()), np.int64)
    links = _confirmed(len(hashes), find_links(measured, alone))
    thing = _components(len(hashes), links.pairs)
    cell = _photographs(len(hashes), thing, links)
    for row in rows:
        thing[row], cell[row] = thing[first[hashes[row]]], cell[first[hashes[row]]]
    near = group_by(thing[rows].tolist(), rows)
    return Copies(identical, near, cell, thing, links)


def group_by(keys: Sequence, rows: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Rows with equal keys, where there are at least two; largest group first."""
    found = defaultdict(list)
    for key, row in zip(keys, rows.tolist(), strict=True):
        found[key].append(row)
    return tuple(sorted((tuple(group) for group in found.values() if len(group) > 1), key=lambda g: (-len(g), g)))


def find_links(measured: Measured, rows: np.ndarray) -> Links:
    """Verified pairs among `rows`, each pair once; kept beside the measurements, for the next command to find."""
    kept = measured.folder.parent / f"links-{VERSION}.npz"
    try:
        with np.load(kept, allow_pickle=False) as archive:
            return Links(archive["pairs"], archive["inliers"], archive["shifts"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        links = _compare_candidates(measured, rows)
    with atomic_path(kept) as temporary, temporary.open("wb") as file:
        np.savez(file, pairs=links.pairs, inliers=links.inliers, shifts=links.shifts)
    return links


def _compare_candidates(measured: Measured, rows: np.ndarray) -> Links:
    cell, picture = measured["cell_signature"][rows], measured["picture_signature"][rows]
    pairs = rows[np.array(sorted(neighbours(cell, BY_CELL) | neighbours(picture, BY_PICTURE)), np.int64).reshape(-1, 2)]
    jobs = [pairs[start : start + JOB] for start in range(0, len(pairs), JOB)]
    start = (measured.folder,)
    found = list(spread(_verify, jobs, "comparing", "pair", _open, start, MIN_PARALLEL, weight=len))
    keep = np.concatenate([*found, np.zeros((0, 6))])
    kept = keep[:, 2] > 0
    return Links(keep[kept, :2].astype(np.int64), keep[kept, 2], keep[kept, 3:])


def neighbours(signatures: np.ndarray, count: int) -> set[tuple[int, int]]:
    """Pairs (i < j) of rows where one is among the `count` nearest of the other, by cosine."""
    values = signatures.astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True) + 1e-9
    count = min(count, len(values) - 1)
    found: set[tuple[int, int]] = set()
    for start in range(0, len(values) if count > 0 else 0, 1024):
        similar = values[start : start + 1024] @ values.T
        similar[np.arange(len(similar)), start + np.arange(len(similar))] = -np.inf
        nearest = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        for i, row in enumerate(nearest.tolist(), start):
            found.update((min(i, j), max(i, j)) for j in row)
    return found


_measured: Measured | None = None


def _open(folder: Path) -> None:
    global _measured
    _measured = measure.open_columns(folder)


def _verify(pairs: np.ndarray) -> np.ndarray:
    """Rows (first, second, strength, colour difference) of pairs; strength 0 where they are no copies."""
    assert _measured is not None, "the process was not started by _open"
    return np.array([[first, second, *_verify_pair(_measured, first, second)] for first, second in pairs.tolist()])


def _verify_pair(measured: Measured, first: int, second: int) -> tuple[float, float, float, float]:
    fit = compare(measured.features(first), measured.features(second))
    small = max(measured["width"][first], measured["height"][first]) < SHORTEST
    if fit.inliers >= (MIN_INLIERS_SMALL if small else MIN_INLIERS):
        return float(fit.inliers), *colour_shift(measured, first, second, fit)
    hinted = fit.inliers >= FEW_INLIERS
    if not hinted and min(measured["extent"][first], measured["extent"][second]) < MIN_EXTENT:
        return 0.0, 0.0, 0.0, 0.0
    likeness = same_cell(measured["tile"][first], measured["tile"][second])
    return float(likeness >= (MIN_CORRELATION_WITH_INLIERS if hinted else MIN_CORRELATION)), 0.0, 0.0, 0.0


def colour_shift(measured: Measured, first: int, second: int, fit: Fit) -> tuple[float, float, float]:
    """Mean of the middle half of colour differences, `first` minus `second`, where the two overlap."""
    if fit.matrix is None:
        return 0.0, 0.0, 0.0
    inner = [_thumbnail_scale(measured, row) for row in (first, second)]
    picture = np.asarray(measured["thumbnail"][second])
    flip = np.diag([-1.0, 1.0, 1.0]) if fit.mirrored else np.eye(3)
    matrix = inner[0] @ np.vstack([fit.matrix, [0, 0, 1]]) @ flip @ np.linalg.inv(inner[1])
    warped = cv2.warpAffine(picture, matrix[:2], (THUMBNAIL, THUMBNAIL), flags=cv2.INTER_LINEAR)
    mine = np.asarray(measured["thumbnail"][first])
    lit = cv2.erode(((warped.min(2) > 20) & (mine.min(2) > 20)).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if lit.sum() < 50:
        return 0.0, 0.0, 0.0
    difference = np.sort(mine[lit].astype(np.float32) - warped[lit], axis=0)
    quarter = len(difference) // 4
    red, green, blue = difference[quarter : len(difference) - quarter].mean(0).tolist()
    return red, green, blue


def _thumbnail_scale(measured: Measured, row: int) -> np.ndarray:
    """3×3 matrix from the scaled picture, in which keypoints are, to the thumbnail."""
    width, height = float(measured["width"][row]), float(measured["height"][row])
    longest = max(width, height)
    scale = min(max(longest, SHORTEST), LONGEST) / longest
    across, down = THUMBNAIL / (width * scale), THUMBNAIL / (height * scale)
    # a pixel's own middle is its whole-number coordinate
    return np.array([[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5], [0, 0, 1]])


def same_cell(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two tiles' fine structure after turn, flip and affine alignment (ECC, Evangelidis 2008)."""
    waves = [_outline(tile) for tile in (first, second)]
    turned = np.fft.irfft((waves[0].conj() * waves[1]).sum((0, 2)), ANGLES)
    mirrored = np.fft.irfft((waves[0] * waves[1]).sum((0, 2)), ANGLES)
    target = _patch(first, 0.0, False)
    best = -1.0
    for match, mirror in ((turned, False), (mirrored, True)):
        if match.max() > MIN_OUTLINE_CORRELATION:
            patch = _patch(second, 2 * np.pi * int(match.argmax()) / ANGLES, mirror)
            best = max(best, _correlation(target, _aligned(target, patch)))
    return best


def _outline(tile: np.ndarray) -> np.ndarray:
    middle = (TILE / 2 - 0.5, TILE / 2 - 0.5)
    samples = measure.polar(tile, middle, TILE / 2 / measure.TILE_REACH)
    weight = np.sqrt(np.arange(len(samples)) + 0.5)[:, None, None]
    waves = np.fft.rfft(samples * weight, axis=1)
    waves[:, 0] = 0  # every nucleus is darker in its middle; only what differs around it tells
    power = (np.abs(waves) ** 2).sum() * 2 / ANGLES
    return waves / (np.sqrt(power) + 1e-6)


def _patch(tile: np.ndarray, angle: float, mirror: bool) -> np.ndarray:
    step = (TILE / 2 / measure.TILE_REACH) / (PATCH / 2)
    cosine, sine = np.cos(angle) * step, np.sin(angle) * step
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    if mirror:
        matrix = matrix @ np.diag([1.0, -1.0])
    first = np.full(2, TILE / 2 - 0.5) - matrix @ np.full(2, PATCH / 2 - 0.5)
    whole = np.column_stack([matrix, first]).astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tile, whole, (PATCH, PATCH), flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def _aligned(target: np.ndarray, patch: np.ndarray) -> np.ndarray:
    grey = [cv2.cvtColor(part, cv2.COLOR_RGB2GRAY) for part in (target, patch)]
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 25, 1e-4)
    start = np.eye(2, 3, dtype=np.float32)
    try:
        _, matrix = cv2.findTransformECC(*grey, start, cv2.MOTION_AFFINE, stop, None, 3)  # type: ignore[call-overload] # the stubs lack None for the mask
    except cv2.error:  # it did not converge: two different cells
        return patch
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(patch, matrix, (PATCH, PATCH), flags=flags, borderMode=cv2.BORDER_REPLICATE)


_Y, _X = np.mgrid[:PATCH, :PATCH] - (PATCH / 2 - 0.5)
INNER = np.hypot(_X, _Y) < 0.75 * PATCH / 2  # the rim belongs to the background, which may be another


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    fine = [
        (cv2.GaussianBlur(part, (0, 0), 0.8) - cv2.GaussianBlur(part, (0, 0), 2.0))[INNER].ravel()
        for part in (first, second)
    ]
    fine = [part - part.mean() for part in fine]
    return float(fine[0] @ fine[1] / (np.linalg.norm(fine[0]) * np.linalg.norm(fine[1]) + 1e-6))


def _components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Number of each row's connected component."""
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _confirmed(count: int, links: Links) -> Links:
    """The links without those that alone would join two large groups.

    True copies have copies in common; a chance match between two large groups has none.
    """
    pairs = links.pairs
    if not len(pairs):
        return links
    both = np.concatenate([pairs, pairs[:, ::-1]])
    graph = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count)).tocsr()
    friends = np.asarray(graph.sum(1)).ravel()[pairs].min(1)
    shared = np.asarray((graph @ graph)[pairs[:, 0], pairs[:, 1]]).ravel()
    kept = (shared > 0) | (friends < MIN_CROWD)
    return Links(pairs[kept], links.inliers[kept], links.shifts[kept])


def _photographs(count: int, thing: np.ndarray, links: Links) -> np.ndarray:
    """Number of each row's photograph: its near group, cut where the group's colours fall into separate clusters."""
    cell = thing.copy()
    number = int(thing.max(initial=0)) + 1
    coloured = np.flatnonzero(links.inliers > 1)
    by_thing = defaultdict(list)
    for link in coloured.tolist():
        by_thing[int(thing[links.pairs[link, 0]])].append(link)
    for group, own in by_thing.items():
        members = np.flatnonzero(thing == group)
        if len(members) < 2 * MIN_COPIES:
            continue
        parts = _by_colour(members, links.pairs[own], links.shifts[own], links.inliers[own])
        for part in range(1, parts.max() + 1):
            cell[members[parts == part]] = number
            number += 1
    return cell


def _by_colour(members: np.ndarray, pairs: np.ndarray, shifts: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Part (0, 1, …) of each member. Its colour offset is what fits the differences to all its neighbours best."""
    place = {row: i for i, row in enumerate(members.tolist())}
    ends = np.array([[place[a], place[b]] for a, b in pairs.tolist()])
    size = len(members)
    weight = np.sqrt(strength)
    edges = np.arange(len(ends))
    system = coo_matrix(
        (np.concatenate([weight, -weight]), (np.concatenate([edges, edges]), ends.T.ravel())), (len(ends), size)
    ).tocsr()
    offsets = np.column_stack([lsqr(system, shifts[:, channel] * weight, damp=1e-3)[0] for channel in range(3)])
    linked = np.unique(ends)
    whole = np.zeros(size, np.int64)
    if len(linked) < 2 * MIN_COPIES:
        return whole
    clusters = fcluster(linkage(offsets[linked], "average"), COLOUR_GAP, "distance")
    sizes = np.bincount(clusters)
    large = np.flatnonzero(sizes >= MIN_COPIES)
    if len(large) < 2 or sizes[large].sum() < MIN_COVER * len(linked):
        return whole
    middles = np.array([offsets[linked][clusters == cluster].mean(0) for cluster in large])
    nearest = np.linalg.norm(offsets[:, None] - middles[None], axis=2).argmin(1)
    return nearest.astype(np.int64)
