"""How does training survive an interruption? One safetensors file: all tensors, and in its header the rest as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from zoo.files import atomic_path


class CheckpointError(ValueError):
    """A checkpoint that cannot be continued; the message says why and what to do."""


def save(path: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
    """Write the tensors of `modules` and of the optimizer, and JSON-able `facts`, in one atomic file."""
    tensors, numbers = {}, {}
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
    """The facts saved in `path`. Raises CheckpointError if it is damaged or not there."""
    try:
        with safe_open(str(path), "pt") as file:
            return json.loads(file.metadata()["facts"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be continued ({error}). Start anew with --restart.") from error


def load(path: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """Put the state in `path` back into `modules` and the optimizer.

    Raises CheckpointError if the file is damaged or belongs to another network.
    """
    try:
        with safe_open(str(path), "pt") as file:
            header = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        for name, module in modules.items():
            part = {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
            module.load_state_dict(part)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be continued ({error}). Start anew with --restart.") from error
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, row, name = key.split("/")
            state.setdefault(int(row), {})[name] = value
    for key, number in json.loads(header["numbers"]).items():
        row, name = key.split("/")
        state.setdefault(int(row), {})[name] = number
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
