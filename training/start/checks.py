"""Checks of a recipe that need no picture: its network, optimiser and start weights.

They take a few seconds, where reading pictures takes minutes.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import timm
import torch
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from timm.optim import get_optimizer_class, list_optimizers
from torch import nn

import zoo.architectures  # noqa: F401 (registers our own networks with timm)
from training.backbones.store import FetchError, fetched
from training.backbones.table import backbones
from training.fit.networks.network import PACKAGED, WeightsError, unfreeze
from training.fit.stopping import FitError
from training.recipe import Model, Recipe, RecipeError

NEAR = 4  # names that are suggested
PROBE_SECONDS = 5.0  # in which the Hub must answer
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def check_start(recipe: Recipe) -> None:
    """Check that a recipe's network can be built and started here.

    Raises:
        RecipeError: The architecture, a layer that a stage trains, or the optimiser is unknown; or the network does not
            take its options or input.
        WeightsError: Its ImageNet weights are neither installed nor within reach.
    """
    if recipe.model is None:
        return
    _check_optimizer(recipe.optimizer.name)
    network = _built(recipe.model, max(2, len(recipe.labels)))
    for stage in recipe.stages:
        try:
            unfreeze(network, stage.train)
        except FitError as error:
            raise RecipeError(str(error)) from error
    if recipe.model.weights == "imagenet":
        _check_weights(recipe.model.architecture)
    if recipe.model.weights == "packaged":
        try:
            fetched(recipe.model.architecture)
        except FetchError as error:
            raise WeightsError(str(error)) from error


def near_names(word: str, names: list[str]) -> str:
    """Suggest the names that are nearest to a word, spelled in any way."""
    plain = {_plain(name): name for name in reversed(names)}
    close = difflib.get_close_matches(_plain(word), list(plain), n=NEAR, cutoff=0.6)
    # then the shortest names that hold the word, for those who give a family's
    held = [name for name in plain if _plain(word) and _plain(word) in name]
    held.sort(key=lambda name: (not name.startswith(_plain(word)), len(name)))
    found = list(dict.fromkeys(plain[name] for name in (*close, *held)))[:NEAR]
    return f"Did you mean {' or '.join(found)}?" if found else ""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _check_optimizer(name: str) -> None:
    try:
        get_optimizer_class(name, bind_defaults=False)
    except ValueError as error:
        names = [str(known) for known in list_optimizers()]
        hint = near_names(name, names) or f"There are: {', '.join(names)}."
        raise RecipeError(f"There is no optimiser {name!r}. {hint}") from error


def _built(model: Model, classes: int) -> nn.Module:
    """The network without memory for its weights. Raises RecipeError if it cannot be built or run."""
    if not timm.is_model(model.architecture.split(".")[0]):
        hint = near_names(model.architecture, timm.list_models())
        raise RecipeError(
            f"There is no network {model.architecture!r}. {hint} `timm.list_models()` lists all of them; those whose "
            f"ImageNet weights are installed: {', '.join(PACKAGED)}."
        )
    try:
        with torch.device("meta"):
            network: nn.Module = timm.create_model(model.timm_name, num_classes=classes, **model.timm_args).eval()
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise RecipeError(f"{model.architecture} cannot be built with these options: {error}") from error
    try:
        with torch.no_grad():
            network(torch.zeros(2, 3, *model.input_size, device="meta"))
    except NotImplementedError:  # not every network can run without memory
        return network
    except (RuntimeError, AssertionError, ValueError) as error:
        if "meta" not in str(error):
            height, width = model.input_size
            raise RecipeError(f"{model.architecture} takes no pictures of {height}×{width}: {error}") from error
    return network


def _check_weights(architecture: str) -> None:
    """Raise WeightsError if the ImageNet weights of a network are neither installed, nor kept, nor on the Hub."""
    if architecture in PACKAGED:
        return
    advice = (
        f"Choose a network whose weights are installed ({', '.join(PACKAGED)}): --model {next(iter(PACKAGED))}. Or "
        "give --scratch, which trains everything from random weights, needs many more pictures and epochs, and says so "
        "in the entry's name."
    )
    if others := [one.name for one in backbones().values() if architecture in (one.name, one.architecture)]:
        advice += (
            f" A package of another project has weights of it: `python -m training fetch-backbone {others[0]}`, then a "
            "recipe that ends in _packaged."
        )
    known = timm.get_pretrained_cfg(architecture)
    if known is None or not known.has_weights:
        raise WeightsError(f"There are no ImageNet weights of {architecture}. {advice}")
    repo = known.hf_hub_id
    if not repo or Path(str(known.file or "")).is_file():  # timm loads them from another place
        return
    if any(isinstance(try_to_load_from_cache(repo, name), str) for name in WEIGHT_FILES):
        return
    try:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        HfApi().model_info(repo, timeout=PROBE_SECONDS)
    # the Hub's client raises errors of many kinds, and each of them means that the weights are out of reach
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise WeightsError(
            f"The ImageNet weights of {architecture} come from the Hugging Face Hub, which cannot be reached here "
            f"({reason}). {advice} With a network, the same command downloads them once."
        ) from error
