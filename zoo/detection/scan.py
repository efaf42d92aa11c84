"""Search of a whole picture: at the scale at which its red cells have the trained size, in tiles where it is large."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from zoo.detection.found import Found, read_maps, suppress
from zoo.detection.objects import OBJECTS, RED, TOUCHING, WHITE

Forward = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

MEAN, STD = 0.5, 0.5
RED_SIDE = 32.0  # pixels: size of red cells at which a picture is searched
WHITE_TO_RED = 1.7  # usual size of a white cell, in red cells
FIRST_SIDES = (160, 320, 640, 1280, 2560)  # pixels: longer sides at which the size of the cells is looked for, in turn
ENLARGED_TO = 640  # pixels: longer side beyond which no picture is enlarged for a first look
READABLE = 12.0  # pixels: smallest size of red cells that a first look can tell
CREDIBLE = 0.3  # confidence of what a first look counts
ENOUGH = 0.1  # share of the picture, times confidence above CREDIBLE, that ends the first looks
KEPT = 0.7  # share of a first look's explanation that the search itself must reach to be preferred
NEAR = 1.25  # factor between two scales that give the same answer
SCALES = (1 / 16, 4.0)  # of the search
TILE, OVERLAP = 1024, 192  # pixels at the scale of the search
GRID = 32  # sides of the network's input are multiples of it
LEAST = 0.1  # confidence of what is returned; a detector's entry says what counts


@dataclass(frozen=True)
class Search:
    """Objects found in a picture, boxes in its pixels, and the scale at which it was searched."""

    found: Found
    scale: float


def search(image: Image.Image, forward: Forward, least: float = LEAST) -> Search:
    """Find the cells of a picture.

    Args:
        image: RGB.
        forward: The network: a batch (B, 3, H, W), float32, to its maps.
        least: Confidence below which nothing is returned.
    """
    pixels = np.asarray(image.convert("RGB"))
    longer = max(pixels.shape[:2])
    best: tuple[float, Search] | None = None
    for side in FIRST_SIDES:
        scale = min(side / longer, SCALES[1])
        # the smallest pictures are looked at once, enlarged as far as allowed
        if best and (side > SCALES[1] * longer or (scale > 1 and side > ENLARGED_TO)):
            break
        looked = Search(_scaled(pixels, scale, forward, min(least, CREDIBLE)), scale)
        explained = _explained(looked.found, pixels.shape[:2])
        if best is None or explained > best[0]:
            best = (explained, looked)
        red_side = _red_side(looked)
        if explained >= ENOUGH and red_side and red_side >= READABLE:
            break
    assert best is not None
    explained, looked = best
    red_side = _red_side(looked)
    wanted = float(np.clip(looked.scale * RED_SIDE / red_side, *SCALES)) if red_side else looked.scale
    if not 1 / NEAR < wanted / looked.scale < NEAR:
        closer = Search(_scaled(pixels, wanted, forward, least), wanted)
        if _explained(closer.found, pixels.shape[:2]) >= KEPT * explained:
            return closer
    return Search(looked.found.where(looked.found.confidences >= least), looked.scale)


def _explained(found: Found, size: tuple[int, int]) -> float:
    """Share of the picture that credible boxes cover, each by its confidence.

    At a wrong scale parts of cells are taken for cells: their boxes are small, and less sure.
    """
    areas = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    return float((areas * np.clip(found.confidences - CREDIBLE, 0, None)).sum() / np.prod(size))


def _red_side(looked: Search) -> float | None:
    """Size of red cells at the scale of the search, also told by white ones; None where nothing credible was found."""
    found = looked.found
    sides = np.sqrt(np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)) * looked.scale
    units = np.select(
        [found.numbers == OBJECTS.index(RED), found.numbers == OBJECTS.index(WHITE)], [1, WHITE_TO_RED], 0
    )
    told = (found.confidences >= CREDIBLE) & (units > 0)
    if not told.any():
        return None
    implied, weights = sides[told] / units[told], sides[told] ** 2 * (found.confidences[told] - CREDIBLE + 0.01)
    order = np.argsort(implied)
    shares = np.cumsum(weights[order])
    return float(implied[order][np.searchsorted(shares, shares[-1] / 2)])


def _scaled(pixels: np.ndarray, scale: float, forward: Forward, least: float) -> Found:
    """Objects of a picture that is searched at `scale`, boxes in pixels of the picture itself."""
    height, width = pixels.shape[:2]
    size = max(GRID, round(width * scale)), max(GRID, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(pixels, size, interpolation=how)
    parts = [_tile(scaled, left, top, right, bottom, forward, least) for left, top, right, bottom in _tiles(*size)]
    found = suppress(
        Found(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.confidences for part in parts]),
            np.concatenate([part.numbers for part in parts]),
        )
    )
    unit = np.array([width / size[0], height / size[1]] * 2, np.float32)
    limits = np.array([width, height] * 2, np.float32)
    return Found(np.clip(found.boxes * unit, 0, limits), found.confidences, found.numbers)


def _tiles(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Tiles that overlap, (left, top, right, bottom); one where the picture is small."""
    for top, bottom in _spans(height):
        for left, right in _spans(width):
            yield left, top, right, bottom


def _spans(length: int) -> list[tuple[int, int]]:
    if length <= TILE:
        return [(0, length)]
    count = -(-(length - OVERLAP) // (TILE - OVERLAP))
    starts = np.linspace(0, length - TILE, count).round().astype(int)
    return [(int(start), int(start) + TILE) for start in starts]


def _tile(scaled: np.ndarray, left: int, top: int, right: int, bottom: int, forward: Forward, least: float) -> Found:
    """Objects of one tile in the scaled picture's pixels, without those that the tile's inner edges cut."""
    part = scaled[top:bottom, left:right]
    height, width = part.shape[:2]
    padded = cv2.copyMakeBorder(part, 0, -height % GRID, 0, -width % GRID, cv2.BORDER_REPLICATE)
    batch = (np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32) / 255 - MEAN) / STD
    (found,) = read_maps(*forward(batch), least)
    boxes = np.clip(found.boxes, 0, np.array([width, height] * 2, np.float32))
    whole_height, whole_width = scaled.shape[:2]
    kept = np.ones(len(boxes), bool)
    for near, is_inner in (
        (boxes[:, 0] < TOUCHING, left > 0),
        (boxes[:, 1] < TOUCHING, top > 0),
        (boxes[:, 2] > width - TOUCHING, right < whole_width),
        (boxes[:, 3] > height - TOUCHING, bottom < whole_height),
    ):
        kept &= ~near | (not is_inner)
    kept &= (boxes[:, 2:] - boxes[:, :2] > 1).all(axis=1)
    shift = np.array([left, top, left, top], np.float32)
    return Found(boxes[kept] + shift, found.confidences[kept], found.numbers[kept])
