"""Depthwise convolutions with fast gradients on CPUs.

oneDNN, which computes torch's convolutions on CPUs, has fast kernels for a depthwise convolution's forward pass, for
the gradient of its input where the stride is 1, and for that of a kernel of up to 3×3. It computes the others channel
by channel, which takes two thirds of a training step of an EfficientNet. Here they are composed of the fast ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.nn import functional

MAX_FAST_KERNEL = 3  # sides of a kernel whose gradient is fast
Pair = tuple[int, int]


class FastConv2d(nn.Conv2d):
    """Depthwise convolution with fast gradients."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convolve (B, C, H, W)."""
        return depthwise(images, self.weight, self.bias, _pair(self.stride), _pair(self.padding))


class FastConv2dSame(Conv2dSame):
    """Depthwise convolution of TensorFlow's padding, with fast gradients."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convolve (B, C, H, W)."""
        padded = pad_same(images, list(self.weight.shape[-2:]), list(self.stride))
        return depthwise(padded, self.weight, self.bias, _pair(self.stride), (0, 0))


FAST: dict[type, type] = {nn.Conv2d: FastConv2d, Conv2dSame: FastConv2dSame}
PLAIN = {fast: plain for plain, fast in FAST.items()}


def use_fast_gradients(network: nn.Module) -> bool:
    """Let the depthwise convolutions of `network` compute their gradients this way; results stay the same.

    Nothing changes where torch computes without oneDNN.

    Returns:
        Whether there were any to change.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    found = False
    for module in network.modules():
        fast = FAST.get(type(module))  # subclasses are left alone
        if fast is not None and isinstance(module, nn.Conv2d) and _is_depthwise(module):
            module.__class__, found = fast, True
    return found


def use_plain_gradients(network: nn.Module) -> None:
    """Let the depthwise convolutions of `network` compute their gradients as torch does."""
    for module in network.modules():
        module.__class__ = PLAIN.get(type(module), type(module))


def _is_depthwise(module: nn.Conv2d) -> bool:
    plain = isinstance(module.padding, tuple) and module.padding_mode == "zeros" and tuple(module.dilation) == (1, 1)
    return plain and module.groups > 1 and module.groups == module.in_channels == module.out_channels


def _pair(values: Sequence[int] | str) -> Pair:
    """Height and width; padding by name ("same") does not occur here."""
    height, width = (int(value) for value in values)
    return height, width


def depthwise(
    images: torch.Tensor, kernels: torch.Tensor, bias: torch.Tensor | None, stride: Pair, padding: Pair
) -> torch.Tensor:
    """Convolve (B, C, H, W) with (C, 1, h, w) kernels as `torch.nn.functional.conv2d` does, also under autocast."""
    if torch.is_autocast_enabled(images.device.type):
        kind = torch.get_autocast_dtype(images.device.type)
        images, kernels, bias = images.to(kind), kernels.to(kind), None if bias is None else bias.to(kind)
    return _Depthwise.apply(images, kernels, bias, stride, padding)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: torch.Tensor,
        kernels: torch.Tensor,
        bias: torch.Tensor | None,
        stride: Pair,
        padding: Pair,
    ) -> torch.Tensor:
        ctx.save_for_backward(images, kernels)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, kernels, bias, stride, padding, 1, len(kernels))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, kernels = ctx.saved_tensors
        above = gradients[0]
        of_images, of_kernels, of_bias = ctx.needs_input_grad[:3]
        return (
            _of_images(above, images, kernels, ctx.stride, ctx.padding) if of_images else None,
            _of_kernels(above, images, kernels, ctx.stride, ctx.padding) if of_kernels else None,
            above.sum((0, 2, 3)) if of_bias else None,
            None,
            None,
        )


def _of_images(
    above: torch.Tensor, images: torch.Tensor, kernels: torch.Tensor, stride: Pair, padding: Pair
) -> torch.Tensor:
    """Gradient of the images; strides above 1 become stride 1 with zeros for the results that were skipped."""
    if stride != (1, 1):
        sides = [images.shape[2 + i] + 2 * padding[i] - kernels.shape[2 + i] + 1 for i in (0, 1)]
        # in the memory format of `images`
        spread = torch.zeros_like(images[:, :, :1, :1].expand(*images.shape[:2], *sides), dtype=above.dtype)
        spread[:, :, :: stride[0], :: stride[1]] = above
        above = spread
    return _gradient(above, images, kernels, (1, 1), padding, 0)


def _of_kernels(
    above: torch.Tensor, images: torch.Tensor, kernels: torch.Tensor, stride: Pair, padding: Pair
) -> torch.Tensor:
    """Gradient of the kernels; a large kernel is split into small ones, each with its part of the picture."""
    if max(kernels.shape[2:]) <= MAX_FAST_KERNEL and max(padding) < MAX_FAST_KERNEL - 1:
        return _gradient(above, images, kernels, stride, padding, 1)
    padded = functional.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    gradient = torch.empty_like(kernels)
    reach = [stride[i] * (above.shape[2 + i] - 1) for i in (0, 1)]
    for top in range(0, kernels.shape[2], MAX_FAST_KERNEL):
        for left in range(0, kernels.shape[3], MAX_FAST_KERNEL):
            part = kernels[:, :, top : top + MAX_FAST_KERNEL, left : left + MAX_FAST_KERNEL]
            bottom, right = top + reach[0] + part.shape[2], left + reach[1] + part.shape[3]
            visible = padded[:, :, top:bottom, left:right]
            gradient[:, :, top : top + MAX_FAST_KERNEL, left : left + MAX_FAST_KERNEL] = _gradient(
                above, visible, part, stride, (0, 0), 1
            )
    return gradient


def _gradient(
    above: torch.Tensor, images: torch.Tensor, kernels: torch.Tensor, stride: Pair, padding: Pair, of: int
) -> torch.Tensor:
    """Torch's own gradient of the images (`of` 0) or of the kernels (1)."""
    wanted = [of == 0, of == 1, False]
    return torch.ops.aten.convolution_backward(
        above, images, kernels, None, stride, padding, (1, 1), False, (0, 0), len(kernels), wanted
    )[of]
