"""Registry of augmentations: key in a recipe's [augment] table, bounds of its value, and function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np


class Phase(IntEnum):
    """Points of the transform at which augmentations run, in this order."""

    PACKED = 0  # before the resizing: uint8 array (h, w, 3)
    JITTER = 1  # after the resizing, together in random order: uint8 array (height, width, 3)
    RESIZED = 2  # after the resizing: uint8 array (height, width, 3)
    TENSOR = 3  # uint8 tensor (3, height, width)
    FLOAT = 4  # float tensor (3, height, width) in 0..1


@dataclass(frozen=True)
class Context:
    """Inputs that an augmentation may use beside the picture.

    `fill` is the colour (RGB) of pixels that are uncovered, `other` draws another training picture, uint8 (h, w, 3).
    """

    fill: tuple[int, int, int] = (0, 0, 0)
    other: Callable[[], np.ndarray] | None = None


@dataclass(frozen=True)
class Augmentation:
    """One registered augmentation.

    `apply` takes the picture in the form of its phase, the recipe's value and, with `uses_context`, a `Context`; it
    returns the changed picture in the same form and draws what is random from torch's default generator. Within a phase
    the lower `order` runs first.
    """

    key: str
    phase: Phase
    apply: Callable[..., Any]
    default: bool | int | float
    description: str
    order: int = 0
    uses_context: bool = False
    bounds: dict[str, float] = field(default_factory=dict)


Function = TypeVar("Function", bound=Callable[..., Any])
AUGMENTATIONS: dict[str, Augmentation] = {}


def augmentation(
    phase: Phase,
    default: bool | int | float,
    description: str = "",
    *,
    order: int = 0,
    uses_context: bool = False,
    **bounds: float,
) -> Callable[[Function], Function]:
    """Register a function under its own name as a key of a recipe's [augment] table.

    Args:
        phase: Point of the transform at which it runs.
        default: Value that switches it off; its type is the key's type.
        description: What the value means, with its unit.
        order: Place within the phase, lower first.
        uses_context: Whether the function takes a `Context` as its third argument.
        bounds: Limits of the value, as pydantic names them (ge, gt, le, lt).

    Returns:
        A decorator that returns the function as it is.

    Raises:
        ValueError: A function of this name is already registered.
    """

    def register(function: Function) -> Function:
        key = function.__name__
        if key in AUGMENTATIONS:
            raise ValueError(f"The augmentation {key} is registered twice.")
        AUGMENTATIONS[key] = Augmentation(key, phase, function, default, description, order, uses_context, bounds)
        return function

    return register
