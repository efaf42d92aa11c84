"""Location of the main cell of a picture, and the part of the picture that a model sees.

`find_cell` finds the main nucleated cell or platelet. It works on optical density relative to the picture's own
background (Beer–Lambert law: stains multiply light, so ratios to the background survive exposure and white balance).
Azure-stained nuclei and platelets absorb green more than red, and red more than blue, in every Romanowsky stain; red
cells absorb blue most, or all three alike.

`locate_cell` cuts out the part of a picture that an entry asks for (`CROPS`). Its result, a `LocatedCell`, is made once
for a picture and handed on: to preprocessing, to the explanation and the placement of its map, and to the
out-of-distribution check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo.imaging import published_crop
from zoo.imaging.published_crop import Box
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import cv2
else:
    cv2 = lazy_module("cv2")

CROP_VERSION = 3  # version of what `locate_cell` returns, part of cache keys: raise it when the result changes

# Search for the cell
WORK_SIDE = 192  # pixels: longer side to which a picture is scaled for the search
FINE_SIDE = 512  # pixels: the same when the cell is too small to be seen at WORK_SIDE
MIN_NUCLEUS = 14.0  # pixels: nucleus diameter below which the search is repeated at FINE_SIDE
MAX_BLACK = 12  # brightest 8-bit sample of a pixel that no light reached, as in corners left by rotation
MAX_RIM = 80  # brightest sample of an eyepiece's rim that fills a corner
MAX_RIM_SPREAD = 24  # spread of the three samples of such a colourless rim; the darkest nuclei are above
BACKGROUND_PERCENTILE = 90  # of brightness, taken for the empty slide
STAIN_WEIGHTS = np.array([0.2, 1.2, -0.8], np.float32)  # of red, green and blue absorption in the stain score
MAX_DENSITY = 1.6  # optical density above which a sample carries no more information
MIN_STAIN = 0.2  # stain score that only stained chromatin or granules reach
NUCLEUS_SHARE = 0.45  # of the picture's own deepest stain that a nucleus must reach
CYTOPLASM_SHARE = 0.125  # of the nucleus's stain above the background that its cytoplasm must reach
CYTOPLASM_REACH = 0.6  # nucleus radii that cytoplasm may extend beyond the nucleus
SURE_STAIN = 0.8  # stain score of a well-stained nucleus
LOBE_DISTANCE = 0.6  # nucleus radii from the main part within which another part is a lobe of the same nucleus
MIN_LOBE_AREA, MIN_LOBE_STAIN = 0.05, 0.7  # of a lobe, as shares of the main part's
MIN_CYTOPLASM_STAIN = 0.12  # stain score that cytoplasm must reach at least
CENTRE_WEIGHT = 8  # how fast the rank of a part falls with its squared distance from the middle, in picture widths
RIM_WIDTH = 0.15  # nucleus radii: thinner parts are rims of red cells
MEMBRANE_WIDTH = 0.05  # of the cell's diameter: membranes are thin and pale, below every threshold
STAINED_SHARE, STAINED_RANGE = 0.9, 0.25  # confidence falls to 0 where this share of a picture is stained, from 0.65

# Crops
SQUARE_SCALE = 1.9  # side of the square over the cell's longer side: training rotates, shifts and zooms within it
MASK_MARGIN = 0.15  # nucleus diameters of its surroundings that an isolated cell keeps
SLIDE_PERCENTILE = 85  # of brightness, taken for the colour of the empty slide around a cell
STAINED_LIGHT = 0.35  # share of the slide's green that the darkest stain in a square lets through, at most
FAINT_LIGHT = 0.6  # share above which `find_cell` increases the picture's contrast first
UNSTAINED_LIGHT = 0.85  # share above which nothing in a picture is stained
DARKEST_PERCENTILE = 0.5  # of green, taken for the darkest stain


@dataclass(frozen=True)
class Cell:
    """The main cell of a picture of height H and width W, in the picture's pixels.

    Attributes:
        box: (left, top, right, bottom) of the whole cell.
        centre: (x, y) of the nucleus.
        nucleus_diameter: diameter of a disc with the nucleus's area.
        confidence: 0..1, low where nothing looks like a stained, compact cell.
        mask: whole cell, bool (h, w), at `scale`.
        nucleus: nucleus, bool (h, w), at `scale`.
        scale: mask pixels for each picture pixel.
    """

    box: tuple[float, float, float, float]
    centre: tuple[float, float]
    nucleus_diameter: float
    confidence: float
    mask: np.ndarray
    nucleus: np.ndarray
    scale: float


@dataclass(frozen=True, eq=False)
class LocatedCell:
    """The part of one picture that a model sees, found once and handed on to every later step.

    Attributes:
        image: that part, RGB.
        box: its place in the picture; it may reach out of the picture.
        crop: the kind of crop, a key of `CROPS`.
        confidence: 0..1 that there is a cell; 1 for kinds of crop that search for none.
        cell: the cell with its masks; None where none was searched for or found.
    """

    image: Image.Image
    box: Box
    crop: str = "none"
    confidence: float = 1.0
    cell: Cell | None = None


def find_cell(image: Image.Image) -> Cell | None:
    """Find the main nucleated cell or platelet of an RGB picture; None if nothing in it is stained like one."""
    tables = _contrast_tables(image, FAINT_LIGHT)
    return _search(np.asarray(image if tables is None else image.point(tables)))


def locate_cell(image: Image.Image, crop: str) -> LocatedCell:
    """Locate the part of an RGB picture that an entry sees.

    Args:
        image: RGB picture.
        crop: kind of crop, as the entry's configuration names it: "none" (the whole picture), "cell" (system E's
            published crop), "cell-0.2" (nearly so, as version 0.2 cut), "square" (around the cell), "alone" (the
            square without the cell's neighbours), or one of `FOUND_CROPS`: cut where the detector finds the cell, by
            the cell's size or ("scaled") at one physical scale.

    Raises:
        KeyError: there is no such kind of crop.
    """
    return CROPS[crop](image)


def crop_none(image: Image.Image) -> LocatedCell:
    """Return the whole picture."""
    return LocatedCell(image, (0, 0, *image.size))


def crop_system_e(image: Image.Image) -> LocatedCell:
    """Cut exactly as system E published it; see `zoo.imaging.published_crop`."""
    return LocatedCell(*published_crop.cut(image), "cell")


def crop_system_e_before(image: Image.Image) -> LocatedCell:
    """Cut as version 0.2 and earlier did, for entries trained with that crop."""
    return LocatedCell(*published_crop.cut_before(image), "cell-0.2")


def crop_square(image: Image.Image) -> LocatedCell:
    """Cut a square around the main cell, SQUARE_SCALE times as wide as the cell's box is long.

    Cells of every laboratory are then of one size and in the middle, and none is paler than STAINED_LIGHT: the veil
    that haze, a thin stain or a flat camera adds is removed. Where the square reaches out of the picture it has the
    colour of the empty slide. A picture without a cell is treated as one.
    """
    return _square(image)[0]


def crop_isolated(image: Image.Image) -> LocatedCell:
    """Cut as `crop_square`, with the empty slide around the cell in place of its neighbours.

    Red cells and other surroundings of a cell tell more about the laboratory than about the cell.
    """
    square, slide = _square(image)
    cell = square.cell
    if cell is None:
        return replace(square, crop="alone")
    margin = max(1, round(MASK_MARGIN * cell.nucleus_diameter * cell.scale))
    mask = cv2.dilate(cell.mask.astype(np.uint8) * 255, _disc(2 * margin + 1))
    # a soft border: a sharp one would be an edge that the slide does not have
    mask = cv2.GaussianBlur(mask, (0, 0), 1.5)
    grow = 1 / cell.scale
    shift = 0.5 * grow - 0.5
    matrix = np.array([[grow, 0, shift - square.box[0]], [0, grow, shift - square.box[1]]])
    mask = cv2.warpAffine(mask, matrix, square.image.size, flags=cv2.INTER_LINEAR)
    background = Image.new("RGB", square.image.size, slide)
    return replace(square, image=Image.composite(square.image, background, Image.fromarray(mask)), crop="alone")


def crop_found(image: Image.Image, crop: str) -> LocatedCell:
    """Cut the cell that the detector finds; see `zoo.detection.cut`."""
    from zoo.detection.cut import cut_found  # noqa: PLC0415 (it cuts with functions of this module)

    return cut_found(image, crop)


FOUND_CROPS = ("found", "found-alone", "scaled", "scaled-alone")  # kinds of crop that a detector finds the cell for
CROPS: Mapping[str, Callable[[Image.Image], LocatedCell]] = {
    "none": crop_none,
    "cell": crop_system_e,
    "cell-0.2": crop_system_e_before,
    "square": crop_square,
    "alone": crop_isolated,
    **{crop: partial(crop_found, crop=crop) for crop in FOUND_CROPS},
}
LOCATING_CROPS = ("square", "alone", *FOUND_CROPS)  # kinds of crop that look for the cell and have a confidence


def empty_slide(image: Image.Image) -> tuple[int, int, int]:
    """Estimate the RGB colour of what is not stained in a picture."""
    pixels = np.asarray(image).reshape(-1, 3)
    pixels = pixels[:: max(1, len(pixels) // 4096)]
    lit = pixels[pixels.max(1) > MAX_BLACK]
    red, green, blue = np.percentile(lit if len(lit) else pixels, SLIDE_PERCENTILE, axis=0)
    return int(red), int(green), int(blue)


def _search(pixels: np.ndarray) -> Cell | None:
    """Find the cell in RGB pixels (H, W, 3) as they are."""
    cell = _find(pixels, WORK_SIDE)
    longest = max(pixels.shape[:2])
    if longest > WORK_SIDE and (cell is None or cell.nucleus_diameter * cell.scale < MIN_NUCLEUS):
        cell = _find(pixels, min(FINE_SIDE, longest)) or cell
    return cell


def _square(image: Image.Image) -> tuple[LocatedCell, tuple[int, int, int]]:
    """The square around the main cell, and the colour of the empty slide."""
    image = deepen(image)
    cell, slide = _search(np.asarray(image)), empty_slide(image)
    left, top, right, bottom = cell.box if cell else (0, 0, *image.size)
    side = max(8, round(SQUARE_SCALE * max(right - left, bottom - top)))
    x, y = round((left + right - side) / 2), round((top + bottom - side) / 2)
    box = (x, y, x + side, y + side)
    if x >= 0 and y >= 0 and box[2] <= image.width and box[3] <= image.height:
        part = image.crop(box)
    else:
        part = Image.new("RGB", (side, side), slide)
        part.paste(image, (-x, -y))
    return LocatedCell(part, box, "square", cell.confidence if cell else 0.0, cell), slide


def deepen(image: Image.Image) -> Image.Image:
    """Remove the veil of a pale RGB picture: its darkest stain then lets STAINED_LIGHT of the slide's light through."""
    tables = _contrast_tables(image, STAINED_LIGHT)
    return image if tables is None else image.point(tables)


def _contrast_tables(image: Image.Image, above: float) -> list[int] | None:
    """Tables for `Image.point` after which the darkest stain lets STAINED_LIGHT of the slide's light through.

    A picture is pale because of light that it has everywhere alike: as much of the slide's own colour is subtracted,
    and the rest is stretched to the slide's brightness again. None (no change) for pictures whose darkest stain lets
    less than `above` through, and for those without stain.
    """
    scale = min(1.0, WORK_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    pixels = cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_AREA)
    seen = cv2.GaussianBlur(pixels, (0, 0), 1.0)[_within(_lit(pixels))]
    if not len(seen):
        return None
    slide = np.array([_level(seen[:, channel], BACKGROUND_PERCENTILE) for channel in range(3)])
    share = _level(seen[:, 1], DARKEST_PERCENTILE) / max(slide[1], 1)
    if not above < share < UNSTAINED_LIGHT:
        return None
    veil = (share - STAINED_LIGHT) / (1 - STAINED_LIGHT)
    levels = (np.arange(256)[None] - veil * slide[:, None]) / (1 - veil)
    return [int(level) for level in levels.clip(0, 255).round().ravel()]


def _level(samples: np.ndarray, share: float) -> int:
    """Percentile of 8-bit samples, without sorting them."""
    return int(np.searchsorted(np.bincount(samples, minlength=256).cumsum(), share / 100 * len(samples)))


def _lit(pixels: np.ndarray) -> np.ndarray:
    """Mask of the RGB pixels (H, W, 3) that light reached: not black, and no dark grey that fills a corner."""
    red, green, blue = cv2.split(pixels)
    brightest = cv2.max(cv2.max(red, green), blue)
    lit = brightest > MAX_BLACK
    corners = [at for at in ((0, 0), (0, -1), (-1, 0), (-1, -1)) if MAX_BLACK < brightest[at] < MAX_RIM]
    if corners:
        dark = (brightest < MAX_RIM) & (brightest - cv2.min(cv2.min(red, green), blue) < MAX_RIM_SPREAD)
        _, parts = cv2.connectedComponents(dark.astype(np.uint8))
        lit &= ~np.isin(parts, [parts[at] for at in corners if dark[at]])
    return lit


def _within(lit: np.ndarray) -> np.ndarray:
    """`lit` without the seam between a picture and its black corners, which is no edge of a cell."""
    return cv2.erode(lit.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).astype(bool)


def stain(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the stain score (H, W) of RGB pixels (H, W, 3), 0 where unstained, and where light reached it."""
    lit = _lit(pixels)
    smooth = cv2.GaussianBlur(pixels, (0, 0), 1.0).astype(np.float32)
    seen = smooth[lit] if lit.any() else smooth.reshape(-1, 3)
    background = np.percentile(seen[:: max(1, len(seen) // 4096)], BACKGROUND_PERCENTILE, axis=0).astype(np.float32)
    # the offset keeps noise in near-black samples from counting as stain
    density = np.clip(np.log((background + 8) / (smooth + 8)), -0.2, MAX_DENSITY)
    inside = _within(lit)
    return np.where(inside, (density @ STAIN_WEIGHTS).clip(0, 2), 0), inside


def _find(pixels: np.ndarray, work: int) -> Cell | None:
    height, width = pixels.shape[:2]
    scale = min(1.0, work / max(height, width))
    if scale < 1:
        size = (max(8, round(width * scale)), max(8, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    score, inside = stain(pixels)
    values = score[inside]
    if values.size < 16:
        return None
    deepest = float(np.percentile(values, 99.5))
    threshold = max(_otsu(values), MIN_STAIN, NUCLEUS_SHARE * deepest)
    nucleus = _nucleus(score, threshold)
    if nucleus is None:
        return None
    mask = _cell(score, inside, nucleus)
    rows, columns = np.nonzero(nucleus)
    left, top, right, bottom = _box(mask)
    box = (left / scale, top / scale, min(right / scale, width), min(bottom / scale, height))
    centre = ((columns.mean() + 0.5) / scale, (rows.mean() + 0.5) / scale)
    diameter = 2 * np.sqrt(len(rows) / np.pi) / scale
    confidence = _confidence(score, nucleus, inside)
    return Cell(box, centre, float(diameter), confidence, mask, nucleus, scale)


def _otsu(values: np.ndarray) -> float:
    """Otsu's threshold (1979) of values in 0..2."""
    levels = (values * 127.5).astype(np.uint8)
    level, _ = cv2.threshold(levels[:, None], 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return (level + 0.5) / 127.5


def _nucleus(score: np.ndarray, threshold: float) -> np.ndarray | None:
    """Mask of the most stained, most central part, with the lobes that belong to it."""
    stained = cv2.morphologyEx((score > threshold).astype(np.uint8), cv2.MORPH_OPEN, _disc(3))
    count, parts, statistics, centres = cv2.connectedComponentsWithStats(stained, connectivity=8)
    if count < 2:
        return None
    height, width = score.shape
    area = statistics[:, cv2.CC_STAT_AREA]
    mass = np.bincount(parts.ravel(), score.ravel(), count)
    depth = mass / np.maximum(area, 1)
    away = (centres[:, 0] / width - 0.5) ** 2 + (centres[:, 1] / height - 0.5) ** 2
    rank = mass * depth * (0.5 + np.exp(-CENTRE_WEIGHT * away))
    rank[0] = 0
    main = int(rank.argmax())
    main_part = parts == main
    distance = cv2.distanceTransform((~main_part).astype(np.uint8), cv2.DIST_L2, 3)
    nearest = np.full(count, np.inf)
    np.minimum.at(nearest, parts.ravel().astype(np.int32, copy=False), distance.ravel())
    radius = np.sqrt(area[main] / np.pi)
    lobes = (nearest < LOBE_DISTANCE * radius) & (area > MIN_LOBE_AREA * area[main])
    lobes &= depth > MIN_LOBE_STAIN * depth[main]
    # a neighbour that the frame cuts is another cell, unless the main one is cut as well
    cut = np.zeros(count, bool)
    cut[np.unique(np.concatenate([parts[[0, -1]].ravel(), parts[:, [0, -1]].ravel()]))] = True
    lobes &= ~cut | cut[main]
    lobes[0] = False
    return lobes[parts] | main_part


def _cell(score: np.ndarray, inside: np.ndarray, nucleus: np.ndarray) -> np.ndarray:
    """Mask of the whole cell: the nucleus and the paler stain around it."""
    radius = np.sqrt(nucleus.sum() / np.pi)
    distance = cv2.distanceTransform((~nucleus).astype(np.uint8), cv2.DIST_L2, 3)
    ground = float(np.median(score[inside]))
    depth = float(np.median(score[nucleus])) - ground
    threshold = max(ground + CYTOPLASM_SHARE * depth, MIN_CYTOPLASM_STAIN)
    pale = ((score > threshold) & (distance < CYTOPLASM_REACH * radius) & inside) | nucleus
    # rims of red cells that touch are thin; cytoplasm is not
    opening = _disc(2 * round(RIM_WIDTH * radius) + 3)
    pale = cv2.morphologyEx(pale.astype(np.uint8), cv2.MORPH_OPEN, opening).astype(bool)
    _, parts = cv2.connectedComponents((pale | nucleus).astype(np.uint8), connectivity=4)
    own = np.unique(parts[nucleus])
    mask = np.isin(parts, own[own > 0]).astype(np.uint8)
    diameter = np.sqrt(mask.sum() * 4 / np.pi)
    return cv2.dilate(mask, _disc(2 * round(MEMBRANE_WIDTH * diameter) + 1)).astype(bool)


def _confidence(score: np.ndarray, nucleus: np.ndarray, inside: np.ndarray) -> float:
    """Confidence 0..1: how deep the stain is, how far above the rest, and how compact the nucleus."""
    deep = float(np.median(score[nucleus]))
    rest = inside & ~nucleus
    contrast = 1 - float(np.percentile(score[rest], 75)) / deep if rest.any() else 0.0
    hull = cv2.convexHull(np.argwhere(nucleus)[:, ::-1].astype(np.int32))
    solidity = float(nucleus.sum()) / max(cv2.contourArea(hull), 1.0)
    share = float(nucleus.sum()) / max(int(inside.sum()), 1)
    # more than two thirds stained is no picture of a cell on a slide
    room = np.clip((STAINED_SHARE - share) / STAINED_RANGE, 0, 1)
    return float(np.clip(deep / SURE_STAIN, 0, 1) * np.clip(contrast, 0, 1) * np.clip(solidity, 0, 1) ** 0.5 * room)


def _disc(size: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
