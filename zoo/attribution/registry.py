"""The table of attribution methods. A new method is one function with the decorator `register_method`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.attribution.features import ExplanationError, FeatureMap
from zoo.attribution.network import Model
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

DEFAULT, MODEL_FREE = "grad-cam", "occlusion"

Formula = Callable[[FeatureMap], "torch.Tensor"]  # maps (B, h, w) of a batch
Steps = Generator[float, None, "torch.Tensor"]  # share that is done, …, then the map (h, w) float32, ≥ 0
StepFunction = Callable[[Model, "torch.Tensor", int, str | None], Steps]
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes:
        title: its name for people.
        about: one line for people: what its map shows.
        formula: computes the maps of a whole batch; None for slow methods.
        steps: computes the map of one picture step by step; None for quick methods.
        gradient: whether the formula needs the gradient of the class's score.
        by_class: whether the map depends on the class at all.
        compares: whether the score is compared with those of the most similar classes (FinerCAM).
        any_model: whether it explains models that have no feature map and no gradients.
    """

    title: str
    about: str
    formula: Formula | None = None
    steps: StepFunction | None = None
    gradient: bool = True
    by_class: bool = True
    compares: bool = False
    any_model: bool = False

    @property
    def contrasts(self) -> bool:
        """Whether it can set one class against another."""
        return self.quick and self.gradient and not self.compares

    @property
    def quick(self) -> bool:
        """Whether whole batches are explained at about the cost of classifying them."""
        return self.formula is not None


METHODS: dict[str, Method] = {}  # by the name that commands and pages use, in the order in which they are listed


def register_method(
    name: str,
    title: str,
    about: str,
    *,
    gradient: bool = True,
    by_class: bool = True,
    compares: bool = False,
    any_model: bool = False,
) -> Callable[[_Function], _Function]:
    """Add the decorated function to METHODS.

    A plain function `(FeatureMap) -> maps (B, h, w)` explains whole batches. A generator function `(model, picture,
    target, layer)` explains one picture, yielding the share that is done after every forward pass; see
    `zoo.attribution.stepwise`.

    Args:
        name: what commands and pages call it.
        title: its name for people.
        about: one line for people: what its map shows.
        gradient: whether the gradient of the class's score is needed.
        by_class: whether the map depends on the class at all.
        compares: whether the score is compared with those of the most similar classes.
        any_model: whether it explains models that have no feature map and no gradients.

    Raises:
        ValueError: there is a method of this name already.

    Example:
        >>> @register_method("mean-cam", "Mean", "the mean over all channels", gradient=False, by_class=False)
        ... def mean_cam(features: FeatureMap) -> torch.Tensor:
        ...     return features.features.mean(1).relu()
    """

    def register(function: _Function) -> _Function:
        if name in METHODS:
            raise ValueError(f"There is a method {name!r} already.")
        slow = inspect.isgeneratorfunction(function)
        formula, steps = (None, function) if slow else (function, None)
        METHODS[name] = Method(title, about, formula, steps, gradient, by_class, compares, any_model)
        return function

    return register


def method_of(name: str) -> Method:
    """Return a method by its name.

    Raises:
        ExplanationError: there is none.
    """
    if name not in METHODS:
        raise ExplanationError(f"There is no method {name!r}. Choose one of {', '.join(METHODS)}.")
    return METHODS[name]
