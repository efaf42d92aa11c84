"""Size of a network, measured before it is built: parameters, layers, and activations for its input.

The network is made and run on PyTorch's meta device, where tensors have shapes and no memory. Every operation is seen,
so that a network which asks for too much is stopped at that operation.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

import zoo.architectures  # noqa: F401 (registers our own networks with timm)
from zoo import limits
from zoo.attribution.features import forward_head
from zoo.attribution.network import run
from zoo.entry import EntryError

MAX_LAYERS = 10_000  # modules; timm's networks have up to 2,000
MAX_OPERATIONS = 200_000  # one run of a network; timm's have up to 10,000


@dataclass(frozen=True)
class Footprint:
    """Size of a network.

    Attributes:
        parameters: Number of parameters.
        activation_bytes: Results of all operations for one picture, as maps that need gradients keep them.
        width: Length of the vector before the last layer.
    """

    parameters: int
    activation_bytes: int
    width: int


def measure(
    architecture: str,
    classes: int,
    options: Mapping[str, Any],
    input_size: Sequence[int],
    max_parameters: int,
) -> Footprint:
    """Measure a network without building it. Networks that were measured before in this process are remembered.

    Args:
        architecture: Name in timm's registry.
        classes: Number of outputs.
        options: Further arguments of `timm.create_model`.
        input_size: Channels, height and width of its input.
        max_parameters: Parameters that may be made while it is built.

    Raises:
        EntryError: It asks for more parameters, layers, activations or larger windows than the limits allow.
        Exception: Whatever the network's own code raises for options that are not for it.
    """
    _check_sides(options)
    bounds = (max_parameters, limits.ACTIVATIONS_MB.bytes, limits.MODEL_CHECK.exact)
    return _measure(architecture, classes, json.dumps(options, sort_keys=True), tuple(input_size), *bounds)


@lru_cache(256)
def _measure(
    architecture: str,
    classes: int,
    options: str,
    input_size: tuple[int, ...],
    max_parameters: int,
    max_bytes: int,
    seconds: float,
) -> Footprint:
    # shapes do not depend on random numbers, and building must not use up those of others
    with (
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
        torch.device("meta"),
        _Operations(max_bytes, seconds) as seen,
    ):
        with construction_limit(max_parameters):
            model: nn.Module = timm.create_model(
                architecture, pretrained=False, num_classes=classes, **json.loads(options)
            )
        seen.clear()
        features = run(model.eval(), torch.empty(1, *input_size)).features
        total = seen.bytes
        vectors = forward_head(model, features, pre_logits=True)
    width = vectors.shape[1] if vectors.ndim == 2 else 0
    return Footprint(sum(parameter.numel() for parameter in model.parameters()), total, width)


def _check_sides(options: Mapping[str, Any]) -> None:
    """Refuse pictures, windows and patches larger than allowed: their positions are numbered one by one."""
    for name, value in options.items():
        sides = list(_numbers(value)) if name.endswith(("size", "resolution")) else []
        limit = limits.WINDOW_SIDE if "window" in name else limits.INPUT_SIDE
        if sides and max(sides) > limit.value:
            raise EntryError(
                f"its option {name} is {max(sides):,.0f}; at most {limit.value:,} {limit.unit} are allowed."
            )


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    for part in value if isinstance(value, list | tuple) else ():
        yield from _numbers(part)


class _Operations(TorchDispatchMode):
    """Counts the bytes of all results, and stops when there are too many."""

    def __init__(self, max_bytes: int, seconds: float) -> None:
        super().__init__()
        self.bytes, self.count, self.max_bytes, self.end = 0, 0, max_bytes, time.monotonic() + seconds
        self.seconds = seconds

    def clear(self) -> None:
        """Begin again: what building computes is not kept."""
        self.bytes, self.count = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # a view and a tensor that is changed in place have no memory of their own
        if not any(returned.alias_info for returned in func._schema.returns):
            made = result if isinstance(result, list | tuple) else (result,)
            self.bytes += sum(one.numel() * one.element_size() for one in made if isinstance(one, torch.Tensor))
        self.count += 1
        if self.bytes > self.max_bytes:
            raise EntryError(
                f"it needs more than {self.max_bytes / 1e6:,.0f} MB for one picture of its input size; "
                f"choose a smaller input or network, or raise {limits.ACTIVATIONS_MB.variable}."
            )
        if self.count > MAX_OPERATIONS or time.monotonic() > self.end:
            raise EntryError(
                f"it has more than {MAX_OPERATIONS:,} operations, or they take {self.seconds:g} seconds to count."
            )
        return result


_building = threading.local()  # `parameters`, `layers`: how many may still be made; absent where no network is built


@contextlib.contextmanager
def construction_limit(parameters: int) -> Iterator[None]:
    """Let this thread make no more than a number of parameters, and MAX_LAYERS layers.

    Raises EntryError at the first one too many.
    """
    _building.parameters, _building.layers = parameters, MAX_LAYERS
    try:
        yield
    finally:
        del _building.parameters, _building.layers


def _count_parameter(_: nn.Module, __: str, parameter: nn.Parameter | None) -> None:
    if parameter is not None and hasattr(_building, "parameters"):
        _building.parameters -= parameter.numel()
        if _building.parameters < 0:
            raise EntryError("its options ask for a network far larger than its weights.")


def _count_layer(_: nn.Module, __: str, layer: nn.Module | None) -> None:
    if layer is not None and hasattr(_building, "layers"):
        _building.layers -= 1
        if _building.layers < 0:
            raise EntryError(f"its options ask for more than {MAX_LAYERS:,} layers.")


register_module_parameter_registration_hook(_count_parameter)
register_module_module_registration_hook(_count_layer)
