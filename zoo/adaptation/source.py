"""The network that is adapted: its feature vectors, last layer, and batch-norm statistics."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.entry import Entry, EntryError
from zoo.imaging.preprocess import Preprocessor, augmented_views, preprocessor
from zoo.serving.models.loading import load_model

BATCH_SIZE = 32  # pictures in one pass of the network
PRIOR_PICTURES = 64  # how many pictures the statistics of training count as
MAX_NEW_SHARE = 0.5  # of new statistics: with more, models got worse in laboratories held out of their training


class SourceNetwork:
    """The network of an entry with a linear last layer.

    Attributes:
        entry: The entry.
        model: The timm network, float32 on the CPU.
        prepare: Turns a picture into the network's input.
        weight: Weights (classes, d) of the last layer, float64, divided by the entry's temperature.
        bias: Biases (classes,) of the last layer, likewise.
    """

    def __init__(self, entry: Entry) -> None:
        config = entry.config
        if not entry.usable:
            raise EntryError(f"{entry.id} cannot be used: {entry.reason}")
        if config.zoo.members:
            raise EntryError(f"{entry.id} is an ensemble: adapt one of its members, {', '.join(config.zoo.members)}.")
        self.model: Any = load_model(entry)  # torch's types do not know the methods of timm's networks
        classifier = getattr(self.model, "get_classifier", None)
        last = classifier() if callable(classifier) else None
        if config.zoo.head or not isinstance(last, nn.Linear):
            raise EntryError(f"{entry.id} has no linear last layer. Choose another network.")
        self.prepare: Preprocessor = preprocessor(config.pretrained_cfg.model_dump(), config.zoo.crop)
        self.weight = last.weight.double() / config.zoo.temperature
        self.bias = last.bias.double() / config.zoo.temperature
        self.entry = entry

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.bias)

    @property
    def has_statistics(self) -> bool:
        """Whether the network has batch norm with running statistics."""
        return any(_has_statistics(module) for module in self.model.modules())

    @property
    def last_layer(self) -> str:
        """Name of the last layer in the network's state dict."""
        classifier = self.model.get_classifier()
        return next(name for name, module in self.model.named_modules() if module is classifier)

    def features(self, pixels: Sequence[np.ndarray], views: int, model: Any = None) -> torch.Tensor:
        """Compute the vectors before the last layer.

        Args:
            pixels: Pictures, uint8 (3, H, W) each.
            views: Number of rotated and mirrored views of each.
            model: The network to use; by default the entry's own.

        Returns:
            Tensor (n, views, d), float64.
        """
        network = model or self.model
        vectors = []
        with torch.inference_mode():
            for batch in _batches(pixels, views):
                maps = network.forward_features(self.prepare.normalise(batch))
                vectors.append(network.forward_head(maps, pre_logits=True).double())
        return torch.cat(vectors).reshape(len(pixels), views, -1).clone()

    def with_statistics(self, pixels: Sequence[np.ndarray], views: int) -> Any:
        """Copy the network and move its batch-norm statistics towards those of these pictures.

        The more pictures there are, the more they count (Schneider et al. 2020, arXiv:2006.16971).
        """
        model = copy.deepcopy(self.model)
        norms = [module for module in model.modules() if _has_statistics(module)]
        old = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        with torch.inference_mode():
            for batch in _batches(pixels, views):
                if len(batch) > 1:  # one picture has no variance
                    model.forward_features(self.prepare.normalise(batch))
        share = min(MAX_NEW_SHARE, len(pixels) / (len(pixels) + PRIOR_PICTURES))
        for norm, (mean, variance) in zip(norms, old, strict=True):
            norm.eval()
            norm.running_mean.mul_(share).add_((1 - share) * mean)
            norm.running_var.mul_(share).add_((1 - share) * variance)
        return model


def _batches(pixels: Sequence[np.ndarray], views: int) -> Iterator[np.ndarray]:
    """Yield uint8 (B, 3, H, W): the views of each picture, one picture after the other."""
    step = max(1, BATCH_SIZE // views)
    for start in range(0, len(pixels), step):
        yield np.concatenate([augmented_views(picture, views) for picture in pixels[start : start + step]])


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
