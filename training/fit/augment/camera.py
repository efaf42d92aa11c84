"""Augmentations by camera and storage: fewer pixels, JPEG compression, blur, noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.fit.augment.registry import Phase, augmentation
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import cv2
    import torch
    from torchvision.transforms.v2 import functional
else:
    cv2 = lazy_module("cv2")
    torch = lazy_module("torch")
    functional = lazy_module("torchvision.transforms.v2.functional")

MIN_SIDE = 4  # pixels of a picture of reduced resolution
MAX_QUALITY = 95  # JPEG quality beyond which no loss is visible
BLUR_PROBABILITY = 0.3
NOISE_PROBABILITY = 0.3
MIN_SIGMA = 0.1  # pixels of blur that cannot be seen
BLUR_KERNEL = (5, 5)


@augmentation(
    Phase.RESIZED,
    0.0,
    "Least share of its sides that half of the pictures are reduced to, and back; 0: none",
    order=30,
    ge=0,
    lt=1,
)
def resolution(pixels: np.ndarray, min_share: float) -> np.ndarray:
    """Reduce half of the pictures to a random share of their sides, and enlarge them again."""
    if torch.rand(()) >= 0.5:
        return pixels
    share = min_share + (1 - min_share) * float(torch.rand(()))
    height, width = pixels.shape[:2]
    size = (max(MIN_SIDE, round(width * share)), max(MIN_SIDE, round(height * share)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    enlarging = cv2.INTER_CUBIC if torch.rand(()) < 0.5 else cv2.INTER_LINEAR
    return cv2.resize(small, (width, height), interpolation=enlarging)


@augmentation(
    Phase.RESIZED,
    0,
    "Lowest JPEG quality that half of the pictures are compressed with; 0: none",
    order=40,
    ge=0,
    le=100,
)
def jpeg(pixels: np.ndarray, min_quality: int) -> np.ndarray:
    """Compress half of the pictures as JPEG of a random quality."""
    if torch.rand(()) >= 0.5:
        return pixels
    quality = min_quality + round((MAX_QUALITY - min_quality) * float(torch.rand(())))
    _, content = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(content, cv2.IMREAD_COLOR)
    if decoded is None:
        raise RuntimeError("OpenCV cannot decode the JPEG it has just encoded.")
    return np.ascontiguousarray(decoded[..., ::-1])


@augmentation(Phase.RESIZED, 0.0, "Largest standard deviation of the blur, in pixels of the input", order=50, ge=0)
def blur(pixels: np.ndarray, max_sigma: float) -> np.ndarray:
    """Blur three pictures in ten by a Gaussian of random width."""
    if torch.rand(()) >= BLUR_PROBABILITY:
        return pixels
    return gaussian_blur(pixels, MIN_SIGMA + (max_sigma - MIN_SIGMA) * float(torch.rand(())))


def gaussian_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Blur uint8 pixels (h, w, 3) with a standard deviation of `sigma` pixels."""
    return cv2.GaussianBlur(pixels, BLUR_KERNEL, sigma)


@augmentation(Phase.FLOAT, 0.0, "Standard deviation of the noise, of a range of 0..1", order=20, ge=0)
def noise(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    """Add Gaussian noise to three pictures in ten."""
    return picture if torch.rand(1) >= NOISE_PROBABILITY else functional.gaussian_noise(picture, sigma=sigma)
