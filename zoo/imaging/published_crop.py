"""System E's published crop: purple range, edges, largest contour; all else black, cut to its box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import cv2
else:
    cv2 = lazy_module("cv2")

PURPLE = ((80, 80, 180), (180, 170, 245))  # RGB
PADDING, PADDING_COLOUR = 10, (198, 203, 208)

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels
Cut = tuple[Image.Image, Box]  # a part of a picture and its place, which may reach out of the picture


def cut(image: Image.Image) -> Cut:
    """Cut an RGB picture exactly as published, to the upright box around the contour's smallest rotated rectangle.

    Where nothing is found, or the box reaches out of the padded picture so that nothing is left of it, the result is
    the whole padded picture.
    """
    pixels, purple = _purple(image)
    contours, _ = cv2.findContours(_closed_edges(purple), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    whole = (-PADDING, -PADDING, image.width + PADDING, image.height + PADDING)
    return _cut_contour(pixels, contours) or (Image.fromarray(pixels), whole)


def cut_before(image: Image.Image) -> Cut:
    """Cut as the crop of version 0.2 and earlier did.

    It lacks the bilateral filter and the closing of edges, also takes contours within others, and where nothing is
    found it gives the picture without its padding. Three crops in four have the published size.
    """
    pixels, purple = _purple(image)
    contours, _ = cv2.findContours(cv2.Canny(purple, 100, 400), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return _cut_contour(pixels, contours) or (image, (0, 0, *image.size))


def stages(image: Image.Image) -> dict[str, Image.Image]:
    """The steps of the published crop of an RGB picture, in their order, by what each of them does."""
    pixels, purple = _purple(image)
    return {
        "picture": image,
        "padded": Image.fromarray(pixels),
        "purple parts": Image.fromarray(purple),
        "edges": Image.fromarray(_closed_edges(purple)),
        "crop": cut(image)[0],
    }


def _closed_edges(purple: np.ndarray) -> np.ndarray:
    """Edges of the purple parts, closed. E blurs with a Gaussian of 1×1 first, which changes nothing."""
    edges = cv2.Canny(cv2.bilateralFilter(purple, 9, 75, 75), 100, 400)
    return cv2.erode(cv2.dilate(edges, np.ones((3, 3), np.uint8)), np.ones((3, 3), np.uint8))


def _purple(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The padded picture, and where it is purple (uint8, 0 or 255), opened."""
    border = cv2.BORDER_CONSTANT
    pixels = cv2.copyMakeBorder(np.array(image), PADDING, PADDING, PADDING, PADDING, border, value=PADDING_COLOUR)
    low, high = (np.array(colour) for colour in PURPLE)
    purple = cv2.erode(cv2.inRange(pixels, low, high), np.ones((3, 3), np.uint8), iterations=2)
    return pixels, cv2.dilate(purple, np.ones((5, 5), np.uint8), iterations=5)


def _cut_contour(pixels: np.ndarray, contours: Sequence[np.ndarray]) -> Cut | None:
    """Cut the largest contour's box out of padded pixels, black around the contour; None if nothing is left."""
    contours = sorted(contours, key=cv2.contourArea)
    boxes = [cv2.boxPoints(cv2.minAreaRect(contour)).astype(int) for contour in contours]
    boxes = [box for box in boxes if (box[0] != box[3]).any() and (box[0] != box[1]).any()]
    if not boxes:
        return None
    (left, top), (right, bottom) = boxes[-1].min(0).tolist(), boxes[-1].max(0).tolist()
    mask = np.zeros(pixels.shape[:2], np.uint8)
    cv2.drawContours(mask, contours, len(contours) - 1, 255, -1)
    # E's slicing: a box with a negative corner, which reaches out of the padded picture, gives nothing
    part = np.where(mask[..., None] == 0, 0, pixels)[top:bottom, left:right]
    if not part.size:
        return None
    left, top = left - PADDING, top - PADDING
    return Image.fromarray(part), (left, top, left + part.shape[1], top + part.shape[0])
