"""Loading of an entry's network, refusing one whose options ask for far more memory than its weights."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import timm
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import zoo.architectures  # noqa: F401 (registers our own networks with timm)
from zoo.entry import HEAD, MAX_PARAMETERS, WEIGHTS, Config, Entry, EntryError, Weights
from zoo.serving.heads import ClassicalHeadModel, read_head

# Parameters that may be made beyond the stored ones: networks make some layers twice while they are built, a classical
# head's entry has no last layer, and backbones are built with a head that is discarded (VGG's has 124 million).
SPARE_FACTOR, SPARE_PARAMETERS, SPARE_BACKBONE_PARAMETERS = 2, 1_000_000, 150_000_000


def load_model(entry: Entry) -> nn.Module:
    """Load an entry's network in evaluation mode, float32, on the CPU, without gradients.

    Raises:
        EntryError: the architecture is unknown here, or the weights do not fit it.
    """
    config = entry.config
    if entry.weights is None:
        raise EntryError(f"{entry.id} cannot be used: {entry.reason}")
    if config.zoo.members:
        raise EntryError(f"{entry.id} is an ensemble: its members are loaded, each for itself.")
    if not timm.is_model(config.architecture.split(".")[0]):
        raise EntryError(f"{entry.id} needs the architecture {config.architecture}, which is not known here.")
    try:
        model = _build(config, entry, entry.weights)
    except EntryError as error:
        raise EntryError(f"{entry.id} cannot be loaded: {error}") from error
    # a network's own code may fail in any way on arguments that are not for it
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EntryError(
            f"{entry.id} cannot be loaded: its weights do not fit {config.architecture} ({reason})"
        ) from error
    if config.zoo.head:
        model = ClassicalHeadModel(model, read_head(entry.folder / HEAD, config.num_classes), config.num_classes)
    return model.eval().requires_grad_(False)


def _build(config: Config, entry: Entry, weights: Weights) -> nn.Module:
    with _parameter_limit(_max_parameters(config, weights)):
        model = timm.create_model(
            config.architecture, pretrained=False, num_classes=config.num_classes, **config.model_args
        )
    tensors = load_file(str(entry.folder / WEIGHTS))
    if config.zoo.head:
        # the last layer, which a classical head replaces, may be missing
        own = model.state_dict()
        tensors = {key: own[key] for key in own if key.startswith("classifier.")} | tensors
    model.load_state_dict(tensors)
    return model


def _max_parameters(config: Config, weights: Weights) -> int:
    """Number of parameters that may be made while a network is built."""
    if weights.parameters is None:
        return MAX_PARAMETERS
    spare = SPARE_BACKBONE_PARAMETERS if "backbone" in config.model_args else SPARE_PARAMETERS
    return SPARE_FACTOR * weights.parameters + spare


_building = threading.local()  # `left`: parameters that may still be made; None where no network is built


@contextlib.contextmanager
def _parameter_limit(count: int) -> Iterator[None]:
    """Let this thread make no more than `count` parameters.

    Raises EntryError at the first parameter too many, before its memory is touched.
    """
    _building.left = count
    try:
        yield
    finally:
        _building.left = None


def _count_down(_: nn.Module, __: str, parameter: nn.Parameter | None) -> None:
    left = getattr(_building, "left", None)
    if left is None or parameter is None:
        return
    _building.left = left - parameter.numel()
    if _building.left < 0:
        raise EntryError("its options ask for a network far larger than its weights.")


register_module_parameter_registration_hook(_count_down)
