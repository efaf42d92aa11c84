"""Can a network be taught not to mind a laboratory's style? First feature maps swap mean and spread within a batch.

MixStyle (Zhou et al. 2021, ICLR, "Domain Generalization with MixStyle", arXiv:2104.02008): of each picture's first
feature maps the mean and spread of every channel, which carry stain and light, are mixed with those of another picture.
"""

from __future__ import annotations

import torch
from torch import nn

from training.recipe import RecipeError

ALPHA = 0.1  # of the beta distribution two pictures' styles are mixed by, as published
LEVELS = 2  # first levels of feature maps that are mixed; later ones carry more of the kind
LEAST = 1e-6  # added to the variance


def attach(model: nn.Module, probability: float) -> None:
    """Mix styles while `model` trains, each batch with this probability a level. Draws from torch's generator.

    Raises RecipeError if the network does not tell its levels (timm's `feature_info`).
    """
    levels = list(getattr(model, "feature_info", ()))[:LEVELS]
    if len(levels) < LEVELS:
        raise RecipeError(
            "augment.mixstyle needs a timm network that tells its levels (feature_info), as EfficientNet."
        )

    def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        if not module.training or torch.rand(()) >= probability:
            return output
        if output.ndim != 4:
            raise RecipeError("augment.mixstyle needs a convolutional network: this one has no feature maps to mix.")
        return mixed(output)

    for level in levels:
        model.get_submodule(level["module"]).register_forward_hook(hook)


def mixed(maps: torch.Tensor) -> torch.Tensor:
    """Feature maps (B, C, h, w), each picture's channels with a style between its own and another's."""
    values = maps.float()
    mean = values.mean((2, 3), keepdim=True).detach()
    spread = (values.var((2, 3), keepdim=True, correction=0) + LEAST).sqrt().detach()
    beta = torch.distributions.Beta(ALPHA, ALPHA).sample((len(maps), 1, 1, 1)).to(maps.device)
    other = torch.randperm(len(maps)).to(maps.device)
    new_mean = beta * mean + (1 - beta) * mean[other]
    new_spread = beta * spread + (1 - beta) * spread[other]
    return ((values - mean) / spread * new_spread + new_mean).to(maps.dtype)
