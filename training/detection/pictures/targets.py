"""Targets of the detector for a crop: heat maps, sides of boxes and the weights of places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.detection.pictures.crops import Marked
from zoo.detection.objects import OBJECTS, STRIDE

HEAT_SPREAD = 0.54 / 6  # standard deviation of a cell's heat, in its sides (TTFNet)
MIN_SPREAD = 0.6  # places
LEAST_HEAT = 0.01
REACH = 3.1  # standard deviations in which heat falls to the least
BOX_HEAT = 0.5  # heat from which a place also learns the box


@dataclass(frozen=True)
class Targets:
    """Targets of one crop on maps of h × w places.

    Attributes:
        heat: (objects, h, w), 1 at a cell's middle, falling to 0.
        sides: (4, h, w), distances in pixels to the box's left, top, right and bottom.
        box_weights: (h, w), of the places that learn a box; those of a cell add up to 1.
        sure: (h, w), 0 where nothing is known.
    """

    heat: np.ndarray
    sides: np.ndarray
    box_weights: np.ndarray
    sure: np.ndarray


def make_targets(crop: Marked) -> Targets:
    """Targets of a crop whose sides are multiples of the stride. Where cells overlap, the smaller one counts."""
    height, width = (length // STRIDE for length in crop.pixels.shape[:2])
    heat = np.zeros((len(OBJECTS), height, width), np.float32)
    sides = np.ones((4, height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    sure = np.ones((height, width), np.float32)
    for box in crop.unsure / STRIDE:
        left, top, right, bottom = np.round(box).astype(int)
        sure[top:bottom, left:right] = 0
    size = crop.boxes[:, 2:] - crop.boxes[:, :2]
    for number in np.argsort(-np.prod(size, axis=1)):
        box = crop.boxes[number] / STRIDE
        middle = np.floor((box[:2] + box[2:]) / 2) + 0.5
        middle = np.minimum(middle, [width - 0.5, height - 0.5])
        spread = np.maximum(HEAT_SPREAD * (box[2:] - box[:2]), MIN_SPREAD)
        # heat is 0 outside of this window, so that only its places are computed
        first = np.maximum(np.floor(middle - REACH * spread), 0).astype(int)
        last = np.minimum(np.ceil(middle + REACH * spread), [width, height]).astype(int)
        window = np.s_[first[1] : last[1], first[0] : last[0]]
        y, x = np.mgrid[window].astype(np.float32) + 0.5
        here = np.exp(-(((x - middle[0]) / spread[0]) ** 2 + ((y - middle[1]) / spread[1]) ** 2) / 2)
        here[here < LEAST_HEAT] = 0
        heat_here = heat[crop.numbers[number]][window]
        np.maximum(heat_here, here, out=heat_here)
        learns = here >= BOX_HEAT
        sure[window][learns] = 1
        distances = np.stack([x - box[0], y - box[1], box[2] - x, box[3] - y]) * STRIDE
        sides[:, *window][:, learns] = distances[:, learns]
        weights[window][learns] = here[learns] / here[learns].sum()
    return Targets(heat, np.maximum(sides, 0.5), weights, sure)
