"""Which random changes does training make to a picture? The only place for training transforms."""

from __future__ import annotations

import math

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from training.recipe import Augment

# stain vectors of haematoxylin, eosin and the residual (Ruifrok & Johnston 2001, Anal Quant Cytol Histol 23:291-299)
HED = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
FAINT = 1e-3  # least transmitted light, so that its logarithm is finite


class HedJitter(v2.Transform):
    """Stain jitter of a float (3, h, w) picture in 0..1: each stain's density × (1 ± strength) ± strength.

    Tellez et al. 2018, doi:10.1109/TMI.2018.2820199, with the stain matrix of Ruifrok & Johnston 2001.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.stains = HED / HED.norm(dim=1, keepdim=True)
        self.inverse = torch.linalg.inv(self.stains)

    def make_params(self, flat_inputs: list) -> dict[str, torch.Tensor]:
        """Factor and shift of each stain."""
        factor = 1 + self.strength * (2 * torch.rand(3) - 1)
        # densities of one unit are dark: the shift is a tenth of the factor's range
        return {"factor": factor, "shift": 0.1 * self.strength * (2 * torch.rand(3) - 1)}

    def transform(self, inpt: torch.Tensor, params: dict[str, torch.Tensor]) -> torch.Tensor:
        """The picture with other amounts of its stains."""
        density = -inpt.clamp(FAINT, 1).log().movedim(0, -1)
        changed = (density @ self.inverse) * params["factor"] + params["shift"]
        return (-(changed @ self.stains)).exp().movedim(-1, 0).clamp(0, 1)


class ColourDegeneration(v2.Transform):
    """Fades a picture towards grey by a random share."""

    def make_params(self, flat_inputs: list) -> dict[str, float]:
        """How much colour is left, 0..1."""
        return {"left": float(torch.rand(()))}

    def transform(self, inpt: torch.Tensor, params: dict[str, float]) -> torch.Tensor:
        """The faded picture."""
        return functional.adjust_saturation(inpt, params["left"])


def training_transform(
    augment: Augment, input_size: tuple[int, int], mean: list[float], std: list[float]
) -> v2.Transform:
    """Transform of a uint8 (3, h, w) tensor into the normalised float32 (3, *input_size) tensor of training.

    `input_size` is (height, width) in pixels.
    """
    steps = [*_geometry(augment), v2.Resize(list(input_size), antialias=True), *_colour(augment)]
    steps.append(v2.ToDtype(torch.float32, scale=True))
    if augment.hed:
        steps.append(HedJitter(augment.hed))
    if augment.noise:
        steps.append(v2.RandomApply([v2.GaussianNoise(sigma=augment.noise)], p=0.3))
    steps.append(v2.Normalize(mean, std))
    return v2.Compose(steps)


def _geometry(augment: Augment) -> list[v2.Transform]:
    steps: list[v2.Transform] = []
    if augment.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip())
    if augment.vertical_flip:
        steps.append(v2.RandomVerticalFlip())
    if augment.rotation or augment.shift or augment.zoom or augment.shear:
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
    if augment.crop:
        steps.append(_RandomCrop(augment.crop))
    return steps


class _RandomCrop(v2.Transform):
    """Cuts out a part of the picture's own shape, of at least 1 - `most` of its area."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def make_params(self, flat_inputs: list) -> dict[str, int]:
        """Place and size in pixels."""
        height, width = flat_inputs[0].shape[-2:]
        side = math.sqrt(1 - self.most * float(torch.rand(())))
        tall, wide = max(1, round(height * side)), max(1, round(width * side))
        top, left = (int(torch.randint(0, n + 1, ())) for n in (height - tall, width - wide))
        return {"top": top, "left": left, "height": tall, "width": wide}

    def transform(self, inpt: torch.Tensor, params: dict[str, int]) -> torch.Tensor:
        """The part."""
        return functional.crop(inpt, **params)


def _colour(augment: Augment) -> list[v2.Transform]:
    steps: list[v2.Transform] = []
    if augment.brightness or augment.contrast or augment.saturation or augment.hue:
        steps.append(v2.ColorJitter(augment.brightness, augment.contrast, augment.saturation, augment.hue))
    if augment.colour_degeneration:
        steps.append(v2.RandomApply([ColourDegeneration()], p=augment.colour_degeneration))
    if augment.channel_shuffle:
        steps.append(v2.RandomApply([v2.RandomChannelPermutation()], p=augment.channel_shuffle))
    if augment.randaugment:
        steps.append(v2.RandAugment(magnitude=augment.randaugment, fill=list(augment.fill)))
    if augment.augmix:
        steps.append(v2.AugMix(severity=augment.augmix, fill=list(augment.fill)))
    if augment.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(5, (0.1, augment.blur))], p=0.3))
    return steps
