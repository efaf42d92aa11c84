"""Where is the cell? Box, masks and nucleus diameter of the main nucleated cell or platelet of a picture.

`find_cell` works on optical density against the picture's own background (Beer–Lambert: stains multiply light, so
ratios to the background survive exposure and white balance). Azure-stained nuclei and platelets absorb green more than
red, and red more than blue, in every Romanowsky stain; red cells absorb blue most, or all three alike.
`crop_cell` is the published recipe of system E, kept exactly, with its fixed colours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

CROP_VERSION = 2  # of what `cut` gives, part of the keys of what is kept: raise when it changes
WORK = 192  # longer side, in pixels, at which a picture is looked at
FINE = 512  # the same for a picture whose cell is too small to be seen at WORK
SMALL = 14.0  # nucleus diameter in pixels below which the finer look is taken
BLACK = 12  # brightest sample of a pixel that no light reached: what rotation leaves in the corners
SHADE = 80  # the same where an eyepiece's rim fills a corner
GREY = 24  # spread of the three samples below which such a rim has no colour; the darkest nuclei are above
BACKGROUND = 90  # percentile of brightness that is taken for the empty slide
STAIN = np.array([0.2, 1.2, -0.8], np.float32)  # weight of red, green and blue absorption in the stain score
DARKEST = 1.6  # optical density above which a sample says nothing more
LEAST = 0.2  # stain score that nothing but stained chromatin or granules reaches
SHARE = 0.45  # of the picture's own deepest stain that a nucleus must reach
CYTOPLASM = 0.125  # of the nucleus's stain above the background that its cytoplasm must reach
REACH = 0.6  # nucleus radii that cytoplasm may extend beyond the nucleus
SURE_DEPTH = 0.8  # stain score of a well-stained nucleus
ROOM = 1.9  # sides of a cell's box that its square is wide: training turns, shifts and zooms in it
AROUND = 0.15  # nucleus diameters of its surroundings that a cell keeps when it is shown alone
GROUND = 85  # percentile of brightness that the empty slide around a cell has
DEEP = 0.35  # share of the slide's green that the darkest stain of a picture lets through, at most, in a square
FAINT = 0.6  # share above which `find_cell` looks at a picture made deeper
UNSTAINED = 0.85  # share above which nothing in a picture is stained
DARK = 0.5  # percentile of the darkest stain

# system E, in RGB
PURPLE = ((80, 80, 180), (180, 170, 245))
PAD, PADDING = 10, (198, 203, 208)


Box = tuple[int, int, int, int]  # left, top, right, bottom


class Cut(NamedTuple):
    """A part of a picture, where in it that lies, and how sure it is (0..1) that a cell is there.

    It reaches out of the picture where its box does. Where nobody looked for a cell, nobody doubts it.
    """

    image: Image.Image
    box: Box
    confidence: float = 1.0


@dataclass(frozen=True)
class Cell:
    """The main cell of a picture of height H and width W, in the picture's pixels.

    `box` is (left, top, right, bottom) of the whole cell, `centre` (x, y) of its nucleus; `mask` (whole cell) and
    `nucleus` are boolean (h, w) at `scale` (their pixels a picture pixel). `nucleus_diameter` is that of a disc of the
    nucleus's area. `confidence` in 0..1 is low where nothing looks like a stained, compact cell.
    """

    box: tuple[float, float, float, float]
    centre: tuple[float, float]
    nucleus_diameter: float
    confidence: float
    mask: np.ndarray
    nucleus: np.ndarray
    scale: float


def find_cell(image: Image.Image) -> Cell | None:
    """The main nucleated cell or platelet of an RGB picture; None if nothing in it is stained like one."""
    tables = _deeper(image, FAINT)
    return _look(np.asarray(image if tables is None else image.point(tables)))


def _look(pixels: np.ndarray) -> Cell | None:
    """`find_cell` in RGB pixels (H, W, 3) as they are."""
    found = _find(pixels, WORK)
    longest = max(pixels.shape[:2])
    if longest > WORK and (found is None or found.nucleus_diameter * found.scale < SMALL):
        found = _find(pixels, min(FINE, longest)) or found
    return found


def crop_cell(image: Image.Image) -> Image.Image:
    """System E's crop: pad, purple range, erode, dilate, edges, largest contour; the rest black, cut to its box.

    Returns the whole picture where nothing is found. Source: the Kaggle notebook "Identify blood cell subtypes from
    images", which system E builds on.
    """
    return crop_cell_at(image)[0]


def crop_cell_at(image: Image.Image) -> Cut:
    """`crop_cell`, and where in the picture the crop lies, in pixels; it may reach a little outside of the picture."""
    pixels = cv2.copyMakeBorder(np.array(image), PAD, PAD, PAD, PAD, cv2.BORDER_CONSTANT, value=PADDING)
    purple = cv2.erode(cv2.inRange(pixels, *PURPLE), np.ones((3, 3), np.uint8), iterations=2)
    purple = cv2.dilate(purple, np.ones((5, 5), np.uint8), iterations=5)
    contours, _ = cv2.findContours(cv2.Canny(purple, 100, 400), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    contours = sorted(contours, key=cv2.contourArea)
    boxes = [cv2.boxPoints(cv2.minAreaRect(contour)).astype(int) for contour in contours]
    boxes = [box for box in boxes if (box[0] != box[3]).any() and (box[0] != box[1]).any()]
    if not boxes:
        return whole(image)
    (left, top), (right, bottom) = boxes[-1].min(0), boxes[-1].max(0)
    mask = np.zeros(pixels.shape[:2], np.uint8)
    cv2.drawContours(mask, contours, len(contours) - 1, 255, -1)
    pixels[mask == 0] = 0
    # a box that reaches out of the picture has a negative corner; E's slicing then gives nothing: the whole picture
    crop = pixels[top:bottom, left:right]
    if not crop.size:
        return whole(image)
    left, top = int(left) - PAD, int(top) - PAD
    return Cut(Image.fromarray(crop), (left, top, left + crop.shape[1], top + crop.shape[0]))


def square_at(image: Image.Image) -> Cut:
    """A square around the main cell, ROOM times as wide as the cell's box is long, and where in the picture it lies.

    Every laboratory's cells are then of one size, in the middle, and none is paler than DEEP: what haze, a thin stain
    or a flat camera lay over the picture is taken away. Where the square reaches out of the picture it has the colour
    of the empty slide. A picture without a cell is taken for one.
    """
    square, place, cell, _ = _square(image)
    return Cut(square, place, cell.confidence if cell else 0.0)


def alone_at(image: Image.Image) -> Cut:
    """`square_at`, with the empty slide around the cell instead of its neighbours.

    Red cells and what else surrounds a cell tell more of the laboratory than of the cell.
    """
    square, place, cell, slide = _square(image)
    if cell is None:
        return Cut(square, place, 0.0)
    reach = max(1, round(AROUND * cell.nucleus_diameter * cell.scale))
    mask = cv2.dilate(cell.mask.astype(np.uint8) * 255, _disc(2 * reach + 1))
    # softer than a cut, which would be an edge of its own
    mask = cv2.GaussianBlur(mask, (0, 0), 1.5)
    grow = 1 / cell.scale
    shift = 0.5 * grow - 0.5
    matrix = np.array([[grow, 0, shift - place[0]], [0, grow, shift - place[1]]])
    mask = cv2.warpAffine(mask, matrix, square.size, flags=cv2.INTER_LINEAR)
    alone = Image.composite(square, Image.new("RGB", square.size, slide), Image.fromarray(mask))
    return Cut(alone, place, cell.confidence)


def _square(image: Image.Image) -> tuple[Image.Image, Box, Cell | None, tuple[int, int, int]]:
    """`square_at`, the cell in the picture and the colour of its empty slide."""
    tables = _deeper(image, DEEP)
    if tables is not None:
        image = image.point(tables)
    cell, slide = _look(np.asarray(image)), empty_slide(image)
    left, top, right, bottom = cell.box if cell else (0, 0, *image.size)
    side = max(8, round(ROOM * max(right - left, bottom - top)))
    x, y = round((left + right - side) / 2), round((top + bottom - side) / 2)
    box = (x, y, x + side, y + side)
    if x >= 0 and y >= 0 and box[2] <= image.width and box[3] <= image.height:
        return image.crop(box), box, cell, slide
    canvas = Image.new("RGB", (side, side), slide)
    canvas.paste(image, (-x, -y))
    return canvas, box, cell, slide


def _deeper(image: Image.Image, above: float) -> list[int] | None:
    """Tables for `Image.point` after which the darkest stain lets DEEP of the slide's light through; None if it does.

    Light that a picture has everywhere alike is what makes it pale: as much of the slide's own colour is taken away,
    and what remains is stretched to the slide's brightness again. Pictures darker than `above`, and those without
    stain, are left as they are.
    """
    scale = min(1.0, WORK / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    pixels = cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_AREA)
    seen = cv2.GaussianBlur(pixels, (0, 0), 1.0)[_within(_lit(pixels))]
    if not len(seen):
        return None
    slide = np.array([_level(seen[:, channel], BACKGROUND) for channel in range(3)])
    share = _level(seen[:, 1], DARK) / max(slide[1], 1)
    if not above < share < UNSTAINED:
        return None
    veil = (share - DEEP) / (1 - DEEP)
    levels = (np.arange(256)[None] - veil * slide[:, None]) / (1 - veil)
    return [int(level) for level in levels.clip(0, 255).round().ravel()]


def _level(samples: np.ndarray, share: float) -> int:
    """Percentile of 8-bit samples, without sorting them."""
    return int(np.searchsorted(np.bincount(samples, minlength=256).cumsum(), share / 100 * len(samples)))


def _lit(pixels: np.ndarray) -> np.ndarray:
    """Where light reached a picture of RGB pixels (H, W, 3): not black, and no dark grey that fills a corner."""
    red, green, blue = cv2.split(pixels)
    brightest = cv2.max(cv2.max(red, green), blue)
    lit = brightest > BLACK
    corners = [at for at in ((0, 0), (0, -1), (-1, 0), (-1, -1)) if BLACK < brightest[at] < SHADE]
    if corners:
        dark = (brightest < SHADE) & (brightest - cv2.min(cv2.min(red, green), blue) < GREY)
        _, parts = cv2.connectedComponents(dark.astype(np.uint8))
        lit &= ~np.isin(parts, [parts[at] for at in corners if dark[at]])
    return lit


def _within(lit: np.ndarray) -> np.ndarray:
    """`lit` without the seam between a picture and its black corners, which is no edge of a cell."""
    return cv2.erode(lit.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).astype(bool)


def empty_slide(image: Image.Image) -> tuple[int, int, int]:
    """Colour of what is not stained in an RGB picture."""
    pixels = np.asarray(image).reshape(-1, 3)
    pixels = pixels[:: max(1, len(pixels) // 4096)]
    lit = pixels[pixels.max(1) > BLACK]
    red, green, blue = np.percentile(lit if len(lit) else pixels, GROUND, axis=0)
    return int(red), int(green), int(blue)


def cut(image: Image.Image, crop: str) -> Cut:
    """The part of a picture that a model asks for: see CROPS."""
    return CROPS[crop](image)


def whole(image: Image.Image) -> Cut:
    """All of a picture."""
    return Cut(image, (0, 0, *image.size))


LOCATING_CROPS = ("square", "alone")  # crops for which the cell is found by `find_cell`, and how sure that is
CROPS: Mapping[str, Callable[[Image.Image], Cut]] = {
    "none": whole,
    "cell": crop_cell_at,
    "square": square_at,
    "alone": alone_at,
}


def stain(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stain score (H, W) of RGB pixels (H, W, 3), 0 where unstained, and where light reached the picture at all."""
    lit = _lit(pixels)
    smooth = cv2.GaussianBlur(pixels, (0, 0), 1.0).astype(np.float32)
    seen = smooth[lit] if lit.any() else smooth.reshape(-1, 3)
    background = np.percentile(seen[:: max(1, len(seen) // 4096)], BACKGROUND, axis=0).astype(np.float32)
    # the offset keeps noise in near-black samples from counting as stain
    density = np.clip(np.log((background + 8) / (smooth + 8)), -0.2, DARKEST)
    inside = _within(lit)
    return np.where(inside, (density @ STAIN).clip(0, 2), 0), inside


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
    threshold = max(_otsu(values), LEAST, SHARE * deepest)
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
    rank = mass * depth * (0.5 + np.exp(-8 * away))
    rank[0] = 0
    main = int(rank.argmax())
    found = parts == main
    distance = cv2.distanceTransform((~found).astype(np.uint8), cv2.DIST_L2, 3)
    nearest = np.full(count, np.inf)
    np.minimum.at(nearest, parts.ravel(), distance.ravel())
    radius = np.sqrt(area[main] / np.pi)
    lobes = (nearest < 0.6 * radius) & (area > 0.05 * area[main]) & (depth > 0.7 * depth[main])
    # a neighbour that the frame cuts is another cell, unless the main one is cut as well
    cut = np.zeros(count, bool)
    cut[np.unique(np.concatenate([parts[[0, -1]].ravel(), parts[:, [0, -1]].ravel()]))] = True
    lobes &= ~cut | cut[main]
    lobes[0] = False
    return lobes[parts] | found


def _cell(score: np.ndarray, inside: np.ndarray, nucleus: np.ndarray) -> np.ndarray:
    """Mask of the whole cell: the nucleus and the paler stain around it."""
    radius = np.sqrt(nucleus.sum() / np.pi)
    distance = cv2.distanceTransform((~nucleus).astype(np.uint8), cv2.DIST_L2, 3)
    ground = float(np.median(score[inside]))
    threshold = max(ground + CYTOPLASM * (float(np.median(score[nucleus])) - ground), 0.12)
    pale = ((score > threshold) & (distance < REACH * radius) & inside) | nucleus
    # rims of red cells that touch are thin; cytoplasm is not
    pale = cv2.morphologyEx(pale.astype(np.uint8), cv2.MORPH_OPEN, _disc(2 * round(0.15 * radius) + 3)).astype(bool)
    _, parts = cv2.connectedComponents((pale | nucleus).astype(np.uint8), connectivity=4)
    own = np.unique(parts[nucleus])
    mask = np.isin(parts, own[own > 0]).astype(np.uint8)
    # membranes are thin and pale: the outermost twentieth of a cell is below every threshold
    return cv2.dilate(mask, _disc(2 * round(0.05 * np.sqrt(mask.sum() * 4 / np.pi)) + 1)).astype(bool)


def _confidence(score: np.ndarray, nucleus: np.ndarray, inside: np.ndarray) -> float:
    """How deep the stain, how far above the rest, and how compact."""
    deep = float(np.median(score[nucleus]))
    rest = inside & ~nucleus
    contrast = 1 - float(np.percentile(score[rest], 75)) / deep if rest.any() else 0.0
    hull = cv2.convexHull(np.argwhere(nucleus)[:, ::-1].astype(np.int32))
    solidity = float(nucleus.sum()) / max(cv2.contourArea(hull), 1.0)
    share = float(nucleus.sum()) / max(int(inside.sum()), 1)
    # more than two thirds stained is no picture of a cell on a slide
    room = np.clip((0.9 - share) / 0.25, 0, 1)
    return float(np.clip(deep / SURE_DEPTH, 0, 1) * np.clip(contrast, 0, 1) * np.clip(solidity, 0, 1) ** 0.5 * room)


def _disc(size: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
