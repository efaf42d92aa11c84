"""Depthwise convolutions whose gradients are quick on a CPU.

oneDNN, which computes convolutions on CPUs for torch, has quick kernels for a depthwise convolution's forward pass, for
the gradient of its input where the stride is 1, and for that of a kernel of up to 3×3. All else it computes channel by
channel: of an EfficientNet that takes two thirds of a training step. Here the slow ones are made of the quick ones.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.nn import functional

QUICK = 3  # sides of a kernel whose gradient is quick
Pair = tuple[int, int]


class _Hastened(nn.Conv2d):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return depthwise(images, self.weight, self.bias, self.stride, self.padding)


class _HastenedSame(Conv2dSame):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        padded = pad_same(images, self.weight.shape[-2:], self.stride)
        return depthwise(padded, self.weight, self.bias, self.stride, (0, 0))


_HASTENED = {nn.Conv2d: _Hastened, Conv2dSame: _HastenedSame}


def hasten(network: nn.Module) -> None:
    """Let the depthwise convolutions of `network` compute their gradients this way; nothing else of them changes.

    Nothing changes at all where torch computes without oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for module in network.modules():
        kind = _HASTENED.get(type(module))
        if kind is not None and _is_depthwise(module):
            module.__class__ = kind


def _is_depthwise(module: nn.Conv2d) -> bool:
    plain = isinstance(module.padding, tuple) and module.padding_mode == "zeros" and tuple(module.dilation) == (1, 1)
    return plain and module.groups > 1 and module.groups == module.in_channels == module.out_channels


def depthwise(
    images: torch.Tensor, kernels: torch.Tensor, bias: torch.Tensor | None, stride: Pair, padding: Pair
) -> torch.Tensor:
    """As `torch.nn.functional.conv2d` of (B, C, H, W) with (C, 1, h, w) kernels, one a channel; under autocast, too."""
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
    """A step of more than one pixel is one of 1, whose other results nothing came of."""
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
    """A large kernel is several small ones, each of which sees its part of the picture."""
    if max(kernels.shape[2:]) <= QUICK and max(padding) < QUICK - 1:
        return _gradient(above, images, kernels, stride, padding, 1)
    padded = functional.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    found = torch.empty_like(kernels)
    reach = [stride[i] * (above.shape[2 + i] - 1) for i in (0, 1)]
    for top in range(0, kernels.shape[2], QUICK):
        for left in range(0, kernels.shape[3], QUICK):
            part = kernels[:, :, top : top + QUICK, left : left + QUICK]
            bottom, right = top + reach[0] + part.shape[2], left + reach[1] + part.shape[3]
            seen = padded[:, :, top:bottom, left:right]
            found[:, :, top : top + QUICK, left : left + QUICK] = _gradient(above, seen, part, stride, (0, 0), 1)
    return found


def _gradient(
    above: torch.Tensor, images: torch.Tensor, kernels: torch.Tensor, stride: Pair, padding: Pair, of: int
) -> torch.Tensor:
    """Torch's own gradient of the images (`of` 0) or of the kernels (1)."""
    wanted = [of == 0, of == 1, False]
    return torch.ops.aten.convolution_backward(
        above, images, kernels, None, stride, padding, (1, 1), False, (0, 0), len(kernels), wanted
    )[of]
