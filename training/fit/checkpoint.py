"""Checkpoint files: all tensors of a training in one safetensors file, the other facts as JSON in its header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from training.recipe import RecipeError, changed_values
from training.recipe.versions import upgrade
from zoo.files import atomic_path

VERSION = 2  # of the facts; 1: a "key" instead of recipe, split and processes, from before recipes had versions
VERSION_KEY = "schema_version"
MAX_CHANGES = 6  # of a recipe that are named
DIGEST = "sha256"  # key of the header
# how steps are computed: facts of a checkpoint, with their values in checkpoints that do not tell them
ARITHMETIC: dict[str, Any] = {"precision": "bf16", "channels_last": True, "fast_depthwise": True}


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
    found = _readable(facts, path)
    _check_recipe(found, expected["recipe"], path)
    if any(found[key] != expected[key] for key in ("split", "processes")):
        raise CheckpointError(
            f"{path} was made with other data, another split or another number of processes. Start again with "
            "--restart."
        )


def check_recipe(facts: Mapping[str, Any], fingerprint: str, path: Path) -> None:
    """Raise CheckpointError if facts read from `path` are of another recipe; each key is named with both values.

    Args:
        facts: What `read_facts` returned.
        fingerprint: Of the recipe that is to be continued.
        path: The checkpoint.
    """
    _check_recipe(_readable(facts, path), json.loads(fingerprint), path)


def _check_recipe(facts: Mapping[str, Any], recipe: Mapping[str, Any], path: Path) -> None:
    # checkpoints of before wrote these keys into the recipe, of which they no longer count as a part
    before, now = (_without_arithmetic(content) for content in (facts["recipe"], recipe))
    if before != now:
        changes = "; ".join(changed_values(before, now)[:MAX_CHANGES])
        raise CheckpointError(
            f"{path} was made with another recipe: {changes}. Give the same options again to continue, or start again "
            "with --restart."
        )


def _readable(facts: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Facts in the form of today's version. Raises CheckpointError if their version cannot be read."""
    version = facts.get("version", 1)
    if version > VERSION:
        raise CheckpointError(
            f"{path} was written in checkpoint version {version}, by a newer HemaZoo. This one reads versions up to "
            f"{VERSION}: update it, or start again with --restart."
        )
    try:
        return _origin_of_version_1(facts) if version == 1 else facts
    except RecipeError as error:
        raise CheckpointError(f"{path} was written in checkpoint version 1 and cannot be continued: {error}") from error


def arithmetic_of(path: Path) -> dict[str, Any]:
    """Keys of [schedule] that say how the steps of a checkpoint's training are computed.

    Raises:
        CheckpointError: It is damaged or missing.
    """
    facts = read_facts(path)
    # older checkpoints have them in the recipe, where they are left at their defaults of then
    try:
        recipe = facts["recipe"] if "recipe" in facts else _origin_of_version_1(facts)["recipe"]
    except RecipeError:
        recipe = {}
    return {key: facts.get(key, recipe.get("schedule", {}).get(key, old)) for key, old in ARITHMETIC.items()}


def _without_arithmetic(recipe: Mapping[str, Any]) -> dict[str, Any]:
    schedule = {key: value for key, value in recipe.get("schedule", {}).items() if key not in ARITHMETIC}
    return {**recipe, "schedule": schedule}


def _origin_of_version_1(facts: Mapping[str, Any]) -> dict[str, Any]:
    recipe, split, processes = facts["key"].rsplit(" ", 2)
    content = upgrade(json.loads(recipe))
    del content[VERSION_KEY]
    return {"recipe": content, "split": split, "processes": int(processes)}


def save(path: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
    """Write the tensors of `modules` and of the optimizer, and JSON-able `facts`, in one atomic file with a digest.

    The checkpoint before is kept at `previous_path`.
    """
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
    header = {"facts": json.dumps(facts), "numbers": json.dumps(numbers)}
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary), {**header, DIGEST: _digest(tensors, header)})
        if path.exists():
            path.replace(previous_path(path))


def previous_path(path: Path) -> Path:
    """Path of the checkpoint that was saved before the one at `path`."""
    return path.with_stem(f"{path.stem}-previous")


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
        # checkpoints of before digests have none
        if DIGEST in header and header[DIGEST] != _digest(tensors, header):
            raise _unusable(path, ValueError("its content does not match its digest"))
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
    previous = previous_path(path)
    if previous.exists() and path != previous:
        advice = f"Rename {previous} to {path.name} to continue from the checkpoint before it, or use --restart."
    else:
        advice = "Start again with --restart."
    return CheckpointError(f"{path} cannot be continued ({error}). {advice}")


def _digest(tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 of the names, types, shapes and bytes of all tensors, and of the facts."""
    made = hashlib.sha256(json.dumps([header["facts"], header["numbers"]]).encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        made.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        made.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()
