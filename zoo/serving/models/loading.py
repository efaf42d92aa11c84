"""Loading of an entry's network, refusing one whose options ask for far more memory than its weights."""

from __future__ import annotations

import timm
from safetensors.torch import load_file
from torch import nn

import zoo.architectures  # noqa: F401 (registers our own networks with timm)
from zoo.entry import WEIGHTS, Config, Entry, EntryError, Weights
from zoo.limits import PARAMETERS
from zoo.serving.heads import load_head
from zoo.serving.heads.network import ClassicalHeadModel
from zoo.serving.models.footprint import Footprint, construction_limit, measure

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
        model, footprint = _build(config, entry, entry.weights)
    except EntryError as error:
        raise EntryError(f"{entry.id} cannot be loaded: {error}") from error
    # a network's own code may fail in any way on arguments that are not for it
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EntryError(
            f"{entry.id} cannot be loaded: its weights do not fit {config.architecture} ({reason})"
        ) from error
    if config.zoo.head:
        model = ClassicalHeadModel(model, load_head(entry, footprint.width))
    return model.eval().requires_grad_(False)


def _build(config: Config, entry: Entry, weights: Weights) -> tuple[nn.Module, Footprint]:
    """Build a network that was measured, and load its weights."""
    limit = _max_parameters(config, weights)
    size = config.pretrained_cfg.input_size
    footprint = measure(config.architecture, config.num_classes, config.model_args, size, limit)
    with construction_limit(limit):
        model = timm.create_model(
            config.architecture, pretrained=False, num_classes=config.num_classes, **config.model_args
        )
    tensors = load_file(str(entry.folder / WEIGHTS))
    if config.zoo.head:
        # the last layer, which a classical head replaces, may be missing
        own = model.state_dict()
        tensors = {key: own[key] for key in own if key.startswith("classifier.")} | tensors
    model.load_state_dict(tensors)
    return model, footprint


def _max_parameters(config: Config, weights: Weights) -> int:
    """Number of parameters that may be made while a network is built."""
    if weights.parameters is None:
        return PARAMETERS.value
    spare = SPARE_BACKBONE_PARAMETERS if "backbone" in config.model_args else SPARE_PARAMETERS
    return SPARE_FACTOR * weights.parameters + spare
