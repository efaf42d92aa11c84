"""A tiny recipe on drawn cells, which tests change."""

from __future__ import annotations

import torch

from tests.making import LABELS
from training.fit.networks.network import build_model
from training.recipe import Recipe

SIDE = 48
HEAD = {"architecture": "test_resnet", "head": ["gap", "dense 16", "relu"], "input_size": [SIDE, SIDE]}
PARTED = {"architecture": "minicnn", "input_size": [96, 96], "args": {}}
PLAIN = {"name": "momentum", "momentum": 0.0, "lr": 0.05}  # steps in proportion to gradients: rounding stays rounding


def recipe(**parts) -> Recipe:
    content = {
        "id": "drawn",
        "title": "drawn",
        "summary": "drawn",
        "task": "test",
        "data": {"name": "drawn", "credit": "a test", "labels": dict.fromkeys(LABELS), "packed": [SIDE, SIDE]},
        "model": {"architecture": "test_resnet", "input_size": [SIDE, SIDE]},
        "optimizer": {"lr": 4e-3},
        "schedule": {"epochs": 3, "batch_size": 16, "precision": "fp32"},
        "augment": {"horizontal_flip": True, "rotation": 90},
    }
    content["data"]["labels"] = {label: label for label in LABELS}
    for name, part in parts.items():
        content[name] = {**content[name], **part} if isinstance(part, dict) and name in content else part
    return Recipe.model_validate(content)


def equal_but_for_rounding(one, two):
    """Whether two networks differ by rounding only, compared to how far training moved them."""
    torch.manual_seed(0)
    start = build_model(recipe(model=PARTED).network, 4)
    trios = list(zip(one.parameters(), two.parameters(), start.parameters(), strict=True))
    moved = max((first - begun).abs().max().item() for first, _, begun in trios)
    return max((first - second).abs().max().item() for first, second, _ in trios) < 0.05 * moved


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}
