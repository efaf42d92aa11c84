"""Checkpoint files: all tensors of a training in one safetensors file, the other facts as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from training.recipe import RecipeError
from training.recipe.versions import upgrade
from zoo.files import atomic_path

VERSION = 2  # of the facts; 1: a "key" instead of recipe, split and processes, from before recipes had versions
VERSION_KEY = "schema_version"


class CheckpointError(ValueError):
    """A checkpoint that cannot be continued; the message says why and what to do."""


def origin(recipe: str, split: str, processes: int) -> dict[str, Any]:
    """Describe what decides a training's weights, to be kept among a checkpoint's facts.

    Args:
        recipe: The recipe's fingerprint.
        split: Hash of the split.
        processes: Number of processes that share a batch.
    """
    return {"version": VERSION, "recipe": json.loads(recipe), "split": split, "processes": processes}


def check_origin(facts: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError if facts read from `path` are of another origin, or of a version that cannot be read."""
    version = facts.get("version", 1)
    if version > VERSION:
        raise CheckpointError(
            f"{path} was written in checkpoint version {version}, by a newer HemaZoo. This one reads versions up to "
            f"{VERSION}: update it, or start again with --restart."
        )
    try:
        found = _origin_of_version_1(facts) if version == 1 else facts
    except RecipeError as error:
        raise CheckpointError(f"{path} was written in checkpoint version 1 and cannot be continued: {error}") from error
    if any(found[key] != expected[key] for key in ("recipe", "split", "processes")):
        raise CheckpointError(
            f"{path} was made with another recipe, other data or another number of processes. Start again with "
            "--restart."
        )


def _origin_of_version_1(facts: Mapping[str, Any]) -> dict[str, Any]:
    recipe, split, processes = facts["key"].rsplit(" ", 2)
    content = upgrade(json.loads(recipe))
    del content[VERSION_KEY]
    return {"recipe": content, "split": split, "processes": int(processes)}


def save(path: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
    """Write the tensors of `modules` and of the optimizer, and JSON-able `facts`, in one atomic file."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for name, module in modules.items():
        tensors |= {f"{name}/{key}": value.detach().clone().contiguous() for key, value in module.state_dict().items()}
    for row, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{row}/{key}"] = value.detach().clone().contiguous()
            else:
                numbers[f"{row}/{key}"] = value
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary), {"facts": json.dumps(facts), "numbers": json.dumps(numbers)})


def read_facts(path: Path) -> dict[str, Any]:
    """Read the facts saved in `path`. Raises CheckpointError if it is damaged or missing."""
    try:
        with safe_open(str(path), "pt") as file:
            return json.loads(file.metadata()["facts"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _unusable(path, error) from error


def load(path: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """Put the state in `path` back into `modules` and the optimizer.

    Raises:
        CheckpointError: The file is damaged or belongs to another network.
    """
    try:
        with safe_open(str(path), "pt") as file:
            header = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        for name, module in modules.items():
            part = {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
            module.load_state_dict(part)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise _unusable(path, error) from error
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, row, name = key.split("/")
            state.setdefault(int(row), {})[name] = value
    for key, number in json.loads(header["numbers"]).items():
        row, name = key.split("/")
        state.setdefault(int(row), {})[name] = number
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _unusable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} cannot be continued ({error}). Start again with --restart.")
