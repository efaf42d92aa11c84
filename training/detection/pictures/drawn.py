"""Drawn pictures in the colours of stains, in which there are no cells."""

from __future__ import annotations

import cv2
import numpy as np

COARSEST = 128.0  # pixels of a grain
DARK, PALE = ((40, 20, 60), (170, 120, 190)), ((190, 170, 190), (255, 250, 255))  # least and most of each channel


def draw_texture(side: int, random: np.random.Generator) -> np.ndarray:
    """Noise of one to three grains between two random colours of a stain, smooth or in tiles, (side, side, 3) uint8."""
    values = np.zeros((side, side), np.float32)
    for _ in range(random.integers(1, 4)):
        grain = float(np.exp(random.uniform(0, np.log(COARSEST))))
        stretch = float(np.exp(random.normal(0, 0.4)))
        size = max(2, round(side / grain * stretch)), max(2, round(side / grain / stretch))
        how = cv2.INTER_CUBIC if random.random() < 0.75 else cv2.INTER_NEAREST
        values += random.random() * cv2.resize(
            random.random(size[::-1]).astype(np.float32), (side, side), None, 0, 0, how
        )
    values = (values - values.min()) / max(float(np.ptp(values)), 1e-6)
    if random.random() < 0.3:
        values = (values > random.uniform(0.3, 0.7)).astype(np.float32)
    dark, pale = (random.uniform(*bounds) for bounds in (DARK, PALE))
    share = values[..., None] if random.random() < 0.7 else np.stack([values, values.T, values[::-1]], axis=2)
    return np.clip(pale + (dark - pale) * share, 0, 255).astype(np.uint8)
