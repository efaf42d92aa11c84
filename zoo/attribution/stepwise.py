"""Slow methods, as generators that stop after every forward pass, so that other work can run in between.

Whoever runs one may do other work between two steps, tell how far it is, and drop it at any time. Nothing may stay set
between two steps: no hook, no gradient mode.

Each method takes the model (see `zoo.attribution.network`), a normalised picture (1, 3, H, W), a label number (or
PREDICTED) and the path of the layer to explain (None for the last); it yields the share that is done and returns the
map (h, w) float32, ≥ 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.attribution.features import ExplanationError, capture, channel_axis, forward_from
from zoo.attribution.network import Model, linear_head_of, logits_of, module_of
from zoo.attribution.objectives import resolve_targets
from zoo.attribution.registry import MODEL_FREE, Steps, register_method
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.nn import functional
else:
    torch = lazy_module("torch")
    nn = lazy_module("torch.nn")
    functional = lazy_module("torch.nn.functional")

BATCH = 16  # pictures of a forward pass
OCCLUSION_GRID = 14  # squares along the shorter side of a picture; a patch hides 2×2 of them
PATH_LENGTH = 64  # pictures from the baseline to the picture, for integrated gradients
GRADIENT_GRID = 28  # squares along the shorter side over which integrated gradients are summed


@register_method("score-cam", "ScoreCAM", "without gradients: the picture seen through each channel; slow")
def score_cam(model: Model, picture: torch.Tensor, target: int, layer: str | None) -> Steps:
    """Weight channels by the class's score on the picture seen through each (Wang et al. 2020, arXiv:1910.01279)."""
    seen = capture(model, picture, None, layer)
    height, width = picture.shape[2:]
    masks = functional.interpolate(seen.features, (height, width), mode="bilinear", align_corners=True)[0]
    low, high = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
    masks = (masks - low) / (high - low + 1e-8)
    label = _label(seen.logits, target)
    scores: list[torch.Tensor] = []
    for part in masks.split(BATCH):
        scores.append(logits_of(model, picture * part[:, None].to(picture.dtype))[:, label])
        yield sum(map(len, scores)) / len(masks)
    weights = torch.cat(scores).softmax(0)
    return (weights[:, None, None] * seen.features[0]).sum(0).relu()


@register_method("ablation-cam", "AblationCAM", "without gradients: each channel taken away; slow")
def ablation_cam(model: Model, picture: torch.Tensor, target: int, layer: str | None) -> Steps:
    """Weight channels by what the class loses without each (Desai & Ramaswamy 2020).

    doi:10.1109/WACV45572.2020.9093360. A channel is removed by setting it to 0, as in the paper.
    """
    seen = capture(model, picture, None, layer)
    label = _label(seen.logits, target)
    axis = 1 if linear_head_of(model) and layer is None else channel_axis(seen.native, module_of(model))
    count = seen.native.shape[axis]
    scores: list[torch.Tensor] = []
    for start in range(0, count, BATCH):
        channels = range(start, min(start + BATCH, count))
        native = seen.native.repeat(len(channels), *[1] * (seen.native.ndim - 1))
        for row, channel in enumerate(channels):
            native[row].select(axis - 1, channel).zero_()
        logits = forward_from(model, picture.expand(len(channels), -1, -1, -1), native, layer)
        scores.append(logits.float()[:, label])
        yield channels.stop / count
    weights = seen.logits[0, label] - torch.cat(scores)
    return (weights[:, None, None] * seen.features[0]).sum(0).relu()


@register_method("integrated-gradients", "Integrated gradients", "pixels, from a blurred picture to the sharp one")
def integrated_gradients(model: Model, picture: torch.Tensor, target: int, layer: str | None) -> Steps:
    """Sum gradients of the class's score on the way from a blurred picture (Sundararajan et al. 2017).

    arXiv:1703.01365. Summed over colours and over squares of 1/28 of the shorter side, because single pixels are too
    noisy to look at. Raises ExplanationError for models without gradients.
    """
    label, module = _label(logits_of(model, picture), target), module_of(model)
    side = min(picture.shape[2:])
    baseline = _blurred(picture, side // 4)
    total = torch.zeros_like(picture, dtype=torch.float32)
    shares = (torch.arange(PATH_LENGTH, device=picture.device) + 0.5) / PATH_LENGTH
    for start in range(0, PATH_LENGTH, BATCH):
        part = shares[start : start + BATCH, None, None, None]
        with torch.enable_grad():
            between = (baseline + part * (picture - baseline)).detach().requires_grad_()
            scores = module(between)[:, label].sum()
            if not scores.requires_grad:
                raise ExplanationError("This model has no gradients; choose occlusion.")
            (gradient,) = torch.autograd.grad(scores, between)
        total += gradient.float().sum(0, keepdim=True)
        yield (start + len(part)) / PATH_LENGTH
    evidence = ((picture - baseline) * total / PATH_LENGTH).sum(1, keepdim=True)
    return functional.avg_pool2d(evidence, max(1, side // GRADIENT_GRID), ceil_mode=True)[0, 0].relu()


@register_method(MODEL_FREE, "Occlusion", "what is lost when a patch hides the picture; any model", any_model=True)
def occlusion(model: Model, picture: torch.Tensor, target: int, layer: str | None, batch: int = BATCH) -> Steps:
    """Measure the log probability that the class loses where a patch hides the picture (Zeiler & Fergus 2014).

    arXiv:1311.2901. Needs only the model's answers. The patch has the colour of the picture's rim: smear without a
    cell. `batch` is the number of pictures of a forward pass.
    """
    height, width = picture.shape[2:]
    side = max(1, round(min(height, width) / OCCLUSION_GRID))
    rows, columns = -(-height // side), -(-width // side)
    rim = torch.cat([picture[0, :, [0, -1]].flatten(1), picture[0, :, :, [0, -1]].flatten(1)], 1).median(1).values
    whole = logits_of(model, picture).log_softmax(1)
    label = _label(whole, target)
    # patches reach over the edge, so that every square is hidden by four of them
    corners = [(row, column) for row in range(-1, rows) for column in range(-1, columns)]
    lost = torch.zeros(rows, columns, device=picture.device)
    for start in range(0, len(corners), batch):
        part = corners[start : start + batch]
        hidden = picture.repeat(len(part), 1, 1, 1)
        for one, (row, column) in zip(hidden, part, strict=True):
            top, left = max(row, 0) * side, max(column, 0) * side
            one[:, top : (row + 2) * side, left : (column + 2) * side] = rim[:, None, None]
        drops = whole[0, label] - logits_of(model, hidden).log_softmax(1)[:, label]
        for drop, (row, column) in zip(drops, part, strict=True):
            lost[max(row, 0) : row + 2, max(column, 0) : column + 2] += drop / 4
        yield (start + len(part)) / len(corners)
    return lost.relu()


def _blurred(picture: torch.Tensor, reach: int) -> torch.Tensor:
    reach = max(1, reach)
    padded = functional.pad(picture.float(), [reach] * 4, mode="replicate")
    return functional.avg_pool2d(padded, 2 * reach + 1, stride=1).to(picture.dtype)


def _label(logits: torch.Tensor, target: int) -> int:
    return int(resolve_targets(logits, torch.tensor([target], device=logits.device))[0])
