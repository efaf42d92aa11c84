"""Which random changes does training make to a picture? The only place for training transforms."""

from __future__ import annotations

import torch
from torchvision.transforms import v2

from training.recipe import Augment


def training_transform(
    augment: Augment, input_size: tuple[int, int], mean: list[float], std: list[float]
) -> v2.Transform:
    """Transform of a uint8 (3, h, w) tensor into the normalised float32 (3, *input_size) tensor of training.

    `input_size` is (height, width) in pixels.
    """
    steps: list[v2.Transform] = []
    if augment.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip())
    if augment.vertical_flip:
        steps.append(v2.RandomVerticalFlip())
    steps.append(
        v2.RandomAffine(
            degrees=augment.rotation,
            translate=(augment.shift, augment.shift),
            scale=(1 - augment.zoom, 1 + augment.zoom),
            shear=augment.shear or None,
            interpolation=v2.InterpolationMode.BILINEAR,
            fill=augment.fill,
        )
    )
    steps.append(v2.Resize(list(input_size), antialias=True))
    if augment.brightness or augment.contrast or augment.saturation or augment.hue:
        steps.append(v2.ColorJitter(augment.brightness, augment.contrast, augment.saturation, augment.hue))
    if augment.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(5, (0.1, augment.blur))], p=0.3))
    steps += [v2.ToDtype(torch.float32, scale=True)]
    if augment.noise:
        steps.append(v2.RandomApply([v2.GaussianNoise(sigma=augment.noise)], p=0.3))
    steps.append(v2.Normalize(mean, std))
    return v2.Compose(steps)
