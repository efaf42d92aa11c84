"""The training transform: a recipe's augmentations, phase by phase, around the warp that resizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from training.fit.augment.geometry import Warp
from training.fit.augment.registry import AUGMENTATIONS, Context, Phase
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torchvision.transforms.v2 import functional
else:
    torch = lazy_module("torch")
    functional = lazy_module("torchvision.transforms.v2.functional")

if TYPE_CHECKING:
    from training.recipe import Augment

Step = Callable[[Any], Any]


def training_transform(
    augment: Augment,
    input_size: tuple[int, int],
    visible: float = 1.0,
    other: Callable[[], np.ndarray] | None = None,
) -> Callable[[np.ndarray], torch.Tensor]:
    """Build the random transform of training pictures. All that is random is drawn from torch's default generator.

    Args:
        augment: The recipe's [augment] table.
        input_size: Height and width of the network's input, in pixels.
        visible: Middle share of the picture's sides that fills the input.
        other: Draws another training picture, uint8 (h, w, 3), for augmentations that use one.

    Returns:
        A function from uint8 pixels (h, w, 3) to a uint8 tensor (*input_size, 3).
    """
    steps = {phase: _steps(phase, augment, Context(augment.fill, other)) for phase in Phase}
    warp = Warp(augment, input_size, visible)

    def transform(pixels: np.ndarray) -> torch.Tensor:
        pixels = warp(_in_turn(steps[Phase.PACKED], np.ascontiguousarray(pixels)))
        jitter = steps[Phase.JITTER]
        pixels = _in_turn([jitter[number] for number in torch.randperm(len(jitter)).tolist()], pixels)
        picture = torch.from_numpy(_in_turn(steps[Phase.RESIZED], pixels))
        if not steps[Phase.TENSOR] and not steps[Phase.FLOAT]:
            return picture
        picture = _in_turn(steps[Phase.TENSOR], picture.permute(2, 0, 1).contiguous())
        if steps[Phase.FLOAT]:
            picture = to_bytes(_in_turn(steps[Phase.FLOAT], functional.to_dtype(picture, torch.float32, scale=True)))
        return picture.permute(1, 2, 0)

    return transform


def _steps(phase: Phase, augment: Augment, context: Context) -> list[Step]:
    """Functions of the augmentations of one phase that the recipe switches on, in their order."""
    chosen = sorted((each for each in AUGMENTATIONS.values() if each.phase == phase), key=lambda each: each.order)
    return [
        _step(each.apply, value, *([context] if each.uses_context else []))
        for each in chosen
        if (value := getattr(augment, each.key)) != each.default
    ]


def _step(apply: Callable[..., Any], *given: Any) -> Step:
    return lambda picture: apply(picture, *given)


def _in_turn(steps: list[Step], picture: Any) -> Any:
    for step in steps:
        picture = step(picture)
    return picture


def to_bytes(picture: torch.Tensor) -> torch.Tensor:
    """Convert a float picture in 0..1 to uint8, in place; torchvision's own conversion rounds down."""
    return (255 * picture).round_().clamp_(0, 255).to(torch.uint8)
