"""Depthwise convolutions of ours against torch's: the same results and gradients, in networks, too."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch.nn import functional

from training.fit.processor.depthwise import depthwise, use_fast_gradients

# kernel, stride, padding, (height, width)
CASES = [
    ((5, 5), (1, 1), (2, 2), (7, 6)),
    ((3, 3), (2, 2), (1, 1), (8, 9)),
    ((3, 3), (2, 2), (0, 0), (9, 8)),
    ((5, 5), (2, 2), (0, 0), (9, 12)),
    ((7, 7), (1, 1), (3, 3), (7, 8)),
    ((3, 3), (1, 1), (2, 2), (6, 5)),
    ((4, 4), (3, 3), (1, 1), (10, 9)),
    ((5, 3), (2, 1), (2, 1), (8, 9)),
    ((1, 1), (1, 1), (0, 0), (3, 3)),
    ((5, 5), (1, 1), (2, 2), (2, 2)),
]


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
def test_results_and_gradients_are_torchs(kernel, stride, padding, size, channels_last):
    torch.manual_seed(0)
    form = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(3, 4, *size, dtype=torch.float64).to(memory_format=form).requires_grad_()
    kernels = torch.randn(4, 1, *kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    theirs = functional.conv2d(images, kernels, bias, stride, padding, 1, 4)
    ours = depthwise(images, kernels, bias, stride, padding)
    assert torch.equal(ours, theirs)
    above = torch.randn_like(theirs)
    for mine, other in zip(
        torch.autograd.grad(ours, (images, kernels, bias), above),
        torch.autograd.grad(theirs, (images, kernels, bias), above),
        strict=True,
    ):
        assert mine.shape == other.shape
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch computes without oneDNN here")
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientnet_b0", "mobilenetv3_small_050", "convnext_atto"])
@pytest.mark.parametrize("autocast", [False, True])
def test_networks_learn_the_same(name, autocast):
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=3, drop_path_rate=0.0, drop_rate=0.0).train()
    quick = copy.deepcopy(plain)
    use_fast_gradients(quick)
    changed = sum(type(a) is not type(b) for a, b in zip(plain.modules(), quick.modules(), strict=True))
    assert changed >= 3
    assert quick.state_dict().keys() == plain.state_dict().keys()
    images, labels = torch.randn(4, 3, 65, 64), torch.tensor([0, 1, 2, 0])
    found = []
    for network in (plain, copy.deepcopy(quick)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = network(images)
        functional.cross_entropy(logits.float(), labels).backward()
        found.append([logits.detach().float(), *(p.grad.float() for p in network.parameters())])
    for mine, other in zip(*found, strict=True):
        near = torch.nn.functional.cosine_similarity(mine.flatten(), other.flatten(), dim=0)
        assert near > (0.98 if autocast else 0.99999) or other.abs().max() < 1e-6


def test_other_convolutions_stay():
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3, groups=4),
        torch.nn.Conv2d(4, 4, 3),
        torch.nn.Conv2d(4, 4, 3, groups=4, dilation=2),
        torch.nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        torch.nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="circular"),
    )
    use_fast_gradients(layers)
    assert {type(layer) for layer in layers} == {torch.nn.Conv2d}
