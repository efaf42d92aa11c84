"""Augmentations of colour: jitter, white balance, uneven light, stains, and the colours of another picture."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from training.fit.augment.registry import Context, Phase, augmentation
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import cv2
    import torch
    from torchvision.transforms.v2 import functional
else:
    cv2 = lazy_module("cv2")
    torch = lazy_module("torch")
    functional = lazy_module("torchvision.transforms.v2.functional")

# stain vectors of haematoxylin, eosin and the residual (Ruifrok & Johnston 2001, Anal Quant Cytol Histol 23:291-299)
HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
MIN_TRANSMISSION = 1e-3  # least transmitted light, so that its logarithm is finite
CONTRAST_FACTORS = (0.5, 2.0)  # bounds of the factor by which a channel's spread may change
WHITE_BALANCE_SPREAD = 0.7  # log factor of one channel at strength 1
CHANNEL_GAMMA_SPREAD = 0.5  # log exponent of one channel at strength 1


@augmentation(
    Phase.PACKED,
    0.0,
    "Probability of moving the colours towards those of another training picture, by a random share of the way",
    uses_context=True,
    ge=0,
    le=1,
)
def colour_transfer(pixels: np.ndarray, probability: float, context: Context) -> np.ndarray:
    """Move mean and spread of each channel in CIE L*a*b* towards another training picture's, by a random share.

    In a training on several laboratories this exchanges their stains and cameras (Reinhard et al. 2001,
    doi:10.1109/38.946629).
    """
    if context.other is None or torch.rand(()) >= probability:
        return pixels
    share = float(torch.rand(()))
    lab = _lab(pixels)
    (mean, spread), (to_mean, to_spread) = (cv2.meanStdDev(each) for each in (lab, _lab(context.other())))
    # a channel without contrast has nothing to stretch but its noise
    gain = np.clip(to_spread / np.maximum(spread, 1), *CONTRAST_FACTORS) ** share
    moved = (lab - mean.T) * gain.T + mean.T + share * (to_mean - mean).T
    back = cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB)
    return (255 * back).round().clip(0, 255).astype(np.uint8)


def _lab(pixels: np.ndarray) -> np.ndarray:
    """Convert sRGB bytes to CIE L*a*b* (h, w, 3), L* from 0 to 100."""
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


@augmentation(Phase.JITTER, 0.0, "Largest deviation of the factor from 1", ge=0)
def brightness(pixels: np.ndarray, strength: float) -> np.ndarray:
    """Multiply all channels by a random factor."""
    return scale_brightness(pixels, _factor(strength))


@augmentation(Phase.JITTER, 0.0, "Largest deviation of the factor from 1", order=1, ge=0)
def contrast(pixels: np.ndarray, strength: float) -> np.ndarray:
    """Blend with the mean grey by a random factor."""
    return scale_contrast(pixels, _factor(strength))


@augmentation(Phase.JITTER, 0.0, "Largest deviation of the factor from 1", order=2, ge=0)
def saturation(pixels: np.ndarray, strength: float) -> np.ndarray:
    """Blend with the grey picture by a random factor."""
    return scale_saturation(pixels, _factor(strength))


@augmentation(Phase.JITTER, 0.0, "Largest turn, as a share of the colour circle", order=3, ge=0, le=0.5)
def hue(pixels: np.ndarray, strength: float) -> np.ndarray:
    """Turn the hue by a random share of the colour circle."""
    return turn_hue(pixels, _between(-strength, strength))


def _factor(strength: float) -> float:
    return _between(max(0.0, 1 - strength), 1 + strength)


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def scale_brightness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiply uint8 pixels (h, w, 3) by `factor`."""
    return cv2.convertScaleAbs(pixels, alpha=factor)


def scale_contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Blend uint8 pixels (h, w, 3) with their mean grey; `factor` 1 changes nothing."""
    mean = cv2.mean(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[0]
    table = np.clip(factor * np.arange(256) + (1 - factor) * mean, 0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table)


def scale_saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Blend uint8 pixels (h, w, 3) with the grey picture; `factor` 1 changes nothing."""
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(pixels, factor, grey, 1 - factor, 0)


