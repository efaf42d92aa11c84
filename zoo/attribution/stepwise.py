"""How are the slow methods run without holding up everybody else? As generators that stop after every forward pass.

Whoever runs one may do other work between two steps, tell how far it is, and drop it at any time. Nothing may be left
set between two steps: no hook, no gradient mode.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import nn
from torch.nn import functional

from zoo.attribution.features import ExplanationError, answers_to, channel_axis, look
from zoo.attribution.objectives import chosen

STEP = 16  # pictures of a forward pass
GRID = 14  # squares along the shorter side of a picture, for occlusion; a patch hides 2×2 of them
PATH = 64  # pictures from the baseline to the picture, for integrated gradients
CELLS = 28  # squares along the shorter side over which integrated gradients are summed

Steps = Generator[float, None, torch.Tensor]  # share done, …, then the map (h, w) float32, ≥ 0


def score_cam(model: nn.Module, picture: torch.Tensor, target: int, layer: str | None) -> Steps:
    """Channels weighted by what the class scores on the picture seen through each (Wang et al. 2020).

    arXiv:1910.01279.
    """
    seen = look(model, picture, None, layer)
    masks = functional.interpolate(seen.features, picture.shape[2:], mode="bilinear", align_corners=True)[0]
    low, high = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
    masks = (masks - low) / (high - low + 1e-8)
    label = _label(seen.logits, target)
    found = []
    for part in masks.split(STEP):
        found.append(_logits(model, picture * part[:, None].to(picture.dtype))[:, label])
        yield sum(map(len, found)) / len(masks)
    weights = torch.cat(found).softmax(0)
    return (weights[:, None, None] * seen.features[0]).sum(0).relu()


def ablation_cam(model: nn.Module, picture: torch.Tensor, target: int, layer: str | None) -> Steps:
    """Channels weighted by what the class loses without each (Desai & Ramaswamy 2020).

    doi:10.1109/WACV45572.2020.9093360. A channel is taken away by setting it to 0, as in the paper.
    """
    seen = look(model, picture, None, layer)
    label = _label(seen.logits, target)
    axis = channel_axis(seen.native, model)
    count = seen.native.shape[axis]
    found = []
    for start in range(0, count, STEP):
        some = range(start, min(start + STEP, count))
        native = seen.native.repeat(len(some), *[1] * (seen.native.ndim - 1))
        for row, channel in enumerate(some):
            native[row].select(axis - 1, channel).zero_()
        found.append(answers_to(model, picture.expand(len(some), -1, -1, -1), native, layer).float()[:, label])
        yield some.stop / count
    weights = seen.logits[0, label] - torch.cat(found)
    return (weights[:, None, None] * seen.features[0]).sum(0).relu()


def occlusion(model: nn.Module, picture: torch.Tensor, target: int, layer: str | None) -> Steps:
    """How much of the class's log probability is lost where a patch hides the picture (Zeiler & Fergus 2014).

    arXiv:1311.2901. Asks nothing of the model but answers. What hides is the colour of the picture's rim: smear
    without a cell.
    """
    height, width = picture.shape[2:]
    side = max(1, round(min(height, width) / GRID))
    rows, columns = -(-height // side), -(-width // side)
    rim = torch.cat([picture[0, :, [0, -1]].flatten(1), picture[0, :, :, [0, -1]].flatten(1)], 1).median(1).values
    whole = _logits(model, picture).log_softmax(1)
    label = _label(whole, target)
    # patches reach over the edge, so that every square is hidden by four of them
    corners = [(row, column) for row in range(-1, rows) for column in range(-1, columns)]
    lost = torch.zeros(rows, columns, device=picture.device)
    for start in range(0, len(corners), STEP):
        some = corners[start : start + STEP]
        hidden = picture.repeat(len(some), 1, 1, 1)
        for one, (row, column) in zip(hidden, some, strict=True):
            top, left = max(row, 0) * side, max(column, 0) * side
            one[:, top : (row + 2) * side, left : (column + 2) * side] = rim[:, None, None]
        drops = whole[0, label] - _logits(model, hidden).log_softmax(1)[:, label]
        for drop, (row, column) in zip(drops, some, strict=True):
            lost[max(row, 0) : row + 2, max(column, 0) : column + 2] += drop / 4
        yield (start + len(some)) / len(corners)
    return lost.relu()


def integrated_gradients(model: nn.Module, picture: torch.Tensor, target: int, layer: str | None) -> Steps:
    """Gradients of the class's score on the way from a blurred picture (Sundararajan et al. 2017, arXiv:1703.01365).

    Summed over colours and over squares of 1/28 of the shorter side: single pixels are too noisy to look at. Raises
    ExplanationError for models without gradients.
    """
    label = _label(_logits(model, picture), target)
    side = min(picture.shape[2:])
    baseline = _blurred(picture, side // 4)
    total = torch.zeros_like(picture, dtype=torch.float32)
    shares = (torch.arange(PATH, device=picture.device) + 0.5) / PATH
    for start in range(0, PATH, STEP):
        part = shares[start : start + STEP, None, None, None]
        with torch.enable_grad():
            between = (baseline + part * (picture - baseline)).detach().requires_grad_()
            scores = model(between)[:, label].sum()
            if not scores.requires_grad:
                raise ExplanationError("This model has no gradients; choose occlusion.")
            (gradient,) = torch.autograd.grad(scores, between)
        total += gradient.float().sum(0, keepdim=True)
        yield (start + len(part)) / PATH
    found = ((picture - baseline) * total / PATH).sum(1, keepdim=True)
    return functional.avg_pool2d(found, max(1, side // CELLS), ceil_mode=True)[0, 0].relu()


def _blurred(picture: torch.Tensor, reach: int) -> torch.Tensor:
    reach = max(1, reach)
    padded = functional.pad(picture.float(), [reach] * 4, mode="replicate")
    return functional.avg_pool2d(padded, 2 * reach + 1, stride=1).to(picture.dtype)


def _logits(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(batch.contiguous(memory_format=torch.channels_last)).float()


def _label(logits: torch.Tensor, target: int) -> int:
    return int(chosen(logits, torch.tensor([target], device=logits.device))[0])