def turn_hue(pixels: np.ndarray, share: float) -> np.ndarray:
    """Turn the hue of uint8 pixels (h, w, 3) by a share of the colour circle."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(255 * share) % 256)  # bytes wrap around, as hues do
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


@augmentation(
    Phase.RESIZED, 0.0, "White balance and gamma: exponents and factors of each channel", order=10, ge=0, le=1
)
def tint(pixels: np.ndarray, strength: float) -> np.ndarray:
    """Give each channel a random factor and exponent, and all channels a common exponent."""
    changes = strength * (2 * torch.rand(3, 2).numpy() - 1)  # logarithms of factor and exponent
    gamma = strength * _signed()
    levels = np.linspace(0, 1, 256)[:, None]
    exponents = np.exp(CHANNEL_GAMMA_SPREAD * changes[:, 1] + gamma)
    table = 255 * levels**exponents * np.exp(WHITE_BALANCE_SPREAD * changes[:, 0])
    return cv2.LUT(pixels, table.clip(0, 255).astype(np.uint8)[:, None, :])


@augmentation(Phase.RESIZED, 0.0, "Largest share by which light falls off across the picture", order=20, ge=0, lt=1)
def light(pixels: np.ndarray, strength: float) -> np.ndarray:
    """Light the picture unevenly: brighter on one side by a random share, across and down."""
    across, down = strength * _signed(), strength * _signed()
    height, width = pixels.shape[:2]
    field = 1 + across * np.linspace(-1, 1, width, dtype=np.float32)[None] / 2
    field = field + down * np.linspace(-1, 1, height, dtype=np.float32)[:, None] / 2
    return (pixels * field[..., None]).clip(0, 255).astype(np.uint8)


def _signed() -> float:
    return 2 * float(torch.rand(())) - 1


@augmentation(Phase.TENSOR, 0.0, "Probability of fading towards grey by a random share", order=10, ge=0, le=1)
def colour_degeneration(picture: torch.Tensor, probability: float) -> torch.Tensor:
    """Fade towards grey by a random share."""
    if torch.rand(1) >= probability:
        return picture
    return functional.adjust_saturation(picture, float(torch.rand(())))


@augmentation(Phase.TENSOR, 0.0, "Probability of exchanging the colour channels", order=20, ge=0, le=1)
def channel_shuffle(picture: torch.Tensor, probability: float) -> torch.Tensor:
    """Exchange the colour channels at random."""
    if torch.rand(1) >= probability:
        return picture
    return functional.permute_channels(picture, torch.randperm(3).tolist())


@augmentation(Phase.FLOAT, 0.0, "Stain jitter: factor and shift of haematoxylin, eosin and residual", order=10, ge=0)
def hed(picture: torch.Tensor, strength: float) -> torch.Tensor:
    """Change the density of each stain: times 1 ± `strength`, plus or minus a tenth of it.

    Tellez et al. 2018, doi:10.1109/TMI.2018.2820199, with the stain matrix of Ruifrok & Johnston 2001.
    """
    factor = 1 + strength * (2 * torch.rand(3) - 1)
    # densities of one unit are dark: the shift is a tenth of the factor's range
    shift = 0.1 * strength * (2 * torch.rand(3) - 1)
    stains, to_stains = _stain_matrices()
    # to stains, their change and back are one map of the logarithms, of all pixels at once: four times as fast
    change = (to_stains * factor) @ stains
    logarithms = picture.clamp(MIN_TRANSMISSION, 1).log().reshape(3, -1)
    changed = torch.addmm(-(shift @ stains)[:, None], change.T, logarithms)
    return changed.exp_().clamp_(0, 1).view_as(picture)


@cache
def _stain_matrices() -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices (3, 3) from amounts of stain to optical densities of the channels, and back."""
    stains = torch.tensor(HED)
    stains = stains / stains.norm(dim=1, keepdim=True)
    return stains, torch.linalg.inv(stains)
